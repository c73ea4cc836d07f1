"""A turn's end, and a session's: what a turn leaves is its history and metrics, all else is given back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from omni2_engine._core import SchedulerError
from omni2_engine.errors import SettingError
from omni2_engine.memory.states import StatePool
from omni2_engine.sessions.state import Held, RunningTurn, SessionState
from omni2_engine.sessions.turn_record import TurnRecord
from omni2_engine.turn.queue import SessionQueue


def cancel(state: SessionState) -> None:
    """Stop the turn that runs before its next step. From any thread."""
    with state.lock:
        turn = state.turn
        if turn is None:
            return
        turn.cancelled = True
        future, output = turn.waits_for, turn.output
    state.queue.cancel()
    if future is not None:
        future.cancel()
    if output is not None:
        output.discard()


def end(state: SessionState, turn: RunningTurn, outcome: str | None) -> None:
    """End a turn however far it is, and leave nothing of it but its history and metrics.

    Args:
        state: of the session.
        turn: the one that runs; a second time does nothing.
        outcome: how it ended if not by itself.
    """
    with state.lock:
        if turn.ended:
            return
        turn.ended = True
    if turn.output is not None:
        turn.output.discard()
    state.runtime.waiting.leave(turn.ticket, sounded=False)
    state.queue.cancel()  # until the next turn
    _once_drained(state.queue, partial(_clean_up, state, turn, outcome))


def abandon(state: SessionState, turn: RunningTurn) -> None:
    """A turn could not begin: as if it had not been asked."""
    state.queue.finish()
    with state.lock:
        turn.ended, state.turn = True, None
    state.runtime.waiting.leave(turn.ticket, sounded=False)
    if turn.states is not None:
        state.runtime.states.end(turn.states)
    state.history.exchanges = turn.before
    if state.one_turn:
        close(state)


def close(state: SessionState) -> None:
    """Give the session's memory back, once a step that runs is done. From any thread."""
    with state.lock:
        state.closed = True
        turn = state.turn
        if turn is not None:
            turn.cancelled = True
            if turn.waits_for is not None:
                turn.waits_for.cancel()
            if turn.output is not None:
                turn.output.end(
                    SettingError("the session was closed during the turn", "keep it open until the last chunk")
                )
    state.release()


def give_back(states: StatePool, queue: SessionQueue, held: Held) -> None:
    """Give back what a session holds of its engine."""
    queue.close()
    _once_drained(queue, partial(give_memory_back, states, held))


def give_memory_back(states: StatePool, held: Held) -> None:
    """Give the conversation's memory back, if it has some."""
    if held.conversation is not None:
        states.close(held.conversation)
        held.conversation = None


def _clean_up(state: SessionState, turn: RunningTurn, outcome: str | None) -> None:
    """Close the turn's books."""
    metrics = turn.recorder.metrics
    if turn.run is not None:
        turn.text, turn.run = turn.run.text, None  # and with it go its caches
    if turn.states is not None:
        state.runtime.states.end(turn.states)
    if not metrics.text_tokens:  # it ended before it said anything: as if it had not been
        state.history.exchanges = turn.before
    metrics.finish_reason = outcome or metrics.finish_reason
    state.records.append(TurnRecord(turn.typed, turn.text, metrics.finish_reason))
    state.turns += 1
    state.metrics = metrics
    turn.recorder.finish(state.logged)
    with state.lock:
        state.turn = None
    if state.one_turn:
        close(state)


def _once_drained(queue: SessionQueue, work: Callable[[], object]) -> None:
    """Do it when no step of the session runs any more."""
    try:
        queue.drained()
    except SchedulerError:  # this thread is inside a step: a callback, or garbage collection of a dropped turn
        threading.Thread(target=_once_drained, args=(queue, work)).start()
    else:
        work()
