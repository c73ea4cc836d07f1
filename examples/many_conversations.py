"""Several conversations on one engine, each on a thread of its own; their decoding shares calls.

python examples/many_conversations.py ENGINE question.wav CONVERSATIONS
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from omni2_engine import BusyError, Engine


def main(engine_dir: str, question: str, conversations: str) -> None:
    count = int(conversations)
    with Engine.load(engine_dir, sessions=count, max_waiting=count) as engine:

        def converse(number: int) -> str:
            try:
                with engine.session(seed=number) as session:
                    return "".join(chunk.text for chunk in session.stream(question))
            except BusyError as error:
                return f"busy: ask again in {error.retry_after:.1f} s"

        with ThreadPoolExecutor(count) as threads:
            for number, answer in enumerate(threads.map(converse, range(count))):
                print(f"{number}: {answer}")


if __name__ == "__main__":
    main(*sys.argv[1:])
