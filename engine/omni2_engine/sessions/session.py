"""A conversation: several turns over one KV cache, each answered as a stream of chunks."""

from __future__ import annotations

import asyncio
import threading
import weakref
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import CancelledError, Executor, Future
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import SchedulerError, SessionCancelledError
from omni2_engine.audio.source import AudioInput, read_audio
from omni2_engine.errors import ContextError, SettingError
from omni2_engine.memory.states import Conversation, StatePool, TurnStates
from omni2_engine.sessions.answer import Answer, late
from omni2_engine.sessions.runtime import Runtime
from omni2_engine.sessions.turn_record import TurnRecord
from omni2_engine.settings import real
from omni2_engine.system import waits
from omni2_engine.system.process import check_not_forked
from omni2_engine.system.waits import Waits
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.history import History
from omni2_engine.turn.metrics import Recorder, TurnMetrics
from omni2_engine.turn.options import FIXED, Options, TurnOptions
from omni2_engine.turn.output import ChunkQueue
from omni2_engine.turn.prompt import Exchange, Layout
from omni2_engine.turn.queue import SessionQueue
from omni2_engine.turn.run import Forced, Hooks, OnText, Question, Steer, TurnRun, checked_hooks

Floats = NDArray[np.float32]
T = TypeVar("T")
KEPT_WHEN_FULL = 0.5  # share of a full context that stays: dropping one turn at a time would prefill the rest each time


@dataclass
class _Held:
    """What a session holds of its engine's memory."""

    conversation: Conversation | None = None


@dataclass(eq=False)
class _Turn:
    """The turn that runs.

    Attributes:
        recorder: of its metrics.
        options: of the session, changed for this turn.
        ticket: of `WaitingTurns`.
        before: the exchanges of the conversation without it.
        asked: when, by `time.monotonic`.
        typed: its question, if that was typed.
        run, output, states: None until it has memory.
        text: of the answer, once it has ended.
        waits_for: memory, while it does.
        cancelled: by the user; `ended`: cleaning up has begun.
    """

    recorder: Recorder
    options: Options
    ticket: int
    before: list[Exchange]
    asked: float = field(default_factory=monotonic)
    typed: str | None = None
    run: TurnRun | None = None
    text: str = ""
    output: ChunkQueue | None = None
    states: TurnStates | None = None
    waits_for: Future[Any] | None = None
    cancelled: bool = False
    ended: bool = False

    @property
    def deadline(self) -> float | None:
        """The moment of `time.monotonic` by which it must make its first sound."""
        seconds = self.options.deadline
        return None if seconds is None else self.asked + seconds


