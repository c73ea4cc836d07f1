"""Settings of a conversation, checked when they are given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, TypedDict

from omni2_engine.errors import SettingError
from omni2_engine.model.config import Capabilities, ModelConfig, TokenConfig
from omni2_engine.sampling import SEED_LIMIT, Sampling
from omni2_engine.settings import choice, integer, real, shown

MAX_NEW_TOKENS = 256  # text tokens a turn
LAST_WRITE = 1024  # speech tokens of the final write at most, spec §6
INTEGERS = {  # least, most, what to use
    "seed": (0, SEED_LIMIT - 1, "an integer from 0 to 2^64 - 1"),
    "max_new_tokens": (1, None, "an integer, at least 1"),
    "max_last_write": (1, None, "an integer, at least 1"),
}
SECONDS = ("unread", "run_ahead")
ENDLESS = 1e9  # seconds: longer than a system's clocks can wait
OTHERS: dict[str, tuple[Any, str]] = {  # type, what to use
    "text_sampling": (Sampling | None, "a Sampling, or None for the checkpoint's own way"),
    "speech_sampling": (Sampling, "a Sampling"),
    "voice": (str | None, "the name of a voice"),
    "system": (str | None, "a text"),
    "typed_turns": (bool | None, "True or False, or None for the model's own"),
}
CHOICES = {"long": ("error", "truncate"), "chunks": ("fixed", "growing")}
SPEECH_SAMPLING = Sampling(temperature=1.0, top_k=50)  # what is in force in the original, spec §6
OnLong = Literal["error", "truncate"]
Chunks = Literal["fixed", "growing"]


class TurnOptions(TypedDict, total=False):
    """What a turn may change of its session's `Options`; each is described there."""

    seed: int
    text_sampling: Sampling | None
    speech_sampling: Sampling
    max_new_tokens: int | None
    max_last_write: int | None
    long: OnLong
    chunks: Chunks
    unread: float | None
    deadline: float | None
    history_turns: int | None
    typed_turns: bool | None
    system: str | None


class SessionOptions(TurnOptions, total=False):
    """`Options` as keyword arguments."""

    voice: str | None
    run_ahead: float | None


FIXED = tuple(sorted(set(SessionOptions.__annotations__) - set(TurnOptions.__annotations__)))  # for a whole session
ARGUMENTS = ("audio", "sample_rate", "text", "on_text", "steer", "forced")  # of `stream`, beside its options


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
        system: system prompt; None leaves it to the checkpoint's chat template. A turn with another one than the turn
            before is prefilled from the beginning.
        long: what to do with speech longer than the encoder's window, "error" or "truncate".
        chunks: "fixed" voices every W units, which gives the same samples on any machine; "growing" voices up to four
            times as many at once while the player has a lead, which costs less and depends on the machine's speed.
        unread: seconds of sound that may wait to be taken from the iterator before the answer pauses; infinite, or
            None, for no limit.
        run_ahead: seconds that a session may be ahead of its player while others are being answered too; likewise.
        deadline: seconds from the question within which the first sound must come, else the turn ends with a
            `BusyError`; None for no deadline.
        history_turns: earlier turns that an answer takes into account, 0 for none; None is what the model was made for,
            see `Capabilities`: all that fit, for a released one.
        typed_turns: whether a turn may be typed; None refuses it where the model was not taught to answer one.

    Numbers may be of any type, see `settings`.

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
    long: OnLong = "error"
    chunks: Chunks = "fixed"
    unread: float = 30.0
    run_ahead: float = 15.0
    deadline: float | None = None
    history_turns: int | None = None
    typed_turns: bool | None = None

    def __post_init__(self) -> None:
        for name, (least, most, use) in INTEGERS.items():
            self._set(name, integer(name, getattr(self, name), use, least=least, most=most))
        for name in SECONDS:
            self._set(name, self._seconds(name, "some seconds, or None for no limit"))
        for name, (kind, use) in OTHERS.items():
            if not isinstance(getattr(self, name), kind):
                raise SettingError(f"{name} is {shown(getattr(self, name))}", f"use {use}")
        for name, choices in CHOICES.items():
            choice(name, getattr(self, name), choices)
        if self.deadline is not None:
            seconds = self._seconds("deadline", "some seconds, or None for no deadline")
            self._set("deadline", seconds if seconds < ENDLESS else None)
        if self.history_turns is not None:
            use = "0 or more turns, or None for the model's own"
            self._set("history_turns", integer("history_turns", self.history_turns, use, least=0))

    def _seconds(self, name: str, use: str) -> float:
        """A setting above 0; None is infinite."""
        seconds = real(name, getattr(self, name), use, none=math.inf)
        if seconds <= 0:
            raise SettingError(f"{name} is {seconds:g}", f"use {use}")
        return seconds

    def _set(self, name: str, value: float | None) -> None:
        object.__setattr__(self, name, value)

    def merged(self, changes: Mapping[str, Any]) -> Options:
        """These options with some of them changed.

        Raises:
            SettingError: an option that does not exist, or a value that makes no sense.
        """
        known = tuple(self.__dataclass_fields__)
        for name in changes:
            if name not in known:
                close = get_close_matches(name, (*known, *ARGUMENTS), 1)
                use = f"did you mean {close[0]}?" if close else f"use one of {', '.join((*known, *ARGUMENTS))}"
                raise SettingError(f"there is no option {name}", use)
        return replace(self, **changes)

    def sampling_of_text(self, tokens: TokenConfig) -> Sampling:
        """How text is chosen with this checkpoint's repetition penalty (spec §1.1)."""
        return self.text_sampling or Sampling(temperature=0.0, repetition_penalty=tokens.repetition_penalty)

    def over(self, capabilities: Capabilities) -> Capabilities:
        """What a model was taught, but where these options say otherwise."""
        stated = {"history_turns": self.history_turns, "typed_turns": self.typed_turns}
        return capabilities.model_copy(update={name: value for name, value in stated.items() if value is not None})

    def check_typed(self, model: ModelConfig) -> None:
        """Refuse a typed turn where the model was not taught any.

        Raises:
            SettingError: it was not, and these options do not insist.
        """
        if not self.over(model.capabilities).typed_turns:
            raise SettingError(
                f"{model.name} was not taught typed questions and answers them with nonsense",
                "speak the question, or insist with typed_turns=True (--typed-turns)",
            )
