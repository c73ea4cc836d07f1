"""Interruption: the second question comes while the first is being answered.

The answer stops, the conversation keeps what was heard of it, and the interrupting speech is the next turn.

    python examples/barge_in.py ENGINE first.wav second.wav
"""

import sys

from omni2_engine import Engine

HEARD_SECONDS = 0.5  # of the first answer, before the person speaks again


def main(engine_dir: str, first: str, second: str) -> None:
    with Engine.load(engine_dir) as engine, engine.session() as session:
        played = 0.0
        for chunk in session.stream(first):
            played += chunk.duration  # a real player says how far it has come
            if played >= HEARD_SECONDS:
                session.interrupt(HEARD_SECONDS)
                break
        print("interrupted; the next answer goes on from what was heard:")
        print("".join(chunk.text for chunk in session.stream(second)))


if __name__ == "__main__":
    main(*sys.argv[1:])
