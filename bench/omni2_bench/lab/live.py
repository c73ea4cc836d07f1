"""Live conversations in real time on this machine: from the end of speech to the first sound, from an interruption to
the last, and two conversations at once.

python -m omni2_bench.lab.live ENGINE examples/sum.wav --speech-begins 0.22
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from omni2_bench.common.machine import load
from omni2_bench.common.results import table
from omni2_bench.common.statistics import summarise
from omni2_engine import Engine
from omni2_engine.audio.source import read_native
from omni2_engine.live.conversation import LiveConversation
from omni2_engine.live.events import Finished, Interrupted, SoundMade, SpeechEnded
from omni2_engine.live.settings import Detection
from omni2_engine.turn.chunk import Chunk

FRAME = 0.02  # seconds
HEARD = 0.6  # seconds of an answer before it is interrupted
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Recorded:
    """A spoken question.

    Args:
        samples: mono.
        rate: Hz.
        begins: seconds at which the speech begins.
    """

    samples: Floats
    rate: int
    begins: float

    def speak(self, live: LiveConversation, rest: float) -> float:
        """Feed it in real time, and silence behind it.

        Returns:
            When the speech began, by `time.monotonic`.
        """
        sound = np.concatenate([self.samples, np.zeros(round(rest * self.rate), np.float32)])
        length, began = round(FRAME * self.rate), time.monotonic()
        for number, first in enumerate(range(0, len(sound), length), 1):
            time.sleep(max(began + number * FRAME - time.monotonic(), 0.0))  # a frame is there when it was spoken
            live.feed(sound[first : first + length], self.rate)
        return began + self.begins


def first_sound(engine: Engine, question: Recorded, detection: Detection) -> float:
    """Milliseconds from the decision that the speech is over to the first sound."""
    with engine.live(detection=detection, max_new_tokens=64) as live:
        speaker = threading.Thread(target=question.speak, args=(live, detection.silence + 0.3))
        speaker.start()
        decided = 0.0
        for event in live:
            if isinstance(event, SpeechEnded):
                decided = time.monotonic()
            elif isinstance(event, SoundMade):
                break
        sounded = time.monotonic()
        speaker.join()
    return 1000 * (sounded - decided)


def interruption(engine: Engine, question: Recorded, detection: Detection) -> float:
    """Milliseconds from the onset of speech during an answer to the moment at which its sound is stopped."""
    with engine.live(detection=detection, max_new_tokens=64) as live:
        onset: list[float] = []

        def speak() -> None:
            question.speak(live, detection.silence + HEARD + 0.2)
            onset.append(question.speak(live, 0.0))

        speaker = threading.Thread(target=speak)
        speaker.start()
        for event in live:
            if isinstance(event, Interrupted):
                break
        stopped = time.monotonic()
        speaker.join()
    return 1000 * (stopped - onset[0])


def gaps(engine: Engine, question: Recorded, detection: Detection, conversations: int) -> list[float]:
    """Milliseconds for which a player that waited for `start_in` has nothing to play, by conversation; all speak at the
    same time."""
    found: list[float] = []

    def converse() -> None:
        with engine.live(detection=detection, max_new_tokens=64) as live:
            speaker = threading.Thread(target=question.speak, args=(live, detection.silence + 0.3))
            speaker.start()
            arrived: list[tuple[float, Chunk]] = []
            for event in live:
                if isinstance(event, SoundMade):
                    arrived.append((time.monotonic(), event.chunk))
                elif isinstance(event, Finished):
                    break
            speaker.join()
        dry, longest = arrived[0][0] + arrived[0][1].start_in, 0.0
        for moment, chunk in arrived:
            longest = max(longest, moment - dry)
            dry = max(dry, moment) + chunk.duration
        found.append(1000 * longest)

    threads = [threading.Thread(target=converse) for _ in range(conversations)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def main(
    engine: Annotated[Path, typer.Argument(help="engine directory")],
    audio: Annotated[Path, typer.Argument(help="spoken question")],
    speech_begins: Annotated[float, typer.Option(help="seconds at which its speech begins")] = 0.0,
    rounds: Annotated[int, typer.Option(help="how often everything runs, interleaved")] = 20,
) -> None:
    """Print medians with p10 to p90, milliseconds."""
    question = Recorded(*read_native(audio), speech_begins)
    soft_ends = {"with speculation": Detection().soft_end, "without": None}
    rows: dict[str, list[float]] = {}
    with Engine.load(engine, sessions=2) as loaded:
        runs: dict[str, Callable[[], list[float]]] = {}
        for silence, (name, soft_end) in product((0.5, 0.2), soft_ends.items()):
            detection = Detection(silence=silence, soft_end=soft_end)
            runs[f"first sound, {1000 * silence:.0f} ms of silence, {name}"] = lambda d=detection: [  # type: ignore[misc]
                first_sound(loaded, question, d)
            ]
        runs["interruption"] = lambda: [interruption(loaded, question, Detection())]
        runs["longest gap of two at once"] = lambda: gaps(loaded, question, Detection(), 2)
        for _ in range(rounds):
            for name, run in runs.items():
                rows.setdefault(name, []).extend(run())
    summaries = {name: summarise(values) for name, values in rows.items()}
    typer.echo(f"load {load():.0f}")
    lines = [[name, f"{s.median:.0f}", f"{s.p10:.0f} to {s.p90:.0f}"] for name, s in summaries.items()]
    typer.echo(table(["ms", "median", "p10 to p90"], lines))


if __name__ == "__main__":
    typer.run(main)
