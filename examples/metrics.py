"""What a turn cost: the first sound and its parts, the time of every stage, the real-time factor.

python examples/metrics.py ENGINE question.wav
"""

import logging
import sys

from omni2_engine import Engine


def main(engine_dir: str, question: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")  # a JSON line per turn: omni2_engine.turn
    with Engine.load(engine_dir) as engine, engine.session() as session:
        for _ in session.stream(question):
            pass
        m = session.metrics
        if m is None or m.first_chunk is None or m.rtf is None:
            return
        print(f"first chunk {1000 * m.first_chunk:.0f} ms: LLM {1000 * m.first_chunk_llm:.0f}, ", end="")
        print(f"speech LM {1000 * m.first_chunk_tts:.0f}, flow and vocoder {1000 * m.first_chunk_synthesis:.0f}")
        for stage, seconds in sorted(m.stages.items(), key=lambda item: -item[1]):
            print(f"  {stage:14} {1000 * seconds:6.0f} ms")
        print(f"real-time factor {m.rtf:.2f}, {m.audio_seconds:.2f} s of sound")


if __name__ == "__main__":
    main(*sys.argv[1:])