class Session:
    """One conversation; made by `Engine.session`, usable as a context manager.

    One turn runs at a time. `cancel` and `close` may come from any thread, all else from one thread or coroutine at a
    time. The work runs on the engine's schedule, interleaved with that of other sessions: the session whose player
    runs dry first comes first. A session that is dropped without being closed gives its memory back, too.

    Args:
        runtime: what it shares with other sessions.
        options: how it answers.
        one_turn: it closes with its first turn, also where that cannot begin.
        logged: its turns are logged.

    Attributes:
        metrics: of the last turn, or None before the first.

    Raises:
        CapacityError: there is no room for another conversation; with admission "wait" the first turn waits for it.
        SettingError: an option makes no sense.
    """

    def __init__(self, runtime: Runtime, options: Options, one_turn: bool = False, logged: bool = True) -> None:
        self._runtime = runtime
        self._options = options
        self._one_turn = one_turn
        self._logged = logged
        self._voice = runtime.voices.features(options.voice)
        if options.system is not None:
            runtime.prompts.check_typed(options.system, "system prompt")
        self._history = History()
        self._records: list[TurnRecord] = []
        self._turns = 0
        self._turn: _Turn | None = None
        self._closed = False
        self._lock = threading.RLock()  # guards the two above; garbage collection may end a turn in here
        self.metrics: TurnMetrics | None = None
        self._held = _Held()
        if not runtime.states.waits:
            self._held.conversation = waits.run(runtime.states.open())
        try:
            self._queue: SessionQueue = runtime.schedule.open(_weakly(self._fail), options.run_ahead)
        except BaseException:
            _give_memory_back(runtime.states, self._held)
            raise
        self._release = weakref.finalize(self, _give_back, runtime.states, self._queue, self._held)
        self._release.atexit = False

    def stream(
        self,
        audio: AudioInput | None = None,
        *,
        sample_rate: int | None = None,
        text: str | None = None,
        on_text: OnText | None = None,
        steer: Steer | None = None,
        forced: Forced | None = None,
        **options: Unpack[TurnOptions],
    ) -> Answer:
        """Answer one turn. The work starts with this call, which reads the audio and returns.

        Args:
            audio: what was said: a path, a file object, the bytes of an audio file, or an array (n,) or (n, channels).
            sample_rate: of an array, Hz.
            text: what was typed, instead of audio.
            on_text: called with every piece of text as soon as it is written, ahead of the sound, on a thread of the
                engine's: it should not take long.
            steer: called with every id that a model chose (`Stream.TEXT` or `Stream.SPEECH`); the answer goes on with
                the id it returns. For benchmarks, whose answers must have one length whatever the model says.
            forced: ids that the answer goes on with in place of those chosen, by model, as many as there are (teacher
                forcing). A GPU takes them along and decodes by itself, while `steer` has it wait for the host at every
                token.
            **options: fields of `Options` for this turn alone, but voice, system and run_ahead.

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
        turn = self._claim(options)
        return self._answer(turn, audio, sample_rate, text, (on_text, steer, forced))

    async def astream(
        self,
        audio: AudioInput | None = None,
        *,
        sample_rate: int | None = None,
        text: str | None = None,
        on_text: OnText | None = None,
        steer: Steer | None = None,
        forced: Forced | None = None,
        **options: Unpack[TurnOptions],
    ) -> AsyncGenerator[Chunk]:
        """`stream` for asyncio; no call blocks the event loop. Arguments and errors as there."""
        turn = self._claim(options)
        async with aclosing(self._aanswer(turn, audio, sample_rate, text, (on_text, steer, forced))) as chunks:
            async for chunk in chunks:
                yield chunk

    @property
    def history(self) -> tuple[TurnRecord, ...]:
        """Every turn that is over, the first one first. The model is given the last ones of them, see `Options`."""
        return tuple(self._records)

    def cancel(self) -> None:
        """Stop the turn last asked for before its next step; callable from any thread.

        A last, empty chunk with the finish reason "cancelled" follows. The history keeps the text written so far;
        `truncate` cuts it to what was heard.
        """
        with self._lock:
            turn = self._turn
            if turn is None:
                return
            turn.cancelled = True
            future, output = turn.waits_for, turn.output
        self._queue.cancel()
        if future is not None:
            future.cancel()
        if output is not None:
            output.discard()

    def truncate(self, played_ms: float) -> None:
        """Forget what of the last answer was not heard, once its turn is over or cancelled.

        The text keeps every round of reading and writing whose speech had begun by then; the next turn goes on from
        there, with the KV cache of what is left.

        Args:
            played_ms: milliseconds of the turn's sound that were played.

        Raises:
            SettingError: a turn is running, or the time makes no sense.
        """
        self._check_idle()
        played_ms = real("played_ms", played_ms, "0 or more milliseconds")
        if played_ms < 0:
            raise SettingError(f"played_ms is {played_ms}", "use 0 or more milliseconds")
        if self.metrics is None or not self.metrics.text_tokens:
            return  # the last turn left nothing, and what the one before it said was heard
        units = played_ms / 1000 * self._runtime.pipeline.config.flow_encoder.unit_rate
        heard = [tokens for before, tokens in self._history.rounds if before < units]
        for exchange in self._history.exchanges[-1:]:
            kept = heard[-1] if heard else 0
            if kept < len(exchange.reply):
                del exchange.reply[kept:]
                answer = self._runtime.pipeline.tokenizer.decode(exchange.reply)
                self._records[-1] = replace(self._records[-1], answer=answer, truncated=True)

    def close(self) -> None:
        """Give the session's memory back, once a step that runs is done; callable from any thread."""
        with self._lock:
            self._closed = True
            turn = self._turn
            if turn is not None:
                turn.cancelled = True
                if turn.waits_for is not None:
                    turn.waits_for.cancel()
                if turn.output is not None:
                    turn.output.end(
                        SettingError("the session was closed during the turn", "keep it open until the last chunk")
                    )
        self._release()  # which does it the first time it is called

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fail(self, error: BaseException) -> None:
        """A step failed; told by the schedule."""
        if (turn := self._turn) is not None and turn.output is not None:
            turn.output.end(error)

    # -- a turn's beginning ----------------------------------------------------------------------------------------

    def _claim(self, changes: TurnOptions) -> _Turn:
        """Make the session this turn's."""
        check_not_forked(self._runtime.process)
        try:
            fixed = [name for name in FIXED if name in changes]
            if fixed:
                raise SettingError(f"{fixed[0]} cannot change within a session", "give it to engine.session()")
            options = self._options.merged(changes)
            self._check_room(options)
            with self._lock:
                self._check_idle()
                ticket = self._runtime.waiting.enter()
                self._turn = _Turn(Recorder(self._turns), options, ticket, self._history.exchanges)
                return self._turn
        except BaseException:
            if self._one_turn:
                self.close()
            raise

    def _check_idle(self) -> None:
        if self._closed:
            raise SettingError("the session is closed", "open another with engine.session()")
        if self._turn is not None:
            raise SettingError("another turn of this session is running", "finish or close it before the next")

    def _check_room(self, options: Options) -> None:
        """Refuse a turn whose speech might outgrow the speech LM's positions; the text's room is `_lay_out`'s."""
        pipeline, most = self._runtime.pipeline, self._runtime.max_speech
        if pipeline.speech_positions(options.max_new_tokens, options.max_last_write) > most:
            raise SettingError(
                f"{options.max_new_tokens} text tokens and a last write of {options.max_last_write} may take more than "
                f"the {most} positions of the speech model",
                "lower max_new_tokens or max_last_write",
            )

    def _answer(
        self,
        turn: _Turn,
        audio: AudioInput | None,
        sample_rate: int | None,
        text: str | None,
        hooks: Hooks,
    ) -> Answer:
        """Begin a claimed turn."""
        try:
            hooks = checked_hooks(hooks, self._runtime.pipeline)
            reading = _now(partial(self._read, turn, audio, sample_rate, text))
            return waits.run(self._begin(turn, reading, text, hooks), turn.deadline, partial(_waits, turn))
        except CancelledError:  # by `cancel`, while it waited for memory
            return self._cancelled(turn)
        except TimeoutError:
            self._abandon(turn)
            raise late(self._runtime) from None
        except BaseException:
            self._abandon(turn)
            raise

    async def _aanswer(
        self,
        turn: _Turn,
        audio: AudioInput | None,
        sample_rate: int | None,
        text: str | None,
        hooks: Hooks,
    ) -> AsyncGenerator[Chunk]:
        """`_answer` for a coroutine, to its end."""
        try:
            hooks = checked_hooks(hooks, self._runtime.pipeline)
            reading = _elsewhere(self._runtime.helpers, partial(self._read, turn, audio, sample_rate, text))
            begun = self._begin(turn, reading, text, hooks)
            answer = await waits.arun(begun, turn.deadline, partial(_waits, turn))
        except TimeoutError:
            self._abandon(turn)
            raise late(self._runtime) from None
        except asyncio.CancelledError:
            if not turn.cancelled:  # the task was cancelled, not the turn
                self._abandon(turn)
                raise
            answer = self._cancelled(turn)
        except BaseException:
            self._abandon(turn)
            raise
        try:
            async for chunk in answer:
                yield chunk
        finally:
            await answer.aclose()

    def _read(self, turn: _Turn, audio: AudioInput | None, sample_rate: int | None, text: str | None) -> Floats | None:
        """The waveform of a spoken turn, (n,) float32 at 16 kHz; None for a typed one."""
        if (audio is None) == (text is None):
            raise SettingError("a turn is either spoken or typed", "give audio or text, and not both")
        if text is not None:
            if not isinstance(text, str):
                raise SettingError(f"a typed turn is a {type(text).__name__}", "give a str")
            turn.options.check_typed(self._runtime.pipeline.config)
            self._runtime.prompts.check_typed(text, "typed turn")
            turn.typed = text
            return None
        assert audio is not None
        with turn.recorder.span("frontend"):
            window = self._runtime.pipeline.config.encoder.samples / 16_000
            return read_audio(audio, sample_rate, window, turn.options.long)

    def _begin(
        self,
        turn: _Turn,
        reading: Waits[Floats | None],
        text: str | None,
        hooks: Hooks,
    ) -> Waits[Answer]:
        """Take memory and a place in the schedule, in the order of asking; read the question; submit the first step."""
        runtime, options, history = self._runtime, turn.options, self._history
        self._queue.drained()
        self._queue.revive()
        if self._held.conversation is None:
            self._held.conversation = yield from runtime.states.open()
        positions = runtime.pipeline.speech_positions(options.max_new_tokens, options.max_last_write)
        seconds = positions / runtime.pipeline.config.flow_encoder.unit_rate
        turn.states = yield from runtime.states.begin(self._voice, positions, seconds)
        turn.recorder.metrics.left_context = turn.states.left_context
        self._queue.begin()
        waveform = yield from reading
        exchanges, layout = self._lay_out([*self._earlier(options), self._exchange(text)], options, turn.recorder)
        history.exchanges, history.rounds = exchanges, []
        on_first = partial(runtime.waiting.leave, turn.ticket, True)
        output = ChunkQueue(options.unread, self._queue.hold, on_first)
        with self._lock:
            turn.waits_for, turn.output = None, output
        run = TurnRun(
            runtime.pipeline,
            runtime.prefixes,
            history,
            self._held.conversation.state,
            turn.states,
            Question(layout, waveform, options, *hooks),
            self._queue,
            output,
            turn.recorder,
            runtime.playout,
        )
        turn.run = run
        answer = Answer(runtime, output, self._queue, partial(self._end, turn), turn.deadline, lambda: turn.text)
        try:
            run.begin()
        except SessionCancelledError:  # `cancel` or `close` came before the first step could be submitted
            output.end()
        return answer

    def _earlier(self, options: Options) -> list[Exchange]:
        """The earlier turns that the model should be given."""
        exchanges = self._history.exchanges
        wanted = options.over(self._runtime.pipeline.config.capabilities).history_turns
        return exchanges if wanted is None else exchanges[max(0, len(exchanges) - wanted) :]

    def _exchange(self, text: str | None) -> Exchange:
        """This turn in the conversation; its speech is encoded by the turn's first step."""
        last = self._history.exchanges[-1:]
        first_item = sum(exchange.first_item + exchange.positions for exchange in last)
        if text is not None:
            return Exchange(first_item, text=text)
        return Exchange(first_item, positions=self._runtime.pipeline.config.encoder.positions)

    def _lay_out(
        self, exchanges: list[Exchange], options: Options, recorder: Recorder
    ) -> tuple[list[Exchange], Layout]:
        """The prompt with the earlier turns that fit, and those turns.

        Where not all fit, the oldest go until a part of the context is free again, so that many turns follow before
        the next must go: what is left has to be prefilled anew each time. The turn before is kept if it fits.
        """
        runtime, tokens = self._runtime, self._runtime.pipeline.config.tokens
        room = min(runtime.max_context - options.max_new_tokens, tokens.context_limit or runtime.max_context)

        def without(oldest: int) -> Layout:
            return runtime.prompts.lay_out(exchanges[oldest:], options.system)

        layout, dropped = without(0), 0
        if len(layout.items) > room:
            last = len(exchanges) - 1  # only this turn stays
            dropped = bisect_left(range(last), True, key=lambda n: len(without(n).items) <= KEPT_WHEN_FULL * room)
            if dropped == last > 1 and len(without(last - 1).items) <= room:
                dropped = last - 1
            layout = without(dropped)
            recorder.metrics.dropped_turns += dropped
        if len(layout.items) > room:
            raise _too_long(len(layout.items), options.max_new_tokens, runtime.max_context, tokens.context_limit)
        return exchanges[dropped:], layout

    # -- a turn's end ----------------------------------------------------------------------------------------------

    def _abandon(self, turn: _Turn) -> None:
        """A turn that could not begin: as if it had not been asked."""
        self._queue.finish()
        with self._lock:
            turn.ended, self._turn = True, None
        self._runtime.waiting.leave(turn.ticket, sounded=False)
        if turn.states is not None:
            self._runtime.states.end(turn.states)
        self._history.exchanges = turn.before
        if self._one_turn:
            self.close()

    def _cancelled(self, turn: _Turn) -> Answer:
        """The answer of a turn that was cancelled before it had memory: empty."""
        output = ChunkQueue(turn.options.unread, self._queue.hold)
        output.end()
        return Answer(self._runtime, output, self._queue, partial(self._end, turn), None, lambda: "")

    def _end(self, turn: _Turn, outcome: str | None) -> None:
        """End a turn however far it is, and leave nothing of it but its history and metrics. `outcome` is how it ended
        if not by itself."""
        with self._lock:
            if turn.ended:
                return
            turn.ended = True
        if turn.output is not None:
            turn.output.discard()
        self._runtime.waiting.leave(turn.ticket, sounded=False)
        self._queue.cancel()  # until the next turn
        _once_drained(self._queue, partial(self._clean_up, turn, outcome))

    def _clean_up(self, turn: _Turn, outcome: str | None) -> None:
        """Close the turn's books."""
        metrics = turn.recorder.metrics
        if turn.run is not None:
            turn.text, turn.run = turn.run.text, None  # and with it go its caches
        if turn.states is not None:
            self._runtime.states.end(turn.states)
        if not metrics.text_tokens:  # it ended before it said anything: as if it had not been
            self._history.exchanges = turn.before
        metrics.finish_reason = outcome or metrics.finish_reason
        self._records.append(TurnRecord(turn.typed, turn.text, metrics.finish_reason))
        self._turns += 1
        self.metrics = metrics
        turn.recorder.finish(self._logged)
        with self._lock:
            self._turn = None
        if self._one_turn:
            self.close()


