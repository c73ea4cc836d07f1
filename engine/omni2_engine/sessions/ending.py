"""A turn's end, and a session's: what a turn leaves is its history and metrics, all else is given back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from omni2_engine._core import SchedulerError
from omni2_engine.errors import SettingError
from omni2_engine.memory.states import StatePool
from omni2_engine.sessions.state import Held, RunningTurn, SessionState
from omni2_engine.sessions.turn_record import TurnRecord
from omni2_engine.system.log_names import carried
from omni2_engine.turn.chunk import CANCELLED
from omni2_engine.turn.queue import SessionQueue

log = logging.getLogger("omni2_engine.sessions")


def cancel(state: SessionState) -> None:
    """Stop the turn that runs before its next step. From any thread."""
    with state.lock:
        turn = state.turn
        if turn is None or turn.prepared:
            return
        turn.cancelled = True
        future, output = turn.waits_for, turn.output
    state.queue.cancel()
    if future is not None:
        future.cancel()
    if output is not None:
        output.discard()


def end(state: SessionState, turn: RunningTurn, outcome: str | None) -> None:
    """End a turn however far it is, and leave nothing of it but its history and metrics. From any thread.

    Args:
        state: of the session.
        turn: the one that runs; a second time does nothing.
        outcome: how it ended if not by itself.
    """
    if not _first(state, turn):
        return
    if turn.output is not None:
        turn.output.discard()
    state.runtime.waiting.leave(turn.ticket, sounded=False)
    state.queue.cancel()  # until the next turn
    _once_drained(state.queue, partial(_to_the_end, turn, partial(_clean_up, state, turn, outcome)))


def wait_for_end(state: SessionState, turn: RunningTurn) -> None:
    """Wait until a turn that is being ended, perhaps by another thread, is over. Inside a step this returns at once:
    the end may be waiting for that."""
    with suppress(SchedulerError):
        state.queue.drained()
        turn.over.wait()


def take_back(state: SessionState, turn: RunningTurn) -> None:
    """End a prepared turn as if it had never been, once a step that runs is done. From any thread.

    Args:
        state: of the session.
        turn: see `end`.
    """
    with state.lock:
        if turn.ended or not turn.prepared:  # it may have been committed between a look at it and this
            return
        turn.ended = True
    state.queue.cancel()  # until the next turn
    _once_drained(state.queue, partial(_to_the_end, turn, partial(_undo, state, turn)))


def abandon(state: SessionState, turn: RunningTurn) -> None:
    """A turn could not begin: as if it had not been asked."""
    with suppress(SchedulerError):  # the session was closed meanwhile, and its place in the schedule with it
        state.queue.finish()
    with state.lock:
        if turn.ended:  # it was taken back meanwhile, which gives everything back
            return
        turn.ended, state.turn = True, None
    state.runtime.waiting.leave(turn.ticket, sounded=False)
    _give_states_back(state, turn)
    if turn.opened or state.closed:
        give_memory_back(state.runtime.states, state.held)
    state.history.exchanges = turn.before.exchanges
    turn.over.set()
    if state.one_turn:
        close(state)


def interrupt(state: SessionState, heard: float) -> None:
    """Stop the turn that runs before its next step, end it, and keep what was heard of it; if none runs, keep what was
    heard of the last one. From any thread.

    Args:
        state: of the session.
        heard: seconds of the turn's sound that were played, 0 or more.

    Raises:
        SettingError: the session is closed, or a turn is prepared.
    """
    with state.lock:
        turn = state.turn
        if turn is None or turn.prepared:
            truncate(state, heard)
            return
        turn.heard, begun = heard, turn.begun
    cancel(state)
    if begun:  # else its beginning notices, and ends it
        end(state, turn, CANCELLED)
        wait_for_end(state, turn)


def truncate(state: SessionState, heard: float) -> None:
    """Forget what of the last answer was not heard, see `Session.truncate`.

    Args:
        state: of the session.
        heard: seconds of the turn's sound that were played, 0 or more.

    Raises:
        SettingError: a turn runs or is prepared, or the session is closed.
    """
    with state.lock:
        state.check_idle()
        _keep_heard(state, heard)


def close(state: SessionState) -> None:
    """Give the session's memory back, once a step that runs is done. From any thread."""
    with state.lock:
        state.closed = True
        turn = state.turn
        if turn is not None and not turn.prepared:
            turn.cancelled = True
            if turn.waits_for is not None:
                turn.waits_for.cancel()
            if turn.output is not None:
                turn.output.end(closed())
    if turn is not None and turn.prepared:
        take_back(state, turn)
    state.release()


