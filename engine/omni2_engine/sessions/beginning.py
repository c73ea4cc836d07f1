"""A turn's beginning: the session becomes this turn's, memory and a place in the schedule are taken in the order of
asking, the question is read and laid out, the first step is submitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import SessionCancelledError
from omni2_engine.errors import SettingError
from omni2_engine.sessions.answer import Answer, late
from omni2_engine.sessions.ending import abandon, close, closed
from omni2_engine.sessions.prompt_room import check_speech_room, lay_out, log_dropped
from omni2_engine.sessions.question import Asked
from omni2_engine.sessions.runtime import Runtime
from omni2_engine.sessions.state import RunningTurn, SessionState
from omni2_engine.system import waits
from omni2_engine.system.process import check_not_forked
from omni2_engine.system.waits import Waits
from omni2_engine.turn.metrics import Recorder
from omni2_engine.turn.options import FIXED, Options
from omni2_engine.turn.output import ChunkQueue
from omni2_engine.turn.run import Hooks, Question, TurnRun, checked_hooks

Floats = NDArray[np.float32]
End = Callable[[str | None, bool], None]  # see `Answer`


def claim(state: SessionState, changes: Mapping[str, Any], prepared: bool = False) -> RunningTurn:
    """Make the session this turn's.

    Args:
        state: of the session.
        changes: options for this turn alone.
        prepared: it is not asked for yet, and waits for nothing.

    Raises:
        SettingError, BusyError, BackendError: see `Session.stream`.
    """
    check_not_forked(state.runtime.process)
    try:
        options = turn_options(state, changes)
        check_speech_room(state.runtime, options)
        with state.lock:
            state.check_idle()
            ticket = None if prepared else state.runtime.waiting.enter()
            state.turn = RunningTurn(Recorder(state.turns), options, state.history.copy(), ticket, prepared)
            return state.turn
    except BaseException:
        if state.one_turn:
            close(state)
        raise


def turn_options(state: SessionState, changes: Mapping[str, Any]) -> Options:
    """The session's options, changed for a turn.

    Raises:
        SettingError: an option does not exist, makes no sense or cannot change within a session.
    """
    fixed = [name for name in FIXED if name in changes]
    if fixed:
        raise SettingError(f"{fixed[0]} cannot change within a session", "give it to engine.session()")
    options = state.options.merged(changes)
    if options.system is not None:
        state.runtime.prompts.check_typed(options.system, "system prompt")
    return options


def begin(state: SessionState, turn: RunningTurn, asked: Asked, end: End) -> Answer:
    """Begin a claimed turn on this thread.

    Args:
        state: of the session.
        turn: from `claim`.
        asked: the question.
        end: of the answer.
    """
    try:
        hooks = checked_hooks(asked.hooks, state.runtime.pipeline)
        reading = waits.here(partial(asked.read, state.runtime, turn))
        return waits.run(
            _begin(state, turn, reading, asked.text, hooks, end), turn.deadline, partial(note_waiting, turn)
        )
    except CancelledError:  # by `cancel`, while it waited for memory
        return _cancelled(state, turn, end)
    except TimeoutError:
        abandon(state, turn)
        raise late(state.runtime) from None
    except SessionCancelledError:  # by `close`, before its first step
        abandon(state, turn)
        raise closed() from None
    except BaseException:
        abandon(state, turn)
        raise


async def abegin(state: SessionState, turn: RunningTurn, asked: Asked, end: End) -> Answer:
    """`begin` for a coroutine."""
    try:
        hooks = checked_hooks(asked.hooks, state.runtime.pipeline)
        reading = waits.on_a_thread_of(state.runtime.helpers, partial(asked.read, state.runtime, turn))
        begun = _begin(state, turn, reading, asked.text, hooks, end)
        return await waits.arun(begun, turn.deadline, partial(note_waiting, turn))
    except CancelledError:
        return _cancelled(state, turn, end)
    except TimeoutError:
        abandon(state, turn)
        raise late(state.runtime) from None
    except SessionCancelledError:
        abandon(state, turn)
        raise closed() from None
    except BaseException:
        abandon(state, turn)
        raise


def _begin(
    state: SessionState, turn: RunningTurn, reading: Waits[Floats | None], text: str | None, hooks: Hooks, end: End
) -> Waits[Answer]:
    """Take memory and a place in the schedule, in the order of asking; read the question; submit the first step."""
    runtime, queue = state.runtime, state.queue
    queue.drained()
    queue.revive()
    if state.held.conversation is None:
        state.held.conversation = yield from runtime.states.open()
    turn.states = yield from runtime.states.begin(state.voice, *sound_of(runtime, turn.options))
    queue.begin()
    waveform = yield from reading
    start(state, turn, waveform, text, hooks)
    return answer_of(state, turn, end)


def sound_of(runtime: Runtime, options: Options) -> tuple[int, float]:
    """Positions of the speech LM that a turn takes at most, and seconds of sound."""
    positions = runtime.pipeline.speech_positions(options.max_new_tokens, options.max_last_write)
    return positions, positions / runtime.pipeline.config.flow_encoder.unit_rate


def start(state: SessionState, turn: RunningTurn, waveform: Floats | None, text: str | None, hooks: Hooks) -> None:
    """Lay out the prompt of a turn that has its memory and its place, and submit the first step.

    Args:
        state: of the session.
        turn: the one that runs.
        waveform: (n,) float32 at 16 kHz; None if typed.
        text: what was typed.
        hooks: see `Asked`.

    Raises:
        ContextError: the turn does not fit.
        SettingError: the session was closed meanwhile.
    """
    runtime, options, history, queue = state.runtime, turn.options, state.history, state.queue
    conversation, states = state.held.conversation, turn.states
    if conversation is None or states is None:
        raise closed()
    metrics = turn.recorder.metrics
    metrics.left_context = states.left_context
    history.exchanges, layout, metrics.dropped_turns = lay_out(runtime, history.exchanges, text, options)
    log_dropped(metrics.dropped_turns, history.exchanges, layout)
    history.rounds = []
    output = ChunkQueue(options.unread, queue.hold, partial(runtime.waiting.leave, turn.ticket, True))
    with state.lock:
        if state.closed:  # `close` has not seen the output, and would not end it
            raise closed()
        turn.waits_for, turn.output = None, output
    turn.run = TurnRun(
        runtime.pipeline,
        runtime.prefixes,
        history,
        conversation.state,
        states,
        Question(layout, waveform, options, *hooks),
        queue,
        output,
        turn.recorder,
        runtime.playout,
        turn.prepared,
    )
    try:
        turn.run.begin()
    except SessionCancelledError:  # `cancel` or `close` came before the first step could be submitted
        output.end()
    with state.lock:
        turn.begun = True


def answer_of(state: SessionState, turn: RunningTurn, end: End) -> Answer:
    """The answer of a turn that was begun."""
    assert turn.output is not None
    return Answer(state.runtime, turn.output, state.queue, end, turn.deadline, lambda: turn.text)


def _cancelled(state: SessionState, turn: RunningTurn, end: End) -> Answer:
    """The answer of a turn that was cancelled before it had memory: empty."""
    output = ChunkQueue(turn.options.unread, state.queue.hold)
    output.end()
    return Answer(state.runtime, output, state.queue, end, None, lambda: "")


def note_waiting(turn: RunningTurn, future: Future[Any]) -> None:
    """Note what a turn waits for, so that `cancel` can end the waiting."""
    turn.waits_for = future
    if turn.cancelled:
        future.cancel()
