"""Settings of turn detection, checked when they are given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from omni2_engine.errors import SettingError
from omni2_engine.settings import choice, real, shown

Eagerness = Literal["low", "medium", "auto", "high"]
EAGERNESS: dict[str, float] = {"low": 8.0, "medium": 4.0, "auto": 4.0, "high": 2.0}  # seconds of silence at most
SECONDS = ("prefix_padding", "silence", "least_speech")


@dataclass(frozen=True)
class Detection:
    """How turns are found in the input; times are seconds of input, not of a clock.

    Args:
        threshold: probability from which on a window of sound is taken for speech, above 0 and below 1.
        prefix_padding: sound before the speech that the model hears too.
        silence: how much of it ends a turn. Not used where there is an eagerness.
        eagerness: let the sentence decide. Where the engine was given a model that says whether a sentence is over,
            the turn ends with it, and at the latest after 8 ("low"), 4 ("medium", "auto") or 2 ("high") seconds of
            silence; without such a model after these. None ends turns after `silence`.
        least_speech: what is shorter, such as a cough or a click, begins no turn and interrupts nothing.
        soft_end: silence after which an answer is begun speculatively; None for no speculation.
        create_response: answer a turn when it has ended; otherwise `LiveConversation.respond` does.
        interrupt_response: speech stops an answer; otherwise it is the next turn, answered after it.

    Raises:
        SettingError: a value makes no sense.
    """

    threshold: float = 0.5
    prefix_padding: float = 0.3
    silence: float = 0.5
    eagerness: Eagerness | None = None
    least_speech: float = 0.1
    soft_end: float | None = 0.12
    create_response: bool = True
    interrupt_response: bool = True

    def __post_init__(self) -> None:
        threshold = real("threshold", self.threshold, "a probability, such as 0.5")
        if not 0 < threshold < 1:
            raise SettingError(f"threshold is {threshold:g}", "use a probability above 0 and below 1, such as 0.5")
        object.__setattr__(self, "threshold", threshold)
        for name in SECONDS:
            self._set_seconds(name)
        if self.soft_end is not None:
            self._set_seconds("soft_end")
        if self.eagerness is not None:
            choice("eagerness", self.eagerness, EAGERNESS)
        for name in ("create_response", "interrupt_response"):
            if not isinstance(getattr(self, name), bool):
                raise SettingError(f"{name} is {shown(getattr(self, name))}", "use True or False")

    def _set_seconds(self, name: str) -> None:
        seconds = real(name, getattr(self, name), "0 or more seconds")
        if not 0 <= seconds < math.inf:
            raise SettingError(f"{name} is {seconds:g}", "use 0 or more seconds")
        object.__setattr__(self, name, seconds)