def closed() -> SettingError:
    """For a turn whose session was closed."""
    return SettingError("the session was closed during the turn", "keep it open until the last chunk")


def give_back(states: StatePool, queue: SessionQueue, held: Held) -> None:
    """Give back what a session holds of its engine."""
    queue.close()
    _once_drained(queue, partial(give_memory_back, states, held))


def give_memory_back(states: StatePool, held: Held) -> None:
    """Give the conversation's memory back, if it has some."""
    with held.lock:
        if held.conversation is not None:
            states.close(held.conversation)
            held.conversation = None


def _first(state: SessionState, turn: RunningTurn) -> bool:
    """Whether nothing ended the turn before."""
    with state.lock:
        first, turn.ended = not turn.ended, True
    return first


def _to_the_end(turn: RunningTurn, work: Callable[[], object]) -> None:
    """Do the last work of a turn, and tell those who wait for its end."""
    try:
        work()
    finally:
        turn.over.set()


def _clean_up(state: SessionState, turn: RunningTurn, outcome: str | None) -> None:
    """Close the turn's books."""
    metrics = turn.recorder.metrics
    if turn.run is not None:
        turn.text, turn.run = turn.run.text, None
    _give_states_back(state, turn)
    if not metrics.text_tokens:  # it ended before it said anything: as if it had not been
        state.history.drop_last(turn.before)
    metrics.finish_reason = outcome or metrics.finish_reason
    state.records.append(TurnRecord(turn.typed, turn.text, metrics.finish_reason))
    state.turns += 1
    state.metrics, state.answered = metrics, bool(metrics.text_tokens)
    turn.recorder.finish(state.logged)
    if metrics.finish_reason == CANCELLED:
        log.info(
            "turn %d cancelled after %.0f ms and %d chunks", metrics.turn, 1000 * metrics.total_seconds, metrics.chunks
        )
    if metrics.speculated_seconds:
        state.runtime.prepared_turns.count(saved=metrics.speculated_seconds)
    with state.lock:
        state.turn = None
        if turn.heard is not None:
            _keep_heard(state, turn.heard)
    if state.one_turn:
        close(state)


def _give_states_back(state: SessionState, turn: RunningTurn) -> bool:
    """Give back what the turn had for itself, if it had anything. The turn forgets it: its answer may be kept by the
    user, or by the traceback of an error, which garbage collection finds late."""
    states, turn.states = turn.states, None
    if states is not None:
        state.runtime.states.end(states)
    return states is not None


def _undo(state: SessionState, turn: RunningTurn) -> None:
    """Make a prepared turn as if it had never been."""
    runtime, held = state.runtime, state.held
    run, turn.run = turn.run, None
    with held.lock:
        if held.conversation is not None:
            overwritten = None if run is None else run.overwritten
            state.history.restore(turn.before, held.conversation.state, overwritten)
    if _give_states_back(state, turn):
        runtime.prepared_turns.count(taken_back=1, wasted=turn.recorder.metrics.busy)
    if turn.opened:
        give_memory_back(runtime.states, held)
    with state.lock:
        state.turn = None


def _keep_heard(state: SessionState, seconds: float) -> None:
    """Forget what of the last answer was not heard; the lock is held."""
    if not state.answered:
        return  # the last turn left nothing, and what the one before it said was heard
    pipeline, history = state.runtime.pipeline, state.history
    units = seconds * pipeline.config.flow_encoder.unit_rate
    heard = [tokens for before, tokens in history.rounds if before < units]
    for exchange in history.exchanges[-1:]:
        kept = heard[-1] if heard else 0
        if kept < len(exchange.reply):
            del exchange.reply[kept:]
            answer = pipeline.tokenizer.decode(exchange.reply)
            state.records[-1] = replace(state.records[-1], answer=answer, truncated=True)


def _once_drained(queue: SessionQueue, work: Callable[[], object]) -> None:
    """Do it when no step of the session runs any more."""
    try:
        queue.drained()
    except SchedulerError:  # this thread is inside a step: a callback, or garbage collection of a dropped turn
        threading.Thread(target=carried(_once_drained), args=(queue, work)).start()
    else:
        work()
