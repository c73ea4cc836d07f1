"""What happens in a live conversation, in the order in which it happens.

A spoken turn without trouble:

    SpeechBegan → TurnBegun → SpeechEnded → Committed → AnswerBegun → TextWritten, SoundMade … → Finished

`TurnBegun` stands before `SpeechEnded` where the turn is speculative; `TurnTakenBack` follows it if speech goes on, and
its number is used again. A speculative turn shows nothing of its answer before `AnswerBegun`. Without speculation
`TurnBegun` stands directly before `AnswerBegun`.

An interruption: SpeechBegan → Interrupted → Finished(reason "cancelled"). `Finished` is left out where the answer was
made already and only its playing was interrupted.

Positions are samples of the input at 16 kHz, counted from the first one fed. Turns are counted from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from omni2_engine.live.detection.base import Floats
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.metrics import TurnMetrics


@dataclass(frozen=True)
class SpeechBegan:
    """A person speaks.

    Args:
        at: where the speech begins. It is told `Detection.least_speech` later, when it is certain.
        begin: where the sound begins that the model will hear: `Detection.prefix_padding` before, or later where the
            sound before belongs to an earlier turn.
    """

    at: int
    begin: int


@dataclass(frozen=True)
class SpeechEnded:
    """The person has stopped.

    Args:
        at: where the speech ended.
        decided: how much input had been heard when that was decided.
    """

    at: int
    decided: int


@dataclass(frozen=True)
class Committed:
    """A stretch of sound is the user's next item.

    Args:
        begin: where it begins.
        end: where it ends.
        answered: whether its answer follows by itself; otherwise `LiveConversation.respond` asks for it.
        speech: (n,) float32 at 16 kHz, as much of it as the model hears.
    """

    begin: int
    end: int
    answered: bool
    speech: Floats = field(default_factory=lambda: np.zeros(0, np.float32), repr=False, compare=False)


@dataclass(frozen=True)
class TurnBegun:
    """The engine works on an answer.

    Args:
        turn: its number.
        speculative: the speech may still go on. Either `AnswerBegun` or `TurnTakenBack` follows.
    """

    turn: int
    speculative: bool


@dataclass(frozen=True)
class TurnTakenBack:
    """A speculative turn is as if it had never been: the speech went on, or was cleared."""

    turn: int


@dataclass(frozen=True)
class AnswerBegun:
    """A turn is certain; its text and sound follow."""

    turn: int


@dataclass(frozen=True)
class TextWritten:
    """Text of the answer, ahead of its sound.

    Args:
        turn: that is answered.
        text: what was written since the last of these events, whole characters only.
    """

    turn: int
    text: str


@dataclass(frozen=True)
class SoundMade:
    """A piece of the answer's sound.

    Args:
        turn: that is answered.
        chunk: the sound, with its place in time. Its text has been told by `TextWritten`.
    """

    turn: int
    chunk: Chunk


@dataclass(frozen=True)
class Interrupted:
    """An answer was stopped: a player must fall silent. Sound that was not taken yet does not come any more.

    Args:
        turn: whose answer it is.
        heard: seconds of its sound that were heard, which the conversation keeps.
    """

    turn: int
    heard: float


@dataclass(frozen=True)
class Finished:
    """An answer is made; it may still be playing.

    Args:
        turn: that was answered.
        reason: "end" (the model ended it), "limit" (`max_new_tokens` was reached) or "cancelled".
        metrics: of the turn.
    """

    turn: int
    reason: str
    metrics: TurnMetrics


@dataclass(frozen=True)
class TurnAdded:
    """Items of the user and the answer that `LiveConversation.answered` gave to them are an earlier turn now."""


@dataclass(frozen=True)
class Failed:
    """Something could not be done; the conversation goes on.

    Args:
        turn: whose answer broke off; None where no turn was running, for instance `commit` without speech.
        error: why.
    """

    turn: int | None
    error: Exception


Event = (
    SpeechBegan
    | SpeechEnded
    | Committed
    | TurnBegun
    | TurnTakenBack
    | AnswerBegun
    | TextWritten
    | SoundMade
    | Interrupted
    | Finished
    | TurnAdded
    | Failed
)
