"""Earlier turns that are given to a session: they were had elsewhere, and the conversation goes on here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import SchedulerError, SessionCancelledError
from omni2_engine.audio.source import AudioInput
from omni2_engine.errors import ContextError, SettingError
from omni2_engine.sessions.beginning import note_waiting, turn_options
from omni2_engine.sessions.ending import abandon
from omni2_engine.sessions.prompt_room import lay_out, log_dropped, wanted
from omni2_engine.sessions.question import Asked
from omni2_engine.sessions.runtime import Runtime
from omni2_engine.sessions.state import RunningTurn, SessionState
from omni2_engine.sessions.turn_record import GIVEN, TurnRecord
from omni2_engine.settings import shown
from omni2_engine.system import waits
from omni2_engine.system.process import check_not_forked
from omni2_engine.system.waits import Waits
from omni2_engine.turn.history_run import FedTurn, HistoryRun
from omni2_engine.turn.metrics import Recorder
from omni2_engine.turn.options import Options
from omni2_engine.turn.prompt import Exchange, Layout

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class EarlierTurn:
    """A turn that was had elsewhere: in a session that was closed, in another process, with another model.

    Args:
        answer: what was answered; of an answer that was interrupted what was heard. It may be empty.
        audio: what was said, as of `Session.stream`; None if it was typed.
        text: what was typed; None if it was spoken.
        sample_rate: of an array, Hz.
    """

    answer: str
    audio: AudioInput | None = None
    text: str | None = None
    sample_rate: int | None = None


@dataclass(frozen=True)
class ReadTurn:
    """An earlier turn as the model takes it.

    Args:
        turn: as given.
        waveform: (n,) float32 at 16 kHz, in the encoder's window; None if typed.
        reply: ids of the answer's text.
    """

    turn: EarlierTurn
    waveform: Floats | None
    reply: list[int]


@dataclass(frozen=True)
class LaidOut:
    """Earlier turns in the conversation.

    Args:
        exchanges: all that are kept, as far as there is room for them, with those before.
        fed: the new ones among them. They are only encoded where the next prompt will not begin with all of
            `exchanges`, as the KV cache has no use for them then.
        records: of all that were given.
    """

    exchanges: list[Exchange]
    fed: list[FedTurn]
    records: list[TurnRecord]


def add_turns(state: SessionState, turns: Iterable[EarlierTurn], changes: Mapping[str, Any]) -> None:
    """Give a session earlier turns, on this thread; see `Session.add_turns`.

    Args:
        state: of the session.
        turns: in their order.
        changes: options of the turn that follows.
    """
    busy = _claim(state, changes)
    try:
        reading = waits.here(partial(_read, state, busy, list(turns)))
        waits.run(_add(state, busy, reading), on_wait=partial(note_waiting, busy))
    except (CancelledError, SessionCancelledError):
        _give_up(state, busy)
        raise _stopped() from None
    except BaseException:
        _give_up(state, busy)
        raise


async def aadd_turns(state: SessionState, turns: Iterable[EarlierTurn], changes: Mapping[str, Any]) -> None:
    """`add_turns` for a coroutine."""
    busy = _claim(state, changes)
    try:
        reading = waits.on_a_thread_of(state.runtime.helpers, partial(_read, state, busy, list(turns)))
        await waits.arun(_add(state, busy, reading), on_wait=partial(note_waiting, busy))
    except (CancelledError, SessionCancelledError):
        await _agive_up(state, busy)
        raise _stopped() from None
    except BaseException:
        await _agive_up(state, busy)
        raise


def _claim(state: SessionState, changes: Mapping[str, Any]) -> RunningTurn:
    """Keep turns from beginning meanwhile."""
    check_not_forked(state.runtime.process)
    options = turn_options(state, changes)
    with state.lock:
        state.check_idle()
        state.turn = RunningTurn(Recorder(state.turns), options, state.history.copy())
        return state.turn


def _read(state: SessionState, busy: RunningTurn, turns: list[EarlierTurn]) -> LaidOut:
    """Read what was said and answered, and see what is kept of it."""
    read = [_read_turn(state.runtime, busy, turn) for turn in turns]
    return _lay_out(state.runtime, state.history.exchanges, read, busy.options)


def _read_turn(runtime: Runtime, busy: RunningTurn, turn: EarlierTurn) -> ReadTurn:
    if not isinstance(turn, EarlierTurn):
        raise SettingError(f"an earlier turn is {shown(turn)}", "give EarlierTurn objects")
    if not isinstance(turn.answer, str):
        raise SettingError(f"the answer of an earlier turn is {shown(turn.answer)}", "give its text")
    runtime.prompts.check_typed(turn.answer, "answer of an earlier turn")
    waveform = Asked(turn.audio, turn.sample_rate, turn.text).read(runtime, busy)
    return ReadTurn(turn, waveform, runtime.pipeline.tokenizer.encode(turn.answer))


def _add(state: SessionState, busy: RunningTurn, reading: Waits[LaidOut]) -> Waits[None]:
    """Take memory and a place in the schedule, in the order of asking; read the turns; feed them."""
    runtime, queue, history, options = state.runtime, state.queue, state.history, busy.options
    queue.drained()
    queue.revive()
    if state.held.conversation is None:
        state.held.conversation = yield from runtime.states.open()
    queue.begin()
    added = yield from reading
    if added.fed:
        conversation = state.held.conversation
        if conversation is None:  # the session was closed meanwhile
            raise _stopped()
        run = HistoryRun(
            runtime.pipeline, runtime.prefixes, history, conversation.state, options.system, added.fed, queue
        )
        run.begin()
        while queue.run_step():
            pass
        yield run.done
    with suppress(SchedulerError):  # likewise
        queue.finish()
    with state.lock:
        if added.records:
            history.exchanges, history.rounds = added.exchanges, [(0, len(added.exchanges[-1].reply))]
            state.records += added.records
            state.turns += len(added.records)
            state.answered = True
        state.turn = None
    busy.over.set()


def _lay_out(runtime: Runtime, earlier: list[Exchange], read: list[ReadTurn], options: Options) -> LaidOut:
    """What a session that had had these turns would be left with.

    Args:
        runtime: of the session.
        earlier: the turns before.
        read: the turns that follow them.
        options: of the session.

    Raises:
        ContextError: a turn alone does not fit.
    """
    exchanges, dropped = list(earlier), 0
    new: list[tuple[Exchange, ReadTurn, Layout]] = []
    for each in read:
        exchanges, layout, more = lay_out(runtime, exchanges, each.turn.text, options)
        dropped += more
        positions = len(layout.items) + len(each.reply)
        if positions > runtime.max_context:
            raise ContextError(
                f"an earlier turn takes {positions} positions with its answer, and the context has "
                f"{runtime.max_context}",
                "give a shorter answer, or load the engine with a larger max_context",
            )
        exchanges[-1].reply = each.reply
        new.append((exchanges[-1], each, layout))
    if new:
        log_dropped(dropped, exchanges, layout)
    whole = len(exchanges) == len(earlier) + len(new)
    new = new[max(0, len(new) - len(exchanges)) :]
    held = len(wanted(runtime, exchanges, options)) == len(exchanges)
    fed = []
    for number, (exchange, each, layout) in enumerate(new, len(exchanges) - len(new) + 1):
        if held:
            if not whole:  # it was laid out with turns that have gone since
                layout = runtime.prompts.lay_out(exchanges[:number], options.system)
            fed.append(FedTurn(exchange, each.waveform, replace(layout, items=layout.items + exchange.reply)))
        elif each.waveform is not None:
            fed.append(FedTurn(exchange, each.waveform, None))
    return LaidOut(exchanges, fed, [TurnRecord(each.turn.text, each.turn.answer, GIVEN) for each in read])


def _give_up(state: SessionState, busy: RunningTurn) -> None:
    """Be as before."""
    with suppress(SchedulerError):  # the session was closed, and its place in the schedule with it
        state.queue.cancel()
        state.queue.drained()
    fed = state.history.fed  # the next turn's speech gets the items of the first of these, see `History.drop_last`
    state.history.fed = fed[: Layout(fed, []).common_prefix(busy.before.fed)]
    abandon(state, busy)


async def _agive_up(state: SessionState, busy: RunningTurn) -> None:
    """`_give_up` for a coroutine: a step that runs is waited for on another thread."""
    loop = asyncio.get_running_loop()
    await asyncio.shield(loop.run_in_executor(state.runtime.helpers, _give_up, state, busy))


def _stopped() -> SettingError:
    """For turns that were being added when their session was closed or cancelled."""
    return SettingError("the session was stopped while earlier turns were added", "keep it open until they are")
