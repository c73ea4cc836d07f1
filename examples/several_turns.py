"""A conversation: every question is a turn of one session, and what was said before stays in its KV cache.

python examples/several_turns.py ENGINE first.wav second.wav …
"""

import sys

from omni2_engine import Engine


def main(engine_dir: str, *questions: str) -> None:
    with Engine.load(engine_dir) as engine, engine.session(seed=7) as session:
        for question in questions:
            answer = "".join(chunk.text for chunk in session.stream(question))
            print(answer)
            # engine.session(history=[EarlierTurn(answer, audio=question), …]) goes on from here in another process
            if session.metrics:
                m = session.metrics
                print(f"  {m.prompt_positions} positions, {m.reused_positions} of them from the turns before")


if __name__ == "__main__":
    main(*sys.argv[1:])
