"""The input of a live conversation by itself: what it tells, in the order in which it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omni2_engine.live.detection.base import RATE, Floats, VoiceActivity
from omni2_engine.live.detection.silero import SileroVad
from omni2_engine.live.input import Judge, LiveInput
from omni2_engine.live.listening import hear_next
from omni2_engine.live.settings import Detection

SILERO = SileroVad()


@dataclass
class Heard:
    """A `Hearer` that writes down what it is told: the method's name and its arguments."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    sounds: list[Floats] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        def tell(*arguments: Any) -> None:
            self.sounds += [one for one in arguments if isinstance(one, np.ndarray)]
            self.told.append((name, *(one for one in arguments if not isinstance(one, np.ndarray))))

        return tell

    @property
    def speech(self) -> list[tuple[float, float]]:
        """Seconds at which speech began and ended."""
        edges = [arguments[0] / RATE for name, *arguments in self.told if name in ("speech_began", "speech_ended")]
        return list(zip(edges[::2], edges[1::2], strict=True))


def live_input(
    detection: Detection | None = Detection(),  # noqa: B008 (it is frozen)
    most: float = 30.0,
    judge: Judge | None = None,
    voice: VoiceActivity = SILERO,
) -> tuple[LiveInput, Heard]:
    heard = Heard()
    tell = lambda method, *arguments: method(*arguments)  # noqa: E731
    return LiveInput(detection, heard, tell, most, voice.begin(), judge), heard


def listen(*inputs: LiveInput, voice: VoiceActivity = SILERO) -> None:
    """Let them hear all they were fed."""
    while hear_next(voice, list(inputs)):
        pass


def hear(sound: Floats, rate: int = RATE, frames: Iterable[int] | None = None, **settings: Any) -> Heard:
    """What is told of a sound, fed at once or in frames of these lengths."""
    one, heard = live_input(Detection(**settings))
    for frame in np.split(sound, np.cumsum(list(frames))) if frames else [sound]:
        one.add((frame, rate))
        listen(one)
    one.add(one.flush, one.end)
    listen(one)
    return heard


class Said:
    """A `VoiceActivity` that says what it was given, window for window: for tests of what follows from it."""

    def __init__(self, probabilities: Iterable[float]) -> None:
        self._probabilities = list(probabilities)
        self.calls: list[int] = []  # windows in each

    def begin(self) -> int:
        return 0

    def __call__(self, windows: Any, states: Any) -> tuple[list[float], list[int]]:
        self.calls.append(len(windows))
        return [self._probabilities[state] for state in states], [state + 1 for state in states]
