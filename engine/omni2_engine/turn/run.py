"""One turn while it runs: a method per step. Which step is next is the plan's business, where it runs the queue's.

    encode → prefill → ask_text, take_text … → read → ask_speech, take_speech … → run_flow → run_vocoder → chunk

Each stage's state is used by that stage's steps alone, which never run at once. What passes from one stage to the next
(text, groups, units, mel frames, counts) is guarded by a lock, held while a step's result is taken and the steps that
follow are submitted, never while a graph runs.

A run may be prepared before its turn is asked for. It then goes as far as its first chunks, which it keeps to itself
until `commit`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.decode_request import DecodeRequest, Tokens
from omni2_engine.backends.base.kv_cache import CacheTail, DecoderState
from omni2_engine.errors import SettingError
from omni2_engine.memory.states import TurnStates
from omni2_engine.sampling import Chooser, DrawKey, Stream, checked_ids
from omni2_engine.settings import shown
from omni2_engine.stages.pipeline import Pipeline
from omni2_engine.text.tokenizer import TextStream
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.chunk_maker import ChunkMaker, VocodedSound
from omni2_engine.turn.chunking import ChunkSchedule
from omni2_engine.turn.held_back import HeldBack
from omni2_engine.turn.history import History
from omni2_engine.turn.metrics import Recorder
from omni2_engine.turn.options import Options
from omni2_engine.turn.output import ChunkQueue
from omni2_engine.turn.plan import RunFlow, Step, TokensPerStep, TurnPlan
from omni2_engine.turn.playout import Arrivals, Playout
from omni2_engine.turn.prefix import PrefixCache
from omni2_engine.turn.prompt import Layout
from omni2_engine.turn.queue import SessionQueue
from omni2_engine.turn.writers import Group, SpeechWriter, TextWriter

Floats = NDArray[np.float32]
OnText = Callable[[str], None]
Forced = Mapping[Stream, Sequence[int]]  # model → ids that its turn goes on with
Steer = Callable[[Stream, list[int], int], int]  # (model, its ids of this turn so far, id it chose) → id to go on with
Hooks = tuple[OnText | None, Steer | None, Forced | None]


def checked_hooks(hooks: Hooks, pipeline: Pipeline) -> Hooks:
    """The hooks of a turn, with ids as ints.

    Raises:
        SettingError: what is no function, or no id of a model's vocabulary.
    """
    on_text, steer, forced = hooks
    for name, hook in (("on_text", on_text), ("steer", steer)):
        if hook is not None and not callable(hook):
            raise SettingError(f"{name} is {shown(hook)}", "use a function")
    return on_text, steer, None if forced is None else checked_ids(forced, pipeline.vocabularies)


@dataclass(frozen=True)
class Question:
    """What a turn is asked.

    Args:
        layout: the prompt; its last exchange is this turn's.
        waveform: (n,) float32 at 16 kHz, in the encoder's window; None if typed.
        options: how to answer.
        on_text: called with every piece of text.
        steer, forced: see `Session.stream`.
    """

    layout: Layout
    waveform: Floats | None
    options: Options
    on_text: OnText | None = None
    steer: Steer | None = None
    forced: Forced | None = None


class TurnRun:
    """A turn's state and its steps.

    Args:
        pipeline: the stages.
        prefixes: beginnings of prompts that are prefilled already.
        history: of the conversation; grows.
        text_state: the conversation's KV cache.
        states: what the turn has for itself.
        question: what it is asked.
        queue: takes its steps.
        output: where its chunks go.
        recorder: of this turn.
        playout: foresees when a player may start.
        prepared: the turn is not asked for yet; `commit` follows, or the run is dropped.

    Attributes:
        queue, output, recorder, states, text_state: as given.
        overwritten: positions of the KV cache that a prepared turn put its own in place of.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        prefixes: PrefixCache,
        history: History,
        text_state: DecoderState,
        states: TurnStates,
        question: Question,
        queue: SessionQueue,
        output: ChunkQueue,
        recorder: Recorder,
        playout: Playout,
        prepared: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._prefixes = prefixes
        self._history = history
        self.text_state = text_state
        self.states = states
        self._question = question
        self.queue = queue
        self.output = output
        self.recorder = recorder
        self._playout = playout
        self._held_back = HeldBack() if prepared else None
        self._arrivals = Arrivals() if prepared else self._new_arrivals()
        options = question.options
        self._text_writer = TextWriter(pipeline, text_state, self._chooser(Stream.TEXT), options.max_new_tokens)
        self._speech_writer = SpeechWriter(
            pipeline, states.speech, self._chooser(Stream.SPEECH), options.max_last_write
        )
        self._characters = TextStream(pipeline.tokenizer)
        self._lock = threading.RLock()
        self._telling = threading.RLock()  # pieces of text are told one after another
        self.overwritten: CacheTail | None = None
        self._plan = self._new_plan()
        config = pipeline.config
        self._chunks = ChunkMaker(config.vocoder.sample_rate, config.flow_encoder.lookahead)
        self._groups: deque[Group] = deque()  # the speech LM has still to read
        self._units: list[int] = []  # all of the turn that make a sound
        self._rendered = 0  # of those, taken by the flow
        self._mel: deque[tuple[Floats, int]] = deque()  # for the vocoder, and units taken by the flow up to them

    def _new_plan(self) -> TurnPlan:
        config, options, pipeline = self._pipeline.config, self._question.options, self._pipeline
        first = max(config.write, pipeline.decoder.fewest_units)  # W, or as many as the decoder needs to voice any
        chunks = ChunkSchedule(first, config.flow_encoder.unit_rate, options.chunks == "growing")
        tokens = TokensPerStep(
            pipeline.llm.longest(self._text_writer.choose), pipeline.speech_lm.longest(self._speech_writer.choose)
        )
        return TurnPlan(config.read, config.write, chunks, tokens)

    def _new_arrivals(self) -> Arrivals:
        """The turn's place among those that foretell when a player may start."""
        options = self._question.options
        # later sound may come when the player wants it, and not when it can
        return self._playout.begin(min(options.unread, options.run_ahead))

    def _chooser(self, stream: Stream) -> Chooser:
        question, tokens = self._question, self._pipeline.config.tokens
        options = question.options
        sampling = options.sampling_of_text(tokens) if stream is Stream.TEXT else options.speech_sampling
        key = DrawKey(options.seed, stream, self.recorder.metrics.turn)
        steer = None if question.steer is None else partial(question.steer, stream)
        return Chooser(sampling, key, (question.forced or {}).get(stream, ()), steer)

    @property
    def speech_state(self) -> DecoderState:
        """The speech LM's KV cache of this turn."""
        return self.states.speech

    @property
    def has_read(self) -> bool:
        """Whether the speech LM has read any text."""
        return bool(self._history.rounds)

    @property
    def text(self) -> str:
        """All text written so far."""
        return self._chunks.text

    @property
    def units(self) -> list[int]:
        """All units of the turn so far that make a sound."""
        return self._units

    def begin(self) -> None:
        """Submit the first step."""
        with self._lock:
            self._submit(self._plan.begin(spoken=self._question.waveform is not None))

    @property
    def sounded(self) -> bool:
        """Whether a prepared turn holds its first sound."""
        with self._lock:
            return self._held_back is not None and bool(self._held_back.sounds)

    @property
    def rests(self) -> bool:
        """Whether a prepared turn has made all that it may make ahead."""
        with self._lock:
            return self._held_back is not None and self._held_back.rests

    def commit(self) -> None:
        """Let a prepared turn go on, as one that was just asked for: what it has is put out.

        Raises:
            SessionCancelledError: the turn was cancelled, or the session closed.
        """
        with self._telling:
            with self._lock:
                held, self._held_back, self.overwritten = self._held_back, None, None
                assert held is not None
                self.queue.begin()
                self._arrivals = self._new_arrivals()
                if held.rests:
                    self.queue.hold(False)
                if held.sounds:
                    self._put_out(held.sounds)
                self._submit(held.let_go())
                if held.rests:
                    self._go_on(held.sounds[-1])
            if self._question.on_text is not None:
                for piece in held.text:
                    self._question.on_text(piece)

    def _submit(self, steps: list[Step]) -> None:
        """Submit what the plan says; the lock is held, so that steps of one stage stay in order."""
        for step in steps:
            if self._held_back is None or not self._held_back.keeps(step):
                self.queue.submit(step, self)

    def _lead(self) -> float:
        """Seconds the player is ahead, where the plan looks at them."""
        if not self._plan.chunks.growing:
            return 0.0
        return self.queue.lead() if self._held_back is None else self._seconds(self._held_back.sounds)

    # -- encoder ---------------------------------------------------------------------------------------------------

    def encode(self) -> None:
        """Turn the question into vectors (positions, hidden) for the prompt."""
        pipeline, waveform = self._pipeline, self._question.waveform
        assert waveform is not None
        with self.recorder.span("frontend"):
            log_mel = pipeline.frontend(waveform)
        with self.recorder.span("encoder"):
            self._history.exchanges[-1].speech = pipeline.encoder(log_mel)
        with self._lock:
            self._submit(self._plan.encoded())

    # -- language model --------------------------------------------------------------------------------------------

    def prefill(self, tokens: int) -> None:
        """Feed the part of the prompt that is not in the KV cache yet, and choose the first token if `tokens` is 1."""
        llm, state, layout, history = self._pipeline.llm, self.text_state, self._question.layout, self._history
        with self.recorder.span("prefill"):
            reused = history.reuse(layout, state, self._prefixes, self._question.options.system)
            metrics = self.recorder.metrics
            metrics.prompt_positions, metrics.reused_positions = len(layout.items), reused
            metrics.speech_positions = sum(exchange.positions for exchange in layout.spoken)
            if self._held_back is not None and reused < len(history.fed):
                self.overwritten = state.keep_tail(reused, len(history.fed))
            history.feed(layout, reused, state, llm)
        self.take_text(llm.decode_many([self.ask_text(tokens)])[0] if tokens else Tokens())

    def ask_text(self, tokens: int) -> DecodeRequest:
        """The request for at most `tokens` text tokens."""
        return self._text_writer.ask(tokens)

    def take_text(self, written: Tokens) -> None:
        """Take the text tokens of a call."""
        writer, group = self._text_writer, None
        for token, hidden in zip(written.ids, written.hidden, strict=True):
            writer.take(token, hidden)
            self.recorder.text()
            self._remember(token)
            if token not in self._pipeline.config.tokens.eos:
                self._write_text(self._characters.push(token))
        written.check()
        if (group := writer.group()) is not None and group.final:
            self._write_text(self._characters.flush())
        with self._lock:
            if group is not None:
                self._groups.append(group)
                self._chunks.end_group()
            self._submit(self._plan.decoded(len(written.ids), writer.ended, self._lead()))

    def _remember(self, token: int) -> None:
        """Keep the history in step with the KV cache: when token i is chosen, token i − 1 has been fed."""
        metrics, history, writer = self.recorder.metrics, self._history, self._text_writer
        reply = history.exchanges[-1].reply
        metrics.text_tokens = len(writer.tokens)
        if len(writer.tokens) > 1:
            history.fed.append(reply[-1])
        if token in self._pipeline.config.tokens.eos:
            metrics.finish_reason = "end"
            return
        metrics.finish_reason = "limit"
        reply.append(token)

    def _write_text(self, piece: str) -> None:
        if not piece:
            return
        with self._telling:
            with self._lock:
                self._chunks.text += piece
                if self._held_back is not None:
                    self._held_back.text.append(piece)
                    return
            if self._question.on_text is not None:
                self._question.on_text(piece)

    # -- speech LM -------------------------------------------------------------------------------------------------

    def read(self, tokens: int) -> None:
        """Feed the speech LM the next group of text, and choose the first token of its write if `tokens` is 1."""
        with self._lock:
            group = self._groups.popleft()
            self._chunks.begin_round(len(self._units))
            self._history.rounds.append((len(self._units), group.total))
        self._speech_writer.read(group, self.recorder)
        self.take_speech(self._pipeline.speech_lm.decode_many([self.ask_speech(tokens)])[0] if tokens else Tokens())

    def ask_speech(self, tokens: int) -> DecodeRequest:
        """The request for at most `tokens` speech tokens."""
        return self._speech_writer.ask(tokens)

    def take_speech(self, spoken: Tokens) -> None:
        """Take the speech tokens of a call."""
        writer = self._speech_writer
        for token in spoken.ids:
            self._take_units(writer.take(token), 1)
        spoken.check()
        if writer.over:
            self._take_units(writer.flush(), 0)
        with self._lock:
            self._submit(self._plan.wrote(len(spoken.ids), writer.over, self._lead()))

    def _take_units(self, units: list[int], tokens: int) -> None:
        """Take what became certain with a token; ids that the flow does not know make no sound (spec §6)."""
        known = [unit for unit in units if unit < self._pipeline.config.flow_encoder.units]
        metrics = self.recorder.metrics
        metrics.speech_tokens += tokens
        metrics.unvoiced_ids += len(units) - len(known)
        with self._lock:
            self._units.extend(known)
            self._submit(self._plan.add_units(len(known), self._lead()))

    # -- flow and vocoder ------------------------------------------------------------------------------------------

    def run_flow(self, planned: RunFlow) -> None:
        """Make mel frames of the next units."""
        with self._lock:
            call = self._plan.flow_begins(planned, self._lead())
            begin, self._rendered = self._rendered, self._rendered + call.units
            units = self._units[begin : self._rendered]
        with self.recorder.span("flow"):
            mel = self._pipeline.decoder.run_flow(self.states.decoder, units, call.final)
        with self._lock:
            self._mel.append((mel, self._rendered))
            self.recorder.metrics.units = self._rendered
            self._submit(self._plan.flow_done(call.final, self._lead()))

    def run_vocoder(self, final: bool) -> None:
        """Make sound of the oldest mel frames, and put it out."""
        with self._lock:
            mel, units = self._mel.popleft()
        seed, turn = self._question.options.seed, self.recorder.metrics.turn
        with self.recorder.span("vocoder"):
            pcm = self._pipeline.decoder.run_vocoder(self.states.decoder, mel, final, seed, turn)
        with self._lock:
            sound = VocodedSound(pcm, units, len(self.text), final)
            if self._held_back is not None:
                self._held_back.sounds.append(sound)
                if self._held_back.rests:
                    self.queue.hold(True)
                else:
                    self.queue.delivered(self._seconds([sound]))
                    self._submit([*self._held_back.let_go(), *self._plan.vocoder_done(self._lead())])
                return
        self._put_out([sound])
        self._go_on(sound)

    def _put_out(self, sounds: Sequence[VocodedSound]) -> None:
        """Make chunks of sounds that are there at once, where there is sound or an end."""
        with self._lock:
            start_in = self._start_in(self._seconds(sounds), sounds[-1].final)
        for sound in sounds:
            if (chunk := self._chunk(sound, start_in)) is not None:
                self.output.put(chunk)

    def _go_on(self, sound: VocodedSound) -> None:
        """What follows a chunk."""
        if sound.final:
            self.queue.finish()
            self.output.end()
        else:
            with self._lock:
                self._submit(self._plan.vocoder_done(self._lead()))

    def _seconds(self, sounds: Sequence[VocodedSound]) -> float:
        return sum(len(sound.pcm) for sound in sounds) / self._pipeline.config.vocoder.sample_rate

    def _chunk(self, sound: VocodedSound, start_in: float) -> Chunk | None:
        """What goes out; None where there is no sound and more follows."""
        if not len(sound.pcm) and not sound.final:
            return None
        with self._lock:
            reason = self.recorder.metrics.finish_reason if sound.final else None
            chunk = self._chunks.make(sound, start_in, reason)
        if len(sound.pcm):
            self.recorder.chunk(chunk.duration, start_in)
            self.queue.delivered(chunk.duration)
        return chunk

    def _start_in(self, seconds: float, final: bool) -> float:
        """How long a player should wait that has not started, see `Chunk`."""
        wait = self._playout.start_in(self._arrivals, self.recorder.now(), seconds) if seconds else 0.0
        return 0.0 if final else wait
