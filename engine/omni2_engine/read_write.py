"""Reading and writing: after every R text tokens the speech LM reads them and writes W speech tokens (spec §6).

A turn's two language models, each moving on by a burst of tokens at a time, so that a scheduler can run them side by
side and many turns in one call; `ReadWriteLoop.run` is the plain way through, one token after the other. Nothing is
ever prefilled twice: the speech LM's context only grows, so its cache holds everything but the last token written,
which goes in with the next round's fused vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine.config import ModelConfig
from omni2_engine.metrics import Recorder
from omni2_engine.sampling import Choose
from omni2_engine.stages.burst import Burst
from omni2_engine.stages.fusion import Fusion
from omni2_engine.stages.language_model import DecoderState, LanguageModel
from omni2_engine.text.units import UnitStream, UnitTable

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Wrote:
    """A text token was chosen."""

    token: int


@dataclass(frozen=True, slots=True)
class Read:
    """A round begins: the speech LM has read `tokens` text tokens of the turn; `final` if none will follow."""

    tokens: int
    final: bool


@dataclass(frozen=True, slots=True)
class Spoke:
    """A speech token was chosen, or a write ended (token None); `units` became certain with it."""

    token: int | None
    units: list[int]


Event = Wrote | Read | Spoke


@dataclass(frozen=True)
class Group:
    """What the speech LM reads in one round.

    Args:
        hidden: (n, llm_hidden) float32 of the positions that produced the tokens (spec §6).
        tokens: n text tokens, n ≤ R.
        total: text tokens of the turn up to here.
        final: the text has ended.
    """

    hidden: Floats
    tokens: list[int]
    total: int
    final: bool


@dataclass(frozen=True)
class ReadWriteLoop:
    """The two language models working in turns; all state is passed in."""

    config: ModelConfig
    llm: LanguageModel
    fusion: Fusion
    speech_lm: LanguageModel
    unit_table: UnitTable

    def speech_capacity(self, max_new_tokens: int, max_last_write: int) -> int:
        """Positions the speech LM's context can grow to in one turn."""
        rounds = -(-max_new_tokens // self.config.read)
        return max_new_tokens + rounds * self.config.write + 1 + max_last_write

    def run(
        self,
        state: DecoderState,
        speech_state: DecoderState,
        choose_text: Choose,
        choose_speech: Choose,
        max_new_tokens: int,
        max_last_write: int,
        recorder: Recorder,
    ) -> Iterator[Event]:
        """Answer once, one token after the other.

        Args:
            state: the language model's, prefilled with the prompt; on return everything but the last token is in it.
            speech_state: the speech LM's, empty, with `speech_capacity` positions.
            choose_text, choose_speech: pick an id from logits (vocab,) float32.
            max_new_tokens, max_last_write: limits of the text and of the final write.

        Yields:
            What happens, in order; the text has ended when `Read.final` comes.
        """
        text = TextWriter(self, state, choose_text, max_new_tokens)
        speech = SpeechWriter(self, speech_state, choose_speech, max_last_write)
        while True:
            with recorder.span("decode"):
                (written,) = self.llm.burst([text.ask(1)])
            written.check()
            text.take(written.ids[0], written.hidden[0])
            recorder.text()
            yield Wrote(written.ids[0])
            if (group := text.group()) is None:
                continue
            yield Read(group.total, group.final)
            speech.extend(speech.fuse(group, recorder), recorder)
            while not speech.over:
                with recorder.span("speech_decode"):
                    (spoken,) = self.speech_lm.burst([speech.ask(1)])
                spoken.check()
                yield speech.take(spoken.ids[0])
            yield speech.flush()
            if group.final:
                return


class TextWriter:
    """The language model's side of one turn.

    Args:
        loop: the models.
        state: prefilled with the prompt.
        choose: picks an id from logits (vocab,) float32.
        limit: tokens at most.

    Attributes:
        state, choose: as given.
        tokens: all ids so far, the end token included.
    """

    def __init__(self, loop: ReadWriteLoop, state: DecoderState, choose: Choose, limit: int) -> None:
        self._loop = loop
        self.state = state
        self.choose = choose
        self._limit = limit
        self._hidden: list[Floats] = []
        self.tokens: list[int] = []

    def ask(self, tokens: int) -> Burst:
        """What to ask of the language model for so many further tokens, or as many as there may still be."""
        feed = self.tokens[-1] if self.tokens else None
        most = min(tokens, self._limit - len(self.tokens))
        ends = self._loop.config.tokens.eos
        return Burst(self.state, feed, self.choose, self.tokens, most, ends, hidden=True)

    def take(self, token: int, hidden: Floats) -> None:
        """Add a token, with the hidden state (hidden,) of the position that produced it (spec §6)."""
        self.tokens.append(token)
        self._hidden.append(hidden)

    @property
    def ended(self) -> bool:
        """Whether no token follows."""
        eos = self._loop.config.tokens.eos
        return bool(self.tokens) and (self.tokens[-1] in eos or len(self.tokens) >= self._limit)

    def group(self) -> Group | None:
        """What is to be read if the last token completes it: R pairs, or the rest at the end."""
        if not self._hidden or (not self.ended and len(self.tokens) % self._loop.config.read):
            return None
        hidden, self._hidden = np.stack(self._hidden), []
        return Group(hidden, self.tokens[-len(hidden) :], len(self.tokens), self.ended)


class SpeechWriter:
    """The speech LM's side of one turn.

    Args:
        loop: the models.
        state: empty.
        choose: picks an id from logits (vocab,) float32.
        last_write: tokens of the final write at most.

    Attributes:
        state, choose: as given.
        tokens: all speech tokens so far.
        over: whether the present write is finished.
    """

    def __init__(self, loop: ReadWriteLoop, state: DecoderState, choose: Choose, last_write: int) -> None:
        self._loop = loop
        self.state = state
        self.choose = choose
        self._last_write = last_write
        self._left = 0  # tokens the present write may still have
        self._unfed = False  # whether the last token is not in the state yet
        self._units = UnitStream(loop.unit_table)
        self.tokens: list[int] = []
        self.over = True

    def fuse(self, group: Group, recorder: Recorder) -> Floats:
        """Begin a write: what is to be fed for it, (n + 1 or so, hidden) float32."""
        loop, model, config = self._loop, self._loop.speech_lm, self._loop.config
        with recorder.span("fusion"):
            fused = loop.fusion(group.hidden, model.embed(group.tokens))
        self._left = self._last_write if group.final else config.write
        self._units = UnitStream(loop.unit_table)
        self.over = False
        parts = [model.embed(self.tokens[-1:]), fused, model.embed([config.tokens.sep] if group.final else [])]
        return np.concatenate(parts)

    def extend(self, embeds: Floats, recorder: Recorder) -> None:
        """Feed what `fuse` gave."""
        with recorder.span("speech_prefill"):
            self._loop.speech_lm.extend(self.state, embeds)
        self._unfed = False

    def ask(self, tokens: int) -> Burst:
        """What to ask of the speech LM for so many further tokens, or as many as this write may still have."""
        feed = self.tokens[-1] if self._unfed else None
        ends = (self._loop.config.tokens.speech_eos,)
        return Burst(self.state, feed, self.choose, self.tokens, min(tokens, self._left), ends)

    def take(self, token: int) -> Spoke:
        """Add a token."""
        self.tokens.append(token)
        self._unfed = True
        self._left -= 1
        self.over = token == self._loop.config.tokens.speech_eos or self._left == 0
        return Spoke(token, self._units.push(token))

    def flush(self) -> Spoke:
        """What became certain as the write ended."""
        return Spoke(None, self._units.flush())
