"""A turn that is begun on what was said so far, before it is certain that this is all of the question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import SessionCancelledError
from omni2_engine.errors import SettingError
from omni2_engine.sessions.answer import Answer
from omni2_engine.sessions.beginning import answer_of, claim, sound_of, start
from omni2_engine.sessions.ending import abandon, closed, take_back, wait_for_end
from omni2_engine.sessions.question import Asked
from omni2_engine.sessions.state import RunningTurn, SessionState
from omni2_engine.turn.run import Hooks, checked_hooks

Floats = NDArray[np.float32]
EndTurn = Callable[[RunningTurn, str | None, bool], None]  # a turn, and what `Answer` says of its end


class Prepared:
    """A turn that is prepared; made by `Session.prepare`. One that is dropped is taken back.

    `commit` and `take_back` come from one thread at a time, like all that begins or ends a turn of a session.

    Args:
        state: of the session.
        turn: None if there was no memory left over.
        anew: begins the turn as one that was not prepared.
        end: ends the turn; a method of the session, which is kept by this.
    """

    def __init__(self, state: SessionState, turn: RunningTurn | None, anew: Callable[[], Answer], end: EndTurn) -> None:
        self._state = state
        self._turn = turn
        self._anew = anew
        self._end = end
        self._over: str | None = None

    @property
    def begun(self) -> bool:
        """Whether work is done ahead; not if there was no memory left over, or a turn that was asked for needed it."""
        return self._turn is not None and not self._turn.ended

    @property
    def ready(self) -> bool:
        """Whether the first sound is there."""
        run = None if self._turn is None else self._turn.run
        return run is not None and run.sounded

    @property
    def rests(self) -> bool:
        """Whether all is there that is made ahead: the first chunks."""
        run = None if self._turn is None else self._turn.run
        return run is not None and run.rests

    def commit(self) -> Answer:
        """The turn is asked for: what has been made of it is let go, and it goes on.

        It gets its place in the order of turns now, and its times count from here. If no work could be done ahead it
        begins now, and with admission "wait" this call waits for memory; else it waits for nothing.

        Returns:
            What `Session.stream` would have returned.

        Raises:
            BusyError: too many turns wait already, and this one has no sound yet. It is taken back.
            SettingError: it was committed or taken back before, or the session is closed.
            CapacityError: see `Session.stream`, where no work could be done ahead.
        """
        self._finish("committed")
        turn, state = self._turn, self._state
        if turn is None:
            return self._anew()
        run, states = turn.run, turn.states  # once it is asked for, an interruption on another thread may end the turn
        if not self._ask_for(turn):
            self._drop()
            return self._anew()
        assert run is not None and turn.output is not None and states is not None
        state.runtime.states.keep(states)
        state.runtime.prepared_turns.count(committed=1)
        turn.output.on_first = partial(state.runtime.waiting.leave, turn.ticket, True)
        turn.recorder.begin_anew()
        try:
            run.commit()
        except SessionCancelledError:  # a step failed, or `cancel` or `close` came
            turn.output.end()
        return answer_of(state, turn, partial(self._end, turn))

    def take_back(self) -> None:
        """What was said was not the whole question: the turn leaves no trace. A second time does nothing.

        History, KV cache, numbers of turns and all that is foretold from turns are as if it had never been. This waits
        for a step that runs.

        Raises:
            SettingError: it was committed.
        """
        if self._over == "taken back":
            return
        self._finish("taken back")
        self._drop()

    def advance(self) -> bool:
        """Run its next step on the calling thread, with the schedule "inline"; False where other threads run the steps,
        or the turn rests."""
        return self.begun and self._over is None and not self.rests and self._state.queue.run_step()

    def __del__(self) -> None:
        if getattr(self, "_over", "") is None and self._turn is not None:
            take_back(self._state, self._turn)

    def _drop(self) -> None:
        """Take the turn back, and wait until that is done."""
        if self._turn is not None:
            take_back(self._state, self._turn)
            wait_for_end(self._state, self._turn)

    def _finish(self, how: str) -> None:
        if self._over is not None:
            raise SettingError(f"the turn was {self._over} before", "prepare another one")
        self._over = how

    def _ask_for(self, turn: RunningTurn) -> bool:
        """Make it a turn that was asked for; False if it has to begin anew: it was taken back, or failed.

        Raises:
            BusyError: see `commit`.
        """
        state = self._state
        try:
            with state.lock:
                if turn.ended or turn.failed or state.closed:
                    return False
                if not self.ready:
                    turn.ticket = state.runtime.waiting.enter()
                turn.prepared, turn.asked = False, monotonic()
                return True
        except BaseException:
            self._drop()
            raise


def prepare(
    state: SessionState, asked: Asked, options: Mapping[str, Any], stream: Callable[..., Answer], end: EndTurn
) -> Prepared:
    """Begin a turn that is not asked for yet, see `Session.prepare`.

    Args:
        state: of the session.
        asked: the question so far.
        options: for this turn alone.
        stream: `Session.stream`, for a turn that begins when it is committed.
        end: ends the turn.
    """
    if asked.audio is None or asked.text is not None or asked.steer is not None:
        raise SettingError("a turn is prepared with text or steer", "prepare a spoken one, without steer")
    turn = claim(state, options, prepared=True)
    try:
        hooks = checked_hooks(asked.hooks, state.runtime.pipeline)
        waveform = asked.read(state.runtime, turn)
        begun = _begin_left_over(state, turn, waveform, hooks)
    except SessionCancelledError:  # by `close`
        abandon(state, turn)
        raise closed() from None
    except BaseException:
        abandon(state, turn)
        raise
    again = {"sample_rate": 16_000, "on_text": asked.on_text, "forced": asked.forced, **options}
    if begun:
        state.runtime.prepared_turns.count(prepared=1)
    else:
        state.runtime.prepared_turns.count(refused=1)
        abandon(state, turn)
    return Prepared(state, turn if begun else None, partial(stream, waveform, **again), end)


def _begin_left_over(state: SessionState, turn: RunningTurn, waveform: Floats | None, hooks: Hooks) -> bool:
    """Begin the turn with the memory that is left over; False if there is none."""
    runtime, queue, held = state.runtime, state.queue, state.held
    queue.drained()
    queue.revive()
    with state.lock:  # or it might be taken back in the middle
        if held.conversation is None:
            held.conversation = runtime.states.open_left_over()
            turn.opened = held.conversation is not None
        if held.conversation is not None:
            needed = sound_of(runtime, turn.options)
            turn.states = runtime.states.begin_left_over(state.voice, *needed, partial(_give_up, state, turn))
        if turn.states is None:
            return False
        queue.speculate()
        start(state, turn, waveform, None, hooks)
    return True


def _give_up(state: SessionState, turn: RunningTurn) -> Future[None]:
    """Take the turn back, as a turn that was asked for needs its memory; the future is done when that is over."""
    done: Future[None] = Future()

    def work() -> None:
        with state.lock:
            prepared = turn.prepared
        if prepared:
            take_back(state, turn)
        if done.set_running_or_notify_cancel():
            done.set_result(None)

    state.runtime.helpers.submit(work)
    return done
