"""What a session is: what it shares with others, what it remembers, the turn that runs. `beginning` and `ending` work
on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine.errors import SettingError
from omni2_engine.memory.states import Conversation, TurnStates
from omni2_engine.sessions.runtime import Runtime
from omni2_engine.sessions.turn_record import TurnRecord
from omni2_engine.turn.history import History
from omni2_engine.turn.metrics import Recorder, TurnMetrics
from omni2_engine.turn.options import Options
from omni2_engine.turn.output import ChunkQueue
from omni2_engine.turn.queue import SessionQueue
from omni2_engine.turn.run import TurnRun

Floats = NDArray[np.float32]


@dataclass
class Held:
    """What a session holds of its engine's memory.

    Attributes:
        conversation: None before it has some, and once it is closed.
        lock: held while the conversation's KV cache is given back, or changed by other than the steps of a turn.
    """

    conversation: Conversation | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)


@dataclass(eq=False)
class RunningTurn:
    """The turn that runs.

    Attributes:
        recorder: of its metrics.
        options: of the session, changed for this turn.
        before: the history without it.
        ticket: of `WaitingTurns`; None if it does not wait.
        prepared: it is not asked for yet.
        asked: when, by `time.monotonic`.
        typed: its question, if that was typed.
        run, output, states: None until it has memory.
        text: of the answer, once it has ended.
        waits_for: memory, while it does.
        opened: the conversation's memory was taken for it.
        begun: its first step was submitted.
        failed: a step raised an error.
        cancelled: by the user; `ended`: cleaning up has begun; `over`: and is done.
        heard: seconds of its sound that were played when it was interrupted; None if it was not.
    """

    recorder: Recorder
    options: Options
    before: History
    ticket: int | None = None
    prepared: bool = False
    asked: float = field(default_factory=monotonic)
    typed: str | None = None
    run: TurnRun | None = None
    text: str = ""
    output: ChunkQueue | None = None
    states: TurnStates | None = None
    waits_for: Future[Any] | None = None
    opened: bool = False
    begun: bool = False
    failed: bool = False
    cancelled: bool = False
    ended: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    heard: float | None = None

    @property
    def deadline(self) -> float | None:
        """The moment of `time.monotonic` by which it must make its first sound."""
        seconds = self.options.deadline
        return None if seconds is None else self.asked + seconds


@dataclass(eq=False)
class SessionState:
    """A session between and during its turns.

    Args:
        runtime: what it shares with other sessions.
        options: how it answers.
        voice: (1, mel) float32, see `Flow.speaker_features`.
        queue: its place in the schedule.
        held: its memory.
        one_turn, logged: see `Session`.

    Attributes:
        release: gives place and memory back, the first time it is called.
        history: what the model is given of earlier turns.
        records: what the user is told of them.
        turns: that are over.
        metrics: of the last one that was had here.
        answered: the last one left an answer, which may be cut.
        turn: the one that runs.
        closed: no turn may begin.
        lock: guards the two above; garbage collection may end a turn in here.
    """

    runtime: Runtime
    options: Options
    voice: Floats
    queue: SessionQueue
    held: Held
    one_turn: bool
    logged: bool
    release: Callable[[], object] = lambda: None
    history: History = field(default_factory=History)
    records: list[TurnRecord] = field(default_factory=list)
    turns: int = 0
    metrics: TurnMetrics | None = None
    answered: bool = False
    turn: RunningTurn | None = None
    closed: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def check_idle(self) -> None:
        """Refuse what cannot be done while a turn runs.

        Raises:
            SettingError: one runs, or the session is closed.
        """
        if self.closed:
            raise SettingError("the session is closed", "open another with engine.session()")
        if self.turn is not None and self.turn.prepared:
            raise SettingError("a turn of this session is prepared", "commit it or take it back first")
        if self.turn is not None:
            raise SettingError("another turn of this session is running", "finish or close it before the next")
