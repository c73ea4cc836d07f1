"""Several conversations in one event loop. No call blocks the loop, and no executor of the program's is used.

python examples/with_asyncio.py ENGINE question.wav CONVERSATIONS
"""

import asyncio
import sys

from omni2_engine import Engine


async def converse(engine: Engine, question: str, seed: int) -> None:
    async for chunk in engine.astream(question, seed=seed):
        print(f"{seed}: {chunk.end:5.2f} s {chunk.text}")


async def run(engine: Engine, question: str, conversations: int) -> None:
    await asyncio.gather(*(converse(engine, question, seed) for seed in range(conversations)))


def main(engine_dir: str, question: str, conversations: str) -> None:
    with Engine.load(engine_dir, sessions=int(conversations)) as engine:
        asyncio.run(run(engine, question, int(conversations)))


if __name__ == "__main__":
    main(*sys.argv[1:])
