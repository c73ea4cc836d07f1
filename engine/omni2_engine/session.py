"""A conversation: several turns over one KV cache, each answered as a stream of chunks."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from omni2_engine._core import SchedulerError, SessionCancelledError
from omni2_engine.audio.source import AudioInput
from omni2_engine.chunk import Chunk
from omni2_engine.conversation import Exchange, Layout
from omni2_engine.errors import ContextError, SettingError
from omni2_engine.metrics import Recorder, TurnMetrics
from omni2_engine.options import Options
from omni2_engine.scheduling.output import ChunkQueue
from omni2_engine.scheduling.turn_policy import TurnPolicy
from omni2_engine.scheduling.workers import submitter
from omni2_engine.states import Conversation
from omni2_engine.turn import Forced, History, OnText, Steer, Turn

if TYPE_CHECKING:
    from omni2_engine.engine import Engine

END = object()


class Session:
    """One conversation; made by `Engine.session`, usable as a context manager, by one thread at a time.

    Its work runs on the engine's scheduler, interleaved with that of other sessions: whose player runs dry first comes
    first. One that is dropped without being closed gives its memory back, too.

    Args:
        engine: the loaded engine.
        options: how it answers.

    Attributes:
        metrics: of the last turn, or None before the first.

    Raises:
        CapacityError: there is no room for another conversation.
    """

    def __init__(self, engine: Engine, options: Options) -> None:
        self._engine = engine
        self._options = options
        self._speaker = engine.speaker(options.voice)
        if options.system is not None:
            engine.prompts.check_typed(options.system, "system prompt")
        self._history = History([], [], [])
        self._output: ChunkQueue | None = None  # of the turn that runs
        self._turns = 0
        self._running = False
        self._cancelled = False
        self.metrics: TurnMetrics | None = None
        self._conversation: Conversation | None = engine.states.open()
        with engine.states.closed_on_error(self._conversation):
            self._id = engine.scheduler.open(_weakly(self._fail), options.run_ahead)
        self._release = weakref.finalize(self, _give_back, engine, self._id, self._conversation)
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
        **options: Any,
    ) -> Iterator[Chunk]:
        """Answer one turn.

        Args:
            audio: what was said: a path, a file object, the bytes of an audio file, or an array (n,) or (n, channels).
            sample_rate: of an array, Hz.
            text: what was typed, instead of audio.
            on_text: called with every piece of text as soon as it is written, ahead of the sound, on a thread of the
                engine's: it should not take long.
            steer: called with every id that a model chose (`Stream.TEXT` or `Stream.SPEECH`); the answer goes on with
                the id it returns. For benchmarks, whose answers must have one length whatever the model says.
            forced: ids that the answer goes on with in place of those chosen, by model, as many as there are. A GPU
                takes them along and decodes by itself, while `steer` has it wait for the host at every token.
            **options: fields of `Options` for this turn alone, but voice, system and run_ahead.

        Returns:
            An iterator of chunks, with whose first the answer begins; closing it early ends the turn, and the history
            keeps the text written so far. An error on the way is raised by it.

        Raises:
            AudioError: the audio cannot be used.
            SettingError: an option makes no sense, or a turn is still running.
            ContextError: the turn does not fit the context.
            CapacityError: (from the iterator) there is no room for another turn at present.
        """
        recorder = Recorder(self._turns)
        self._check_open()
        self._check_idle(self._turns)
        self._cancelled = False
        self._engine.scheduler.drained(self._id)
        self._engine.scheduler.revive(self._id)
        fixed = sorted({"voice", "system", "run_ahead"} & set(options))
        if fixed:
            raise SettingError(f"{fixed[0]} cannot change within a session", "give it to engine.session()")
        turn_options = self._options.merged(options)
        self._check_room(turn_options)
        exchange = self._listen(audio, sample_rate, text, turn_options, recorder)
        if exchange is None:
            return self._unheard(recorder)
        exchanges, layout = self._lay_out(exchange, turn_options, recorder)
        return self._chunks(turn_options, exchanges, layout, recorder, on_text, steer, forced or {})

    async def astream(self, audio: AudioInput | None = None, **arguments: Any) -> AsyncGenerator[Chunk]:
        """`stream` for asyncio: the work runs in a thread, chunks are awaited. Same arguments."""
        chunks = await asyncio.to_thread(self.stream, audio, **arguments)
        step = None
        try:
            while True:
                step = asyncio.create_task(asyncio.to_thread(next, chunks, END))
                if (chunk := await asyncio.shield(step)) is END:
                    return
                assert isinstance(chunk, Chunk)
                yield chunk
        finally:
            self.cancel()
            if step is not None:
                await asyncio.wait([step])  # its thread is inside the generator, which can be entered by one at a time
            await asyncio.to_thread(_exhaust, chunks)

    def cancel(self) -> None:
        """Stop the turn last asked for before its next step; callable from any thread. The history keeps the text
        written so far; `truncate` cuts it to what was heard."""
        self._cancelled = True
        self._engine.scheduler.cancel(self._id)
        if (output := self._output) is not None:
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
        self._check_idle(self._turns)
        if not played_ms >= 0:
            raise SettingError(f"played_ms is {played_ms}", "use 0 or more milliseconds")
        if self.metrics is None or not self.metrics.text_tokens:
            return  # the last turn left nothing, and what the one before it said was heard
        units = played_ms / 1000 * self._engine.config.flow_encoder.unit_rate
        heard = [tokens for before, tokens in self._history.rounds if before < units]
        for exchange in self._history.exchanges[-1:]:
            del exchange.reply[heard[-1] if heard else 0 :]

    def close(self) -> None:
        """Give the session's memory back, once a step that runs is done; callable from any thread."""
        self._conversation = None
        if (output := self._output) is not None:
            output.end(SettingError("the session was closed during the turn", "keep it open until the last chunk"))
        self._cancelled = True
        self._engine.scheduler.close(self._id)
        self._once_drained(self._release)  # which does it the first time it is called

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> Conversation:
        if (conversation := self._conversation) is None:
            raise SettingError("the session is closed", "open another with engine.session()")
        return conversation

    def _fail(self, error: BaseException) -> None:
        """A step failed; told by the scheduler."""
        if (output := self._output) is not None:
            output.end(error)

    def _check_idle(self, turn: int) -> None:
        if self._running or turn != self._turns:
            raise SettingError(
                "another turn of this session came in between", "finish or close one turn before the next"
            )

    def _check_room(self, options: Options) -> None:
        """Refuse a turn whose speech might outgrow the speech LM's positions; the text's room is `_lay_out`'s."""
        engine = self._engine
        most = engine.pipeline.speech_lm.fitting(engine.directory.manifest.positions)
        if engine.pipeline.loop.speech_capacity(options.max_new_tokens, options.max_last_write) > most:
            raise SettingError(
                f"{options.max_new_tokens} text tokens and a last write of {options.max_last_write} may take more than "
                f"the {most} positions of the speech model",
                "lower max_new_tokens or max_last_write",
            )

    # -- a turn's beginning ----------------------------------------------------------------------------------------

    def _listen(
        self, audio: AudioInput | None, sample_rate: int | None, text: str | None, options: Options, recorder: Recorder
    ) -> Exchange | None:
        """What was said; None if the turn was cancelled before that was understood."""
        if (audio is None) == (text is None):
            raise SettingError("a turn is either spoken or typed", "give audio or text, and not both")
        used = sum(len(exchange.items()) for exchange in self._history.exchanges[-1:])
        first_item = self._history.exchanges[-1].first_item + used if self._history.exchanges else 0
        if text is not None:
            if not isinstance(text, str):
                raise SettingError(f"a typed turn is a {type(text).__name__}", "give a str")
            self._engine.prompts.check_typed(text, "typed turn")
            return Exchange(first_item, text=text)
        assert audio is not None
        speech = self._engine.listen_for(self._id, audio, sample_rate, options.long, recorder)
        return None if speech is None else Exchange(first_item, speech=speech)

    def _lay_out(self, exchange: Exchange, options: Options, recorder: Recorder) -> tuple[list[Exchange], Layout]:
        """The prompt with as many earlier turns as fit, and those turns."""
        limits = [self._engine.max_context - options.max_new_tokens]
        if (checkpoint_limit := self._engine.config.tokens.context_limit) is not None:
            limits.append(checkpoint_limit)
        exchanges = [*self._history.exchanges, exchange]
        while True:
            layout = self._engine.prompts.lay_out(exchanges, self._options.system)
            if len(layout.items) <= min(limits):
                return exchanges, layout
            if len(exchanges) == 1:
                raise _too_long(len(layout.items), options.max_new_tokens, self._engine.max_context, checkpoint_limit)
            exchanges = exchanges[1:]
            recorder.metrics.dropped_turns += 1

    # -- a turn's course -------------------------------------------------------------------------------------------

    def _chunks(
        self,
        options: Options,
        exchanges: list[Exchange],
        layout: Layout,
        recorder: Recorder,
        on_text: OnText | None,
        steer: Steer | None,
        forced: Forced,
    ) -> Iterator[Chunk]:
        """Start the turn, hand out what it makes, and clean up behind it however it ends."""
        self._check_idle(recorder.metrics.turn)
        conversation = self._check_open()
        engine, scheduler, history = self._engine, self._engine.scheduler, self._history
        positions = engine.pipeline.loop.speech_capacity(options.max_new_tokens, options.max_last_write)
        states = engine.states.begin(self._speaker, positions, positions / engine.config.flow_encoder.unit_rate)
        recorder.metrics.left_context = states.left_context
        before, history.exchanges, history.rounds = history.exchanges, exchanges, []
        self._running = True
        output = self._output = ChunkQueue(options.unread, lambda held: scheduler.hold(self._id, held))
        state = conversation.state
        turn = Turn(engine, history, state, states, layout, options, output, recorder, on_text, steer, forced)
        turn.policy = TurnPolicy(
            engine.config.read,
            engine.config.write,
            turn.schedule,
            submitter(scheduler, self._id, turn),
            lambda: scheduler.lead(self._id),
            turn.bursts,
        )
        try:
            if not self._cancelled:
                scheduler.begin(self._id)
                turn.policy.begin()
                yield from output
        except SessionCancelledError:  # before its first step could be queued
            self._cancelled = True
        finally:
            output.discard()
            scheduler.cancel(self._id)  # until the next turn
            self._once_drained(partial(self._clean_up, turn, before))

    def _once_drained(self, work: Callable[[], object]) -> None:
        """Do it when no step of the session runs any more."""
        try:
            self._engine.scheduler.drained(self._id)
        except SchedulerError:  # this thread is inside a step: a callback, or garbage collection of a dropped turn
            threading.Thread(target=self._once_drained, args=(work,)).start()
        else:
            work()

    def _clean_up(self, turn: Turn, before: list[Exchange]) -> None:
        """Leave nothing of a turn but its history and metrics."""
        self._engine.states.end(turn.states)
        del turn.policy  # which refers to the turn: its caches would stay until the next garbage collection
        self._end(turn.recorder, before)

    def _unheard(self, recorder: Recorder) -> Iterator[Chunk]:
        """A turn cancelled while its question was being encoded."""
        self._cancelled = True
        self._end(recorder, self._history.exchanges)
        return iter(())

    def _end(self, recorder: Recorder, before: list[Exchange]) -> None:
        """Close the turn's books."""
        metrics = recorder.metrics
        if not metrics.text_tokens:  # it failed before it said anything: as if it had not been
            self._history.exchanges = before
        if self._cancelled:
            metrics.finish_reason = "cancelled"
        self._turns += 1
        self._running = False
        self._output = None
        self.metrics = metrics
        recorder.finish()


def _give_back(engine: Engine, scheduled: int, conversation: Conversation) -> None:
    """What a session holds of its engine. No step of it runs."""
    engine.scheduler.close(scheduled)
    engine.states.close(conversation)


def _weakly(method: Callable[[BaseException], None]) -> Callable[[BaseException], None]:
    """A bound method that does not keep its object, for one that must not keep a session its owner has dropped."""
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


def _exhaust(chunks: Iterator[Chunk]) -> None:
    for _ in chunks:
        pass
