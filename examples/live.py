"""A live conversation: sound goes in as it is spoken, and what is said during the answer interrupts it.

python examples/live.py ENGINE first.wav second.wav
"""

import sys

import numpy as np
import soundfile

from omni2_engine import Detection, Engine, LiveConversation
from omni2_engine.live.events import Committed, Finished, Interrupted, SoundMade, SpeechBegan, TextWritten

RATE = 16_000  # of positions in events, Hz


def speak(live: LiveConversation, file: str) -> None:
    """Feed a recording and a second of silence, frame by frame; a microphone does it in real time."""
    samples, rate = soundfile.read(file, dtype="float32")
    for frame in np.array_split(np.concatenate([samples, np.zeros(rate, np.float32)]), 100):
        live.feed(frame, rate)


def main(engine_dir: str, first: str, second: str) -> None:
    with Engine.load(engine_dir) as engine, engine.live(detection=Detection(silence=0.5)) as live:
        speak(live, first)
        for event in live:
            match event:
                case SpeechBegan():
                    print(f"{event.at / RATE:6.2f} s  speech")
                case Committed():
                    print(f"{event.end / RATE:6.2f} s  over")
                case TextWritten():
                    print(event.text, end="")
                case SoundMade() if event.turn == 0 and event.chunk.index == 0:  # a player would begin here
                    speak(live, second)
                    live.end()
                case Interrupted():
                    print(f" … interrupted, {event.heard:.2f} s of the answer were heard")
                case Finished():
                    print(f" ({event.reason})")


if __name__ == "__main__":
    main(*sys.argv[1:])
