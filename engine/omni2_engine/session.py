"""A conversation: several turns over one KV cache, each answered as a stream of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from omni2_engine.audio.source import AudioInput
from omni2_engine.chunk import Chunk
from omni2_engine.conversation import Exchange, Layout
from omni2_engine.errors import ContextError, SettingError
from omni2_engine.metrics import Recorder, TurnMetrics
from omni2_engine.options import Options
from omni2_engine.read_write import Choose, Read, Spoke, Wrote
from omni2_engine.sampling import DrawKey, Stream, choose
from omni2_engine.speech_decoder import SpeechState
from omni2_engine.stages.language_model import DecoderState
from omni2_engine.text.tokenizer import TextStream

if TYPE_CHECKING:
    from omni2_engine.engine import Engine

OnText = Callable[[str], None]
Steer = Callable[[Stream, list[int], int], int]  # (model, its ids of this turn so far, id it chose) → id to go on with
END = object()
State = TypeVar("State", DecoderState, SpeechState)


class Session:
    """One conversation; made by `Engine.session`, usable as a context manager, by one thread at a time.

    Args:
        engine: the loaded engine.
        options: how it answers.

    Attributes:
        metrics: of the last turn, or None before the first.
    """

    def __init__(self, engine: Engine, options: Options) -> None:
        self._engine = engine
        self._options = options
        self._speech: SpeechState | None = engine.pipeline.decoder.new_state(engine.speaker(options.voice))
        self._exchanges: list[Exchange] = []
        self._fed: list[int] = []  # items the KV cache holds
        self._state: DecoderState | None = engine.pipeline.llm.new_state(engine.max_context)
        self._speech_state: DecoderState | None = None
        self._turns = 0
        self._running = False
        self._cancelled = False
        self.metrics: TurnMetrics | None = None
        if options.system is not None:
            engine.prompts.check_typed(options.system, "system prompt")

    def stream(
        self,
        audio: AudioInput | None = None,
        *,
        sample_rate: int | None = None,
        text: str | None = None,
        on_text: OnText | None = None,
        steer: Steer | None = None,
        **options: Any,
    ) -> Iterator[Chunk]:
        """Answer one turn.

        Args:
            audio: what was said: a path, a file object, the bytes of an audio file, or an array (n,) or (n, channels).
            sample_rate: of an array, Hz.
            text: what was typed, instead of audio.
            on_text: called with every piece of text as soon as it is written, ahead of the sound.
            steer: called with every id that a model chose (`Stream.TEXT` or `Stream.SPEECH`); the answer goes on with
                the id it returns. For benchmarks, whose answers must have one length whatever the model says.
            **options: fields of `Options` for this turn alone, but voice and system.

        Returns:
            An iterator of chunks; closing it early ends the turn, and the history keeps the text written so far.

        Raises:
            AudioError: the audio cannot be used.
            SettingError: an option makes no sense, or a turn is still running.
            ContextError: the turn does not fit the context.
        """
        recorder = Recorder(self._turns)
        if self._state is None:
            raise SettingError("the session is closed", "open another with engine.session()")
        self._check_idle(self._turns)
        self._cancelled = False
        fixed = sorted({"voice", "system"} & set(options))
        if fixed:
            raise SettingError(f"{fixed[0]} cannot change within a session", "give it to engine.session()")
        turn_options = self._options.merged(options)
        self._check_room(turn_options)
        exchange = self._listen(audio, sample_rate, text, turn_options, recorder)
        exchanges, layout = self._lay_out(exchange, turn_options, recorder)
        return _Turn(self, turn_options, exchanges, layout, recorder, on_text, steer).chunks()

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
        written so far."""
        self._cancelled = True

    def close(self) -> None:
        """Give the session's memory back."""
        self.cancel()
        self._state = self._speech_state = self._speech = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_idle(self, turn: int) -> None:
        if self._running or turn != self._turns:
            raise SettingError(
                "another turn of this session came in between", "finish or close one turn before the next"
            )

    def _check_room(self, options: Options) -> None:
        """Refuse a turn whose speech might outgrow the speech LM's positions; the text's room is `_lay_out`'s."""
        engine = self._engine
        most = engine.directory.manifest.positions
        if engine.pipeline.loop.speech_capacity(options.max_new_tokens, options.max_last_write) > most:
            raise SettingError(
                f"{options.max_new_tokens} text tokens and a last write of {options.max_last_write} may take more than "
                f"the {most} positions of the speech model",
                "lower max_new_tokens or max_last_write",
            )

    # -- a turn's beginning ----------------------------------------------------------------------------------------

    def _listen(
        self, audio: AudioInput | None, sample_rate: int | None, text: str | None, options: Options, recorder: Recorder
    ) -> Exchange:
        if (audio is None) == (text is None):
            raise SettingError("a turn is either spoken or typed", "give audio or text, and not both")
        used = sum(len(exchange.items()) for exchange in self._exchanges[-1:])
        first_item = self._exchanges[-1].first_item + used if self._exchanges else 0
        if text is not None:
            if not isinstance(text, str):
                raise SettingError(f"a typed turn is a {type(text).__name__}", "give a str")
            self._engine.prompts.check_typed(text, "typed turn")
            return Exchange(first_item, text=text)
        assert audio is not None
        speech = self._engine.listen(audio, sample_rate, options.long, recorder)
        return Exchange(first_item, speech=speech)

    def _lay_out(self, exchange: Exchange, options: Options, recorder: Recorder) -> tuple[list[Exchange], Layout]:
        """The prompt with as many earlier turns as fit, and those turns."""
        limits = [self._engine.max_context - options.max_new_tokens]
        if (checkpoint_limit := self._engine.config.tokens.context_limit) is not None:
            limits.append(checkpoint_limit)
        exchanges = [*self._exchanges, exchange]
        while True:
            layout = self._engine.prompts.lay_out(exchanges, self._options.system)
            if len(layout.items) <= min(limits):
                return exchanges, layout
            if len(exchanges) == 1:
                raise _too_long(len(layout.items), options.max_new_tokens, self._engine.max_context, checkpoint_limit)
            exchanges = exchanges[1:]
            recorder.metrics.dropped_turns += 1


