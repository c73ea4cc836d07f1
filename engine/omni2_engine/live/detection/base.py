"""What turn detection consists of: is there a voice, has the person stopped, is the sentence over.

All of it works on windows of `WINDOW` samples at 16 kHz, one after the other from the first sample of the input on. Its
answers depend on these samples alone, so a recording replays exactly, in frames of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from omni2_engine.live.settings import Detection

Floats = NDArray[np.float32]
RATE = 16_000  # Hz
WINDOW = 512  # samples of a window
CONTEXT = 64  # samples before it that a voice detector is given too


class VoiceActivity(Protocol):
    """Says whether windows hold a voice; one is shared by all conversations."""

    def begin(self) -> Any:
        """The state before the first window of an input."""
        ...

    def __call__(self, windows: Sequence[Floats], states: Sequence[Any]) -> tuple[list[float], list[Any]]:
        """Hear the next window of several inputs.

        Args:
            windows: (CONTEXT + WINDOW,) float32 each.
            states: of these inputs, not changed.

        Returns:
            The probability of a voice in each window, and the states behind them.
        """
        ...


class SentenceEnd(Protocol):
    """Says whether a person who pauses has said all."""

    def __call__(self, speech: Floats) -> bool:
        """Judge the speech of a turn up to a pause.

        Args:
            speech: (n,) float32 at 16 kHz.
        """
        ...


@dataclass(frozen=True)
class Onset:
    """Speech has begun at sample `at`."""

    at: int


@dataclass(frozen=True)
class SoftEnd:
    """Speech may have ended at sample `at`: time to begin an answer speculatively."""

    at: int


@dataclass(frozen=True)
class Resumption:
    """It had not."""


@dataclass(frozen=True)
class Doubt:
    """A pause: is the sentence over? `TurnDetector.judged` is to be told before the next window."""


@dataclass(frozen=True)
class SpeechEnd:
    """Speech has ended at sample `at`."""

    at: int


Mark = Onset | SoftEnd | Resumption | Doubt | SpeechEnd


class TurnDetector(Protocol):
    """Finds the turns of one conversation.

    Attributes:
        earliest: a sample before which no speech will be found any more.
    """

    @property
    def earliest(self) -> int: ...

    def hear(self, probability: float) -> Mark | None:
        """Take in the next window.

        Args:
            probability: of a voice in it.

        Returns:
            What the window decides, if anything.
        """
        ...

    def judged(self, is_over: bool) -> Mark | None:
        """The answer to a `Doubt`.

        Returns:
            What it decides, if anything.
        """
        ...

    def change(self, settings: Detection) -> None:
        """Go on with other settings."""
        ...
