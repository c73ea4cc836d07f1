"""Settings of a conversation, checked when they are given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any

from omni2_engine.config import TokenConfig
from omni2_engine.errors import SettingError
from omni2_engine.sampling import SEED_LIMIT, Sampling

MAX_NEW_TOKENS = 256  # text tokens a turn
LAST_WRITE = 1024  # speech tokens of the final write at most, spec §6
KINDS: dict[str, tuple[Any, str]] = {  # type of each option, and what to call it
    "seed": (Integral, "an integer from 0 to 2^64 - 1"),
    "text_sampling": (Sampling | None, "a Sampling, or None for the checkpoint's own way"),
    "speech_sampling": (Sampling, "a Sampling"),
    "max_new_tokens": (Integral, "an integer from 1"),
    "max_last_write": (Integral, "an integer from 1"),
    "voice": (str | None, "the name of a voice"),
    "system": (str | None, "a text"),
    "unread": (Real, "a number of seconds"),
    "run_ahead": (Real, "a number of seconds"),
    "deadline": (Real | None, "a number of seconds, or None"),
}
CHOICES = {"long": ("error", "truncate"), "chunks": ("fixed", "growing")}
SPEECH_SAMPLING = Sampling(temperature=1.0, top_k=50)  # what is in force in the original, spec §6


@dataclass(frozen=True)
class Options:
    """How a session answers.

    Args:
        seed: names every random draw; the same seed gives the same answer.
        text_sampling: how text tokens are chosen; None is greedy with the checkpoint's repetition penalty.
        speech_sampling: how speech tokens are chosen.
        max_new_tokens: text tokens of one turn at most.
        max_last_write: speech tokens of a turn's final write at most.
        voice: name of a stored voice; None is the engine's default.
        system: system prompt; None leaves it to the checkpoint's chat template.
        long: what to do with speech longer than the encoder's window, "error" or "truncate".
        chunks: "fixed" voices every W units, which gives the same samples on any machine; "growing" voices up to four
            times as many at once while the player has a lead, which costs less and depends on the machine's speed.
        unread: seconds of sound that may wait to be taken from the iterator before the answer pauses.
        run_ahead: seconds that a session may be ahead of its player while others are being answered too.
        deadline: seconds from the question within which the first sound must come, else the turn ends with a
            `BusyError`; None for no deadline.

    Raises:
        SettingError: a value makes no sense.
    """

    seed: int = 0
    text_sampling: Sampling | None = None
    speech_sampling: Sampling = field(default=SPEECH_SAMPLING)
    max_new_tokens: int = MAX_NEW_TOKENS
    max_last_write: int = LAST_WRITE
    voice: str | None = None
    system: str | None = None
    long: str = "error"
    chunks: str = "fixed"
    unread: float = 30.0
    run_ahead: float = 15.0
    deadline: float | None = None

    def __post_init__(self) -> None:
        for name, (kind, words) in KINDS.items():
            if not isinstance(getattr(self, name), kind):
                raise SettingError(f"{name} is {getattr(self, name)!r}", f"use {words}")
        if not 0 <= self.seed < SEED_LIMIT:
            raise SettingError(f"seed is {self.seed}", "use an integer from 0 to 2^64 - 1")
        for name in ("max_new_tokens", "max_last_write"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "use at least 1")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingError(f"{name} is {getattr(self, name)!r}", f"use one of {', '.join(choices)}")
        for name in ("unread", "run_ahead"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}", "use some seconds")
        if self.deadline is not None and not self.deadline > 0:
            raise SettingError(f"deadline is {self.deadline}", "use some seconds, or None")

    def merged(self, changes: dict[str, Any]) -> Options:
        """These options with some of them changed.

        Raises:
            SettingError: an option that does not exist, or a value that makes no sense.
        """
        unknown = sorted(set(changes) - set(self.__dataclass_fields__))
        if unknown:
            raise SettingError(f"unknown option {unknown[0]}", f"use one of {', '.join(self.__dataclass_fields__)}")
        return replace(self, **changes)

    def sampling_of_text(self, tokens: TokenConfig) -> Sampling:
        """How text is chosen with this checkpoint's repetition penalty (spec §1.1)."""
        return self.text_sampling or Sampling(temperature=0.0, repetition_penalty=tokens.repetition_penalty)