@dataclass
class _Turn:
    """One turn while it runs."""

    session: Session
    options: Options
    exchanges: list[Exchange]
    layout: Layout
    recorder: Recorder
    on_text: OnText | None
    steer: Steer | None
    text: str = ""  # all of it so far
    told: int = 0  # characters of it that went out with chunks
    rounds: list[tuple[int, int]] = field(default_factory=list)  # (units before the round, characters it had read)
    unread: list[int] = field(default_factory=list)  # units not voiced yet
    voiced: int = 0
    seconds: float = 0.0
    chunk_count: int = 0

    def chunks(self) -> Iterator[Chunk]:
        """Prefill, then read, write and voice until the answer ends."""
        session, engine = self.session, self.session._engine
        session._check_idle(self.recorder.metrics.turn)
        session._running = True
        before, session._exchanges = session._exchanges, self.exchanges
        try:
            if session._cancelled:
                return
            self._prefill()
            speech = _open(session._speech)
            engine.pipeline.decoder.reset(speech)
            yield from self._answer(speech)
            if not session._cancelled:
                pcm = self._voice(speech, final=True)
                if len(pcm) or self.told < len(self.text):
                    yield self._chunk(pcm, final=True)
        finally:
            metrics = self.recorder.metrics
            if not metrics.text_tokens:  # it failed before it said anything: as if it had not been
                session._exchanges = before
            if session._cancelled:
                metrics.finish_reason = "cancelled"
            metrics.units = self.voiced
            session._turns += 1
            session._running = False
            session.metrics = metrics
            self.recorder.finish()

    def _prefill(self) -> None:
        session, state = self.session, self._state
        llm, metrics = session._engine.pipeline.llm, self.recorder.metrics
        reused = min(self.layout.common_prefix(session._fed), len(self.layout.items) - 1)
        with self.recorder.span("prefill"):
            if not session._fed:
                reused = session._engine.fill_prefix(state, self.layout, session._options.system)
            metrics.prompt_positions, metrics.reused_positions = len(self.layout.items), reused
            state.truncate(reused)
            session._fed = self.layout.items[:reused]
            llm.extend(state, self.layout.embeds(reused, llm.table))
            session._fed = list(self.layout.items)

    @property
    def _state(self) -> DecoderState:
        return _open(self.session._state)

    def _answer(self, speech: SpeechState) -> Iterator[Chunk]:
        session, options, engine = self.session, self.options, self.session._engine
        loop = engine.pipeline.loop
        tokens = engine.config.tokens
        characters = TextStream(engine.text_tokenizer)
        hop = max(engine.config.write, engine.pipeline.decoder.fewest_units)
        written = 0
        for event in loop.run(
            self._state,
            self._fresh_speech_state(loop.speech_capacity(options.max_new_tokens, options.max_last_write)),
            self._chooser(Stream.TEXT),
            self._chooser(Stream.SPEECH),
            options.max_new_tokens,
            options.max_last_write,
            self.recorder,
        ):
            if session._cancelled:
                return
            if isinstance(event, Wrote):
                written += 1
                self._remember(event.token, written)
                if event.token not in tokens.eos:
                    self._write_text(characters.push(event.token))
            elif isinstance(event, Read):
                if event.final:
                    self._write_text(characters.flush())
                self.rounds.append((self.voiced + len(self.unread), len(self.text)))
            elif isinstance(event, Spoke):
                self._hear(event)
                if len(self.unread) >= hop:
                    pcm = self._voice(speech, final=False)
                    if len(pcm):
                        yield self._chunk(pcm, final=False)

    def _remember(self, token: int, written: int) -> None:
        """Keep the history in step with the KV cache: when token i is chosen, token i − 1 has been fed."""
        metrics, session = self.recorder.metrics, self.session
        metrics.text_tokens = written
        if written > 1:
            session._fed.append(self.exchanges[-1].reply[-1])
        if token in session._engine.config.tokens.eos:
            metrics.finish_reason = "end"
            return
        metrics.finish_reason = "limit"
        self.exchanges[-1].reply.append(token)

    def _write_text(self, piece: str) -> None:
        if piece:
            self.text += piece
            if self.on_text is not None:
                self.on_text(piece)

    def _hear(self, event: Spoke) -> None:
        """Take the units of a speech token; ids that are no unit, or none the flow knows, make no sound (spec §6)."""
        metrics = self.recorder.metrics
        known = [unit for unit in event.units if unit < self.session._engine.config.flow_encoder.units]
        metrics.speech_tokens += event.token is not None
        metrics.unvoiced_ids += len(event.units) - len(known)
        self.unread.extend(known)

    def _voice(self, speech: SpeechState, final: bool) -> Any:
        units, self.unread = self.unread, []
        self.voiced += len(units)
        decoder = self.session._engine.pipeline.decoder
        return decoder.step(speech, units, final, self.options.seed, self.recorder.metrics.turn, self.recorder)

    def _chunk(self, pcm: Any, final: bool) -> Chunk:
        rate = self.session._engine.sample_rate
        self.recorder.chunk(len(pcm) / rate) if len(pcm) else None
        spoken_units = self.voiced - (0 if final else self.session._engine.config.flow_encoder.lookahead)
        read = [characters for units_before, characters in self.rounds if units_before < spoken_units]
        spoken = self.text if final else self.text[: read[-1] if read else 0]
        chunk = Chunk(pcm, rate, self.chunk_count, self.seconds, self.text[self.told :], spoken, self.voiced, final)
        self.told = len(self.text)
        self.seconds += chunk.duration
        self.chunk_count += 1
        return chunk

    def _fresh_speech_state(self, capacity: int) -> DecoderState:
        """The speech LM's context starts anew every turn; its memory is kept."""
        state = self.session._speech_state
        if state is None or state.capacity < capacity:
            state = self.session._speech_state = self.session._engine.pipeline.speech_lm.new_state(capacity)
        state.truncate(0)
        return state

    def _chooser(self, stream: Stream) -> Choose:
        tokens = self.session._engine.config.tokens
        sampling = self.options.sampling_of_text(tokens) if stream is Stream.TEXT else self.options.speech_sampling
        key = DrawKey(self.options.seed, stream, self.recorder.metrics.turn)
        steer = self.steer

        def pick(logits: Any, generated: list[int]) -> int:
            penalised = generated if sampling.repetition_penalty != 1.0 else []
            chosen = choose(logits, sampling, key, len(generated), penalised)
            return chosen if steer is None else steer(stream, generated, chosen)

        return pick


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


def _open(state: State | None) -> State:
    """A part of the session's state, which is gone once the session is closed."""
    if state is None:
        raise SettingError("the session was closed during the turn", "keep it open until the last chunk")
    return state


def _exhaust(chunks: Iterator[Chunk]) -> None:
    for _ in chunks:
        pass
