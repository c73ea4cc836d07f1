"""What turn taking keeps of the user's items, of answers that are asked for, and of turns that run."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omni2_engine.live.detection.base import Floats
from omni2_engine.live.playback import Playback
from omni2_engine.sessions.prepared import Prepared


@dataclass(frozen=True)
class Spoken:
    """A stretch of the user's speech.

    Args:
        speech: (n,) float32 at 16 kHz, as much of it as the model hears.
        samples: how long it was.
    """

    speech: Floats
    samples: int


@dataclass(eq=False)
class LiveTurn:
    """A turn that runs, or the last one that did.

    Attributes:
        certain: it is not speculative, or no more.
        text: written while it was.
        interrupted: nothing of it is told any more.
        followed: an earlier turn was given behind it, and its answer stays as it is.
        over: its answer is made.
    """

    number: int
    playback: Playback
    certain: bool = False
    text: str = ""
    interrupted: bool = False
    followed: bool = False
    over: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Speculation:
    """A speculative turn, and the stretch of speech that it answers."""

    turn: LiveTurn
    prepared: Prepared
    spoken: Spoken


@dataclass(frozen=True)
class Request:
    """An answer to these items that is to be made, with these options for the turn.

    Args:
        items: of the user.
        options: for the turn.
        given: the answer where that was made elsewhere.
        heard: seconds to which that is truncated; None for all.
    """

    items: list[Spoken | str]
    options: Mapping[str, Any]
    given: str | None = None
    heard: float | None = None