def _waits(turn: _Turn, future: Future[Any]) -> None:
    """Note what a turn waits for, so that `cancel` can end the waiting."""
    turn.waits_for = future
    if turn.cancelled:
        future.cancel()


def _now(work: Callable[[], T]) -> Waits[T]:
    """Done on the thread that begins the turn."""
    return work()
    yield  # which makes it a generator


def _elsewhere(helpers: Executor, work: Callable[[], T]) -> Waits[T]:
    """Done on a helper's thread, while a coroutine waits."""
    done: T = yield helpers.submit(work)
    return done


def _give_back(states: StatePool, queue: SessionQueue, held: _Held) -> None:
    """What a session holds of its engine."""
    queue.close()
    _once_drained(queue, partial(_give_memory_back, states, held))


def _once_drained(queue: SessionQueue, work: Callable[[], object]) -> None:
    """Do it when no step of the session runs any more."""
    try:
        queue.drained()
    except SchedulerError:  # this thread is inside a step: a callback, or garbage collection of a dropped turn
        threading.Thread(target=_once_drained, args=(queue, work)).start()
    else:
        work()


def _give_memory_back(states: StatePool, held: _Held) -> None:
    if held.conversation is not None:
        states.close(held.conversation)
        held.conversation = None


def _weakly(method: Callable[[BaseException], None]) -> Callable[[BaseException], None]:
    """A bound method that does not keep its object, for a caller that must not keep a session its owner has dropped."""
    reference = weakref.WeakMethod(method)

    def call(error: BaseException) -> None:
        if (present := reference()) is not None:
            present(error)

    return call


def _too_long(prompt: int, answer: int, context: int, checkpoint_limit: int | None) -> ContextError:
    """The error for a single turn that does not fit."""
    if checkpoint_limit is not None and prompt > checkpoint_limit:
        return ContextError(
            f"this turn takes {prompt} positions and the checkpoint allows {checkpoint_limit} in a prompt",
            "say it in fewer words, or shorten the system prompt",
        )
    return ContextError(
        f"this turn takes {prompt} positions and {answer} for the answer; the context has {context}",
        "load the engine with a larger max_context, or lower max_new_tokens",
    )
