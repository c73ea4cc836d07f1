"""Answer one spoken question: text as it is written, sound into a WAV file.

python examples/stream_file.py ENGINE question.wav answer.wav
"""

import sys

import numpy as np
import soundfile

from omni2_engine import Engine


def main(engine_dir: str, question: str, output: str) -> None:
    with Engine.load(engine_dir) as engine:
        pieces = []
        for chunk in engine.stream(question):
            print(chunk.text, end="", flush=True)
            pieces.append(chunk.pcm)  # float32 mono; hand it to a player here
        print()
        soundfile.write(output, np.concatenate(pieces), engine.sample_rate)


if __name__ == "__main__":
    main(*sys.argv[1:])
