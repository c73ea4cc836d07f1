"""A conversation: several turns over one KV cache, each answered as a stream of chunks."""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Unpack

from omni2_engine.audio.source import AudioInput
from omni2_engine.errors import SettingError
from omni2_engine.sessions import ending
from omni2_engine.sessions.answer import Answer
from omni2_engine.sessions.beginning import abegin, begin, claim
from omni2_engine.sessions.earlier_turns import EarlierTurn, aadd_turns, add_turns
from omni2_engine.sessions.prepared import Prepared, prepare
from omni2_engine.sessions.question import Frames, PreparedArguments, TurnArguments, question_and_options
from omni2_engine.sessions.runtime import Runtime
from omni2_engine.sessions.state import Held, RunningTurn, SessionState
from omni2_engine.sessions.turn_record import TurnRecord
from omni2_engine.settings import real
from omni2_engine.system import waits
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.metrics import TurnMetrics
from omni2_engine.turn.options import Options, TurnOptions

log = logging.getLogger("omni2_engine.sessions")


class Session:
    """One conversation; made by `Engine.session`, usable as a context manager.

    One turn runs at a time. `cancel`, `interrupt` and `close` may come from any thread, all else from one thread or
    coroutine at a time. The work runs on the engine's schedule, interleaved with that of other sessions: the session
    whose player runs dry first comes first. A session that is dropped without being closed gives its memory back, too.

    Args:
        runtime: what it shares with other sessions.
        options: how it answers.
        one_turn: it closes with its first turn, also where that cannot begin.
        logged: its turns are logged.

    Raises:
        CapacityError: there is no room for another conversation; with admission "wait" the first turn waits for it.
        SettingError: an option makes no sense.
    """

    def __init__(self, runtime: Runtime, options: Options, one_turn: bool = False, logged: bool = True) -> None:
        voice, held = runtime.voices.features(options.voice), Held()
        if options.system is not None:
            runtime.prompts.check_typed(options.system, "system prompt")
        if not runtime.states.waits:
            held.conversation = waits.run(runtime.states.open())
        try:
            queue = runtime.schedule.open(_weakly(self._fail), options.run_ahead)
        except BaseException:
            ending.give_memory_back(runtime.states, held)
            raise
        self._state = SessionState(runtime, options, voice, queue, held, one_turn, logged)
        release = weakref.finalize(self, ending.give_back, runtime.states, queue, held)
        release.atexit = False
        self._state.release = release

    def stream(self, audio: AudioInput | Frames | None = None, **arguments: Unpack[TurnArguments]) -> Answer:
        """Answer one turn. The work starts with this call, which reads the audio and returns.

        Args:
            audio: what was said: a path, a file object, the bytes of an audio file, or an array (n,) or (n, channels).
                Or an iterator of frames, see `LiveConversation.feed`, which is taken from until the person has
                stopped: this call returns then, and what follows is left in it.
            **arguments: as follows, and fields of `Options` for this turn alone, but voice and run_ahead.

        `sample_rate`: of an array or frames, Hz.

        `text`: what was typed, instead of audio.

        `on_text`: called with every piece of text as soon as it is written, ahead of the sound, on a thread of the
        engine's: it should not take long.

        `steer`: called with every id that a model chose (`Stream.TEXT` or `Stream.SPEECH`); the answer goes on with the
        id it returns. For benchmarks, whose answers must all have one length.

        `forced`: ids that the answer goes on with in place of those chosen, by model, as many as there are (teacher
        forcing). A GPU takes them along and decodes by itself, while `steer` has it wait for the host at every token.

        Returns:
            An iterator of chunks; the last one is final and says how the turn ended. Closing or dropping it cancels the
            turn, and the history keeps the text written so far. An error on the way is raised by it.

        Raises:
            AudioError: the audio cannot be used.
            SettingError: an option makes no sense, or a turn is still running.
            ContextError: the turn does not fit the context.
            CapacityError: there is no room for another turn at present; with admission "wait" this call waits for it.
            BusyError: too many turns wait already, or memory did not come by the turn's deadline.
            BackendError: this process is a forked child of the one that loaded the engine.
        """
        asked, options = question_and_options(audio, arguments)
        asked = asked.heard(self._state.runtime)
        turn = claim(self._state, options)
        return begin(self._state, turn, asked, partial(self._end, turn))

    async def astream(
        self, audio: AudioInput | Frames | None = None, **arguments: Unpack[TurnArguments]
    ) -> AsyncGenerator[Chunk]:
        """`stream` for asyncio; no call blocks the event loop. Arguments and errors as there; frames come from an
        asynchronous iterator."""
        asked, options = question_and_options(audio, arguments)
        asked = await asked.aheard(self._state.runtime)
        turn = claim(self._state, options)
        async with aclosing(await abegin(self._state, turn, asked, partial(self._end, turn))) as answer:
            async for chunk in answer:
                yield chunk

    def prepare(self, audio: AudioInput, **arguments: Unpack[PreparedArguments]) -> Prepared:
        """Begin a turn on what was said so far, before it is certain that this is all; returns at once.

        The turn goes as far as its first two chunks and keeps them, and all text, to itself. Then `Prepared.commit`
        asks for it, or `Prepared.take_back` makes it as if it had never been. Its steps run only where no session waits
        whose player needs sound soon. It takes only memory that is left over, and is taken back when a turn that was
        asked for needs that; then it begins when it is committed. It is none of those that `max_waiting` counts.

        Args:
            audio: what was said so far, as of `stream`.
            **arguments: `sample_rate`, `on_text` and `forced` as there; fields of `Options` for this turn alone, but
                voice and run_ahead. A deadline counts from `Prepared.commit`.

        Raises:
            AudioError, ContextError, BackendError: as `stream`.
            SettingError: likewise, or another turn is prepared.
        """
        asked, options = question_and_options(audio, arguments)
        return prepare(self._state, asked, options, self.stream, self._end)

    def add_turns(self, turns: Iterable[EarlierTurn], **options: Unpack[TurnOptions]) -> None:
        """Go on from turns that were had elsewhere, before the first turn or between two.

        The session is then as if it had had them itself, with these texts as its answers: the next turn has the same
        prompt, positions and random numbers. What counts of earlier turns, and what goes when the context is full,
        is decided as ever. When this returns they are encoded and prefilled. That takes the time of their prompts.
        Nothing of an answer but its text enters later turns, so its sound is not needed.

        Args:
            turns: in their order.
            **options: of the turn that follows, if it has any of its own: with another `system` all is prefilled anew.

        Raises:
            AudioError: the audio of a turn cannot be used. None of the turns is added, as after all errors.
            SettingError: a turn is neither spoken nor typed, or the model was taught no typed ones (insist with
                `typed_turns`); a text holds control tokens; a turn is running, or the session was closed or cancelled.
            ContextError: a turn alone does not fit the context with its answer.
            CapacityError: there is no room for the conversation; with admission "wait" this call waits for it.
            BackendError: this process is a forked child of the one that loaded the engine.
        """
        add_turns(self._state, turns, options)

    async def aadd_turns(self, turns: Iterable[EarlierTurn], **options: Unpack[TurnOptions]) -> None:
        """`add_turns` for asyncio; it does not block the event loop. Arguments and errors as there."""
        await aadd_turns(self._state, turns, options)

    @property
    def history(self) -> tuple[TurnRecord, ...]:
        """Every turn that is over, the first one first. The model is given the last ones of them, see `Options`."""
        return tuple(self._state.records)

    @property
    def metrics(self) -> TurnMetrics | None:
        """Of the last turn that was had here and is over; None before the first is."""
        return self._state.metrics

    def cancel(self) -> None:
        """Stop the turn last asked for before its next step; callable from any thread.

        A last, empty chunk with the finish reason "cancelled" follows. The history keeps the text written so far;
        `truncate` cuts it to what was heard.
        """
        ending.cancel(self._state)

    def interrupt(self, heard: float) -> None:
        """The person speaks again: stop the answer, and keep of it what was heard; callable from any thread.

        The turn ends before its next step, as by `cancel`, and the history is cut as by `truncate`. When this returns
        the next turn may be asked for, other than inside a callback or where the turn still waits for memory: then the
        turn ends with the callback, or when its answer is taken. If no turn runs, the last one is cut.

        Args:
            heard: seconds of the turn's sound that were played.

        Raises:
            SettingError: the time makes no sense, a turn is prepared, or the session is closed.
        """
        heard = real("heard", heard, "0 or more seconds")
        if heard < 0:
            raise SettingError(f"heard is {heard}", "use 0 or more seconds")
        ending.interrupt(self._state, heard)

    def truncate(self, played_ms: float) -> None:
        """Forget what of the last answer was not heard, once its turn is over or cancelled.

        The text keeps every round of reading and writing whose speech had begun by then; the next turn goes on from
        there, with the KV cache of what is left. An answer that `add_turns` gave counts as heard, unless nothing was.

        Args:
            played_ms: milliseconds of the turn's sound that were played.

        Raises:
            SettingError: a turn is running, or the time makes no sense.
        """
        self._state.check_idle()
        played_ms = real("played_ms", played_ms, "0 or more milliseconds")
        if played_ms < 0:
            raise SettingError(f"played_ms is {played_ms}", "use 0 or more milliseconds")
        ending.truncate(self._state, played_ms / 1000)

    def close(self) -> None:
        """Give the session's memory back, once a step that runs is done; callable from any thread."""
        ending.close(self._state)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self, turn: RunningTurn, outcome: str | None, wait: bool) -> None:
        """End a turn, see `Answer`, which keeps its session by this method."""
        ending.end(self._state, turn, outcome)
        if wait:
            ending.wait_for_end(self._state, turn)

    def _fail(self, error: BaseException) -> None:
        """A step failed; called by the schedule."""
        log.info("a step of a turn failed: %s", error)
        if (turn := self._state.turn) is not None and turn.output is not None:
            turn.failed = True
            turn.output.end(error)


def _weakly(method: Callable[[BaseException], None]) -> Callable[[BaseException], None]:
    """A bound method that does not keep its object, for a caller that must not keep a session its owner has dropped."""
    reference = weakref.WeakMethod(method)

    def call(error: BaseException) -> None:
        if (present := reference()) is not None:
            present(error)

    return call
