"""`bench live` without a server: the same questions in real time, the same figures, in this process.

omni2-engine bench live ENGINE -q examples/questions --out build/live
python -m omni2_bench.lab.live ENGINE -q examples/questions --beside build/live/live.json
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import numpy as np
import typer

from omni2_bench.common.machine import load
from omni2_bench.common.results import table
from omni2_bench.live.conditions import SPREAD, LiveCondition, conditions
from omni2_bench.live.page import conditions_table, milliseconds, name_of
from omni2_bench.live.results import MeasuredCondition
from omni2_bench.load.command import numbers, recordings_in
from omni2_bench.load.recordings import FRAME, RATE, RecordedQuestion, read_recording
from omni2_bench.load.records import Call, HeardTurn
from omni2_engine import Engine
from omni2_engine.live.conversation import LiveConversation
from omni2_engine.live.events import Failed, Finished, Interrupted, SoundMade, SpeechEnded
from omni2_engine.live.settings import Detection
from omni2_engine.turn.chunk import CANCELLED

SILENCE = bytes(2 * FRAME)
HEARD = 0.6  # seconds of an answer before it is interrupted
FIGURES = {  # of both ways: heading → figure
    "decision": "decision_p50",
    "first sound": "first_sound_p50",
    "p95": "first_sound_p95",
    "worst gap": "gap_max",
    "told": "told_p50",
}
Frame = tuple[bytes, bool, bool]  # sound; whether it is the first, and the last, that is voiced


class Microphone:
    """Feeds a conversation a frame every 20 ms, silent where nothing is said. A context manager.

    Args:
        live: the conversation.

    Attributes:
        first, last: when the first and the last voiced frame of the latest question was fed, by `time.monotonic`.
    """

    def __init__(self, live: LiveConversation) -> None:
        self.first = self.last = 0.0
        self._live = live
        self._speech: deque[Frame] = deque()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def speak(self, question: RecordedQuestion) -> None:
        """Say it next."""
        self._speech.extend(
            (frame, number == question.first, number == question.last) for number, frame in enumerate(question.frames)
        )

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            frame, first, last = self._speech.popleft() if self._speech else (SILENCE, False, False)
            self._live.feed(frame, RATE)
            now = time.monotonic()
            self.first, self.last = now if first else self.first, now if last else self.last
            due += FRAME / RATE

    def __enter__(self) -> Microphone:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()


def converse(engine: Engine, condition: LiveCondition, questions: Sequence[RecordedQuestion]) -> HeardTurn:
    """Ask, as the server would be asked.

    Args:
        engine: to talk with.
        condition: of which one turn is measured.
        questions: what is asked, and what interrupts the answer if the condition wants that.

    Returns:
        The first turn; moments by `time.monotonic`. Sound counts as there when `Chunk.start_in` is over: the server
        sends it then.
    """
    turn = HeardTurn()
    detection = Detection(silence=condition.silence, soft_end=Detection().soft_end if condition.speculate else None)
    with engine.live(detection=detection, chunks="growing") as live, Microphone(live) as microphone:
        microphone.speak(questions[0])
        for event in live:
            now = time.monotonic()
            if not microphone.last:
                continue  # a pause in the question was taken for its end
            match event:
                case SpeechEnded():
                    if turn.decided is not None:  # the answer was over before it could be interrupted
                        break
                    turn.decided, turn.speech_ended = now, microphone.last
                case SoundMade() if turn.decided is not None:
                    if not turn.ready and condition.interrupts:
                        threading.Timer(HEARD, microphone.speak, [questions[1]]).start()
                    held = turn.ready[0] if turn.ready else now + event.chunk.start_in
                    turn.ready.append(max(now, held))
                    turn.durations.append(event.chunk.duration)
                case Interrupted() if turn.ready:
                    turn.interrupted, turn.noticed = microphone.first, now
                    break
                case Finished() if event.reason != CANCELLED:
                    turn.ready = [min(moment, now) for moment in turn.ready]  # what is held can be played through now
                    if not (condition.interrupts and turn.ready):
                        break
                case Failed():
                    raise event.error
    return turn


def measure(
    engine: Engine, found: Sequence[LiveCondition], recordings: Sequence[RecordedQuestion], rounds: int
) -> list[MeasuredCondition]:
    """Every condition in every round, in turns; those at once ask at random moments of the same seconds.

    Args:
        engine: with a session for each of the conversations at once.
        found: the conditions.
        recordings: the questions.
        rounds: how often.
    """
    measured = [MeasuredCondition(condition, []) for condition in found]
    draws = np.random.default_rng(0)
    for _ in range(rounds):
        for one in measured:
            at_once = one.condition.conversations
            chosen = draws.integers(len(recordings), size=(2, at_once)).tolist()
            delays = draws.uniform(0.0, SPREAD, at_once).tolist() if at_once > 1 else [0.0]
            with ThreadPoolExecutor(at_once) as callers:
                call = partial(_call, engine, one.condition, recordings)
                one.add(list(callers.map(call, delays, *chosen)), 0.0, 0)
    return measured


def _call(
    engine: Engine,
    condition: LiveCondition,
    recordings: Sequence[RecordedQuestion],
    delay: float,
    first: int,
    second: int,
) -> Call:
    time.sleep(delay)
    return Call(0.0, "done", turns=[converse(engine, condition, [recordings[first], recordings[second]])])


def main(
    engine: Annotated[Path, typer.Argument(help="engine directory")],
    questions: Annotated[list[Path], typer.Option("--question", "-q", help="recordings, or folders of them")],
    silences: Annotated[str, typer.Option(help="seconds that end a question; several with commas")] = "0.2,0.3,0.5",
    conversations: Annotated[str, typer.Option(help="at once; several with commas")] = "1,2,4,8",
    rounds: Annotated[int, typer.Option(min=1, help="turns of every conversation")] = 9,
    threads: Annotated[int | None, typer.Option(min=1, help="processor threads")] = None,
    beside: Annotated[Path | None, typer.Option(help="live.json of `bench live`, to set beside it")] = None,
) -> None:
    """Print the table of `bench live`, of a process without a server."""
    recordings = [read_recording(path) for path in recordings_in(questions)]
    several = [int(number) for number in numbers(conversations)]
    found = conditions(numbers(silences), several)
    with Engine.load(engine, sessions=max(several), threads=threads) as loaded:
        converse(loaded, found[0], recordings[:1])  # unmeasured: what is slower the first time
        measured = measure(loaded, found, recordings, rounds)
    records = [one.record() for one in measured]
    typer.echo(conditions_table(records))
    if beside is not None:
        typer.echo(both_ways(records, json.loads(beside.read_text(encoding="utf-8"))["conditions"]))
    typer.echo(f"load {load():.1f}")


def both_ways(here: Sequence[dict[str, Any]], served: Sequence[dict[str, Any]]) -> str:
    """A table of the conditions that both have, in milliseconds: in this process / over the socket."""
    found = {_key(one): one["figures"] for one in served}
    rows = []
    for one in here:
        if _key(one) in found:
            ways = (one["figures"], found[_key(one)])
            cells = [" / ".join(milliseconds(way.get(figure)) for way in ways) for figure in FIGURES.values()]
            rows.append([name_of(one), str(one["conversations"]), *cells])
    return table(["silence, speculation", "conversations", *FIGURES], rows)


def _key(condition: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(condition[name] for name in ("silence", "speculate", "conversations", "interrupts"))


if __name__ == "__main__":
    typer.run(main)
