"""One turn while it runs: what its steps compute and what comes out. Which step is next is the policy's business."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omni2_engine.chunk import Chunk
from omni2_engine.conversation import Exchange, Layout
from omni2_engine.metrics import Recorder
from omni2_engine.options import Options
from omni2_engine.read_write import Group, SpeechWriter, Spoke, TextWriter
from omni2_engine.sampling import Chooser, DrawKey, Stream
from omni2_engine.scheduling.chunking import ChunkSchedule
from omni2_engine.scheduling.output import ChunkQueue
from omni2_engine.scheduling.turn_policy import Bursts, TurnPolicy
from omni2_engine.stages.burst import Tokens
from omni2_engine.stages.flow import FlowCall
from omni2_engine.stages.language_model import DecoderState
from omni2_engine.stages.vocoder import VocoderCall
from omni2_engine.states import TurnStates
from omni2_engine.text.tokenizer import TextStream

if TYPE_CHECKING:
    from omni2_engine.engine import Engine

Floats = NDArray[np.float32]
OnText = Callable[[str], None]
Forced = Mapping[Stream, Sequence[int]]  # model → ids that its turn goes on with
Steer = Callable[[Stream, list[int], int], int]  # (model, its ids of this turn so far, id it chose) → id to go on with


@dataclass
class History:
    """What a conversation remembers.

    Attributes:
        exchanges: its turns; the last one's reply grows while it runs.
        fed: items the KV cache holds.
        rounds: of the last turn, (units before the round, text ids the speech LM had read with it).
    """

    exchanges: list[Exchange]
    fed: list[int]
    rounds: list[tuple[int, int]]


class Turn:
    """A turn's state and its steps. Steps of one stage never run at once, those of different stages may.

    Args:
        engine: the loaded engine.
        history: grows.
        state: the conversation's KV cache.
        states: what the turn has for itself.
        layout: the prompt.
        options: how it answers.
        output: where its chunks go.
        recorder: of this turn.
        on_text: called with every piece of text.
        steer, forced: see `Session.stream`.

    Attributes:
        policy: set by whoever runs the turn, before its first step.
    """

    policy: TurnPolicy

    def __init__(
        self,
        engine: Engine,
        history: History,
        state: DecoderState,
        states: TurnStates,
        layout: Layout,
        options: Options,
        output: ChunkQueue,
        recorder: Recorder,
        on_text: OnText | None,
        steer: Steer | None,
        forced: Forced,
    ) -> None:
        loop = engine.pipeline.loop
        self.engine = engine
        self.history = history
        self.states = states
        self.layout = layout
        self.options = options
        self.output = output
        self.recorder = recorder
        self._on_text = on_text
        self._steer = steer
        self._forced = forced
        self.writer = TextWriter(loop, state, self._chooser(Stream.TEXT), options.max_new_tokens)
        self.speaker = SpeechWriter(loop, states.speech, self._chooser(Stream.SPEECH), options.max_last_write)
        self._characters = TextStream(engine.text_tokenizer)
        self._text = ""  # all of it so far
        self._told = 0  # characters of it that went out with chunks
        self._groups: deque[Group] = deque()  # the speech LM has still to read
        self._read: list[tuple[int, int]] = []  # (units before the round, characters it had read)
        self._units: list[int] = []  # all of the turn that make a sound
        self._rendered = 0  # of those, seen by the flow
        self._mel: deque[tuple[Floats, int]] = deque()  # for the vocoder, and units seen by the flow with it
        self._mels = 0  # calls of the flow that gave some
        self._seconds = 0.0
        self._count = 0

    @property
    def schedule(self) -> ChunkSchedule:
        """Units per flow call: W, or as many as the decoder needs to voice any."""
        config = self.engine.config
        first = max(config.write, self.engine.pipeline.decoder.fewest_units)
        return ChunkSchedule(first, config.flow_encoder.unit_rate, self.options.chunks == "growing")

    @property
    def bursts(self) -> Bursts:
        """Tokens of one step, as the models can give them."""
        pipeline = self.engine.pipeline
        return Bursts(pipeline.llm.longest(self.writer.choose), pipeline.speech_lm.longest(self.speaker.choose))

    # -- the language model's steps --------------------------------------------------------------------------------

    def prefill(self, tokens: int) -> None:
        """Feed the part of the prompt that is not in the cache yet, and choose the first token if it is wanted."""
        engine, history, metrics = self.engine, self.history, self.recorder.metrics
        llm, state, layout = engine.pipeline.llm, self.writer.state, self.layout
        with self.recorder.span("prefill"):
            reused = min(layout.common_prefix(history.fed), len(layout.items) - 1)
            if not history.fed:
                reused = engine.fill_prefix(state, layout, self.options.system)
            metrics.prompt_positions, metrics.reused_positions = len(layout.items), reused
            state.truncate(reused)
            history.fed = layout.items[:reused]
            llm.extend(state, layout.embeds(reused, llm.table))
            history.fed = list(layout.items)
        self.wrote(llm.burst([self.writer.ask(tokens)])[0] if tokens else Tokens())

    def wrote(self, written: Tokens) -> None:
        """Take the text tokens of a burst."""
        for token, hidden in zip(written.ids, written.hidden, strict=True):
            self.writer.take(token, hidden)
            self.recorder.text()
            self._remember(token)
            if token not in self.engine.config.tokens.eos:
                self._write_text(self._characters.push(token))
        written.check()
        group = self.writer.group()
        if group is not None:
            if group.final:
                self._write_text(self._characters.flush())
            self._groups.append(group)
            self._read.append((-1, len(self._text)))
        self.policy.wrote(len(written.ids), self.writer.ended)

    def _remember(self, token: int) -> None:
        """Keep the history in step with the KV cache: when token i is chosen, token i − 1 has been fed."""
        metrics, history = self.recorder.metrics, self.history
        reply = history.exchanges[-1].reply
        metrics.text_tokens = len(self.writer.tokens)
        if len(self.writer.tokens) > 1:
            history.fed.append(reply[-1])
        if token in self.engine.config.tokens.eos:
            metrics.finish_reason = "end"
            return
        metrics.finish_reason = "limit"
        reply.append(token)

    def _write_text(self, piece: str) -> None:
        if piece:
            self._text += piece
            if self._on_text is not None:
                self._on_text(piece)

    # -- the speech LM's -------------------------------------------------------------------------------------------

    def read(self, tokens: int) -> None:
        """Feed the speech LM the next group of text, and choose the first token of its write if it is wanted."""
        group = self._groups.popleft()
        number = len(self.history.rounds)
        self._read[number] = (len(self._units), self._read[number][1])
        self.history.rounds.append((len(self._units), group.total))
        self.speaker.extend(self.speaker.fuse(group, self.recorder), self.recorder)
        self.spoke(self.engine.pipeline.speech_lm.burst([self.speaker.ask(tokens)])[0] if tokens else Tokens())

    def spoke(self, spoken: Tokens) -> None:
        """Take the speech tokens of a burst."""
        for token in spoken.ids:
            self._hear(self.speaker.take(token))
        spoken.check()
        if self.speaker.over:
            self._hear(self.speaker.flush())
        self.policy.spoke(len(spoken.ids), self.speaker.over)

    def _hear(self, event: Spoke) -> None:
        """Take the units of a speech token; ids that are no unit, or none the flow knows, make no sound (spec §6)."""
        metrics = self.recorder.metrics
        known = [unit for unit in event.units if unit < self.engine.config.flow_encoder.units]
        metrics.speech_tokens += event.token is not None
        metrics.unvoiced_ids += len(event.units) - len(known)
        self._units.extend(known)
        self.policy.heard(len(known))

    # -- the decoder's ---------------------------------------------------------------------------------------------

    @property
    def opening(self) -> bool:
        """Nothing of it has been heard yet."""
        return not self._count

    @property
    def newest_mel(self) -> tuple[int, bool]:
        """Frames of mel that came last, and whether they were the first: what the shape of a vocoder's call depends
        on."""
        return len(self._mel[-1][0]), self._mels == 1

    def begin_mel(self, units: int, final: bool) -> FlowCall:
        """Begin the flow's call for the next units."""
        begin, self._rendered = self._rendered, self._rendered + units
        return self.engine.pipeline.decoder.begin_mel(self.states.decoder, self._units[begin : self._rendered], final)

    def rendered(self, mel: Floats, final: bool) -> None:
        """Take what the flow made of them."""
        self._mel.append((mel, self._rendered))
        self._mels += 1
        self.recorder.metrics.units = self._rendered
        self.policy.rendered(final)

    def begin_sound(self, final: bool) -> VocoderCall | None:
        """Begin the vocoder's call for the oldest mel."""
        turn = self.recorder.metrics.turn
        return self.engine.pipeline.decoder.begin_sound(
            self.states.decoder, self._mel[0][0], final, self.options.seed, turn
        )

    def voiced(self, pcm: Floats, final: bool) -> float:
        """Put out what the vocoder made of it.

        Returns:
            Seconds of sound that went out.
        """
        units = self._mel.popleft()[1]
        if len(pcm) or (final and self._told < len(self._text)):
            self._put(pcm, units, final)
        return len(pcm) / self.engine.sample_rate

    def _put(self, pcm: Floats, units: int, final: bool) -> None:
        rate, text = self.engine.sample_rate, self._text
        if len(pcm):
            self.recorder.chunk(len(pcm) / rate)
        heard = units - (0 if final else self.engine.config.flow_encoder.lookahead)
        read = [characters for before, characters in self._read if 0 <= before < heard]
        spoken = text if final else text[: read[-1] if read else 0]
        chunk = Chunk(pcm, rate, self._count, self._seconds, text[self._told :], spoken, units, final)
        self._told = len(text)
        self._seconds += chunk.duration
        self._count += 1
        self.output.put(chunk)

    def _chooser(self, stream: Stream) -> Chooser:
        tokens = self.engine.config.tokens
        sampling = self.options.sampling_of_text(tokens) if stream is Stream.TEXT else self.options.speech_sampling
        key = DrawKey(self.options.seed, stream, self.recorder.metrics.turn)
        steer = None if self._steer is None else partial(self._steer, stream)
        return Chooser(sampling, key, self._forced.get(stream, ()), steer)
