"""Reading and writing: after every R text tokens the speech LM reads them and writes W speech tokens (spec §6).

Nothing is prefilled twice: the speech LM's context only grows, so its KV cache holds everything but the last token
written, which goes in with the next round's fused vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.decode_request import DecodeRequest
from omni2_engine.backends.base.kv_cache import DecoderState
from omni2_engine.sampling import Choose
from omni2_engine.stages.pipeline import Pipeline
from omni2_engine.text.units import UnitStream
from omni2_engine.turn.metrics import Recorder

Floats = NDArray[np.float32]


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


class TextWriter:
    """The language model's side of one turn.

    Args:
        pipeline: the stages.
        state: the conversation's KV cache, prefilled with the prompt before the first token is asked for.
        choose: picks an id from logits (vocab,) float32.
        limit: tokens at most.

    Attributes:
        state, choose: as given.
        tokens: all ids so far, the end token included.
    """

    def __init__(self, pipeline: Pipeline, state: DecoderState, choose: Choose, limit: int) -> None:
        self._config = pipeline.config
        self.state = state
        self.choose = choose
        self._limit = limit
        self._hidden: list[Floats] = []
        self.tokens: list[int] = []

    def ask(self, tokens: int) -> DecodeRequest:
        """What to ask of the language model for `tokens` further tokens, fewer where the limit is nearer."""
        feed = self.tokens[-1] if self.tokens else None
        most = min(tokens, self._limit - len(self.tokens))
        return DecodeRequest(self.state, feed, self.choose, self.tokens, most, self._config.tokens.eos, hidden=True)

    def take(self, token: int, hidden: Floats) -> None:
        """Add a token, with the hidden state (hidden,) of the position that produced it (spec §6)."""
        self.tokens.append(token)
        self._hidden.append(hidden)

    @property
    def ended(self) -> bool:
        """Whether no token follows."""
        eos = self._config.tokens.eos
        return bool(self.tokens) and (self.tokens[-1] in eos or len(self.tokens) >= self._limit)

    def group(self) -> Group | None:
        """What is to be read if the last token completes it: R pairs, or the rest at the end."""
        if not self._hidden or (not self.ended and len(self.tokens) % self._config.read):
            return None
        hidden, self._hidden = np.stack(self._hidden), []
        return Group(hidden, self.tokens[-len(hidden) :], len(self.tokens), self.ended)


class SpeechWriter:
    """The speech LM's side of one turn.

    Args:
        pipeline: the stages.
        state: an empty KV cache.
        choose: picks an id from logits (vocab,) float32.
        last_write: tokens of the final write at most.

    Attributes:
        state, choose: as given.
        tokens: all speech tokens so far.
        over: whether the present write is finished.
    """

    def __init__(self, pipeline: Pipeline, state: DecoderState, choose: Choose, last_write: int) -> None:
        self._pipeline = pipeline
        self._config = pipeline.config
        self.state = state
        self.choose = choose
        self._last_write = last_write
        self._left = 0  # tokens the present write may still have
        self._unfed = False  # whether the last token is not in the state yet
        self._units = UnitStream(pipeline.unit_table)
        self.tokens: list[int] = []
        self.over = True

    def read(self, group: Group, recorder: Recorder) -> None:
        """Begin a write: fuse a group of text and feed it."""
        model = self._pipeline.speech_lm
        with recorder.span("fusion"):
            fused = self._pipeline.fusion(group.hidden, model.embed(group.tokens))
        separator = [self._config.tokens.sep] if group.final else []
        embeds = np.concatenate([model.embed(self.tokens[-1:]), fused, model.embed(separator)])
        with recorder.span("speech_prefill"):
            model.extend(self.state, embeds)
        self._left = self._last_write if group.final else self._config.write
        self._units = UnitStream(self._pipeline.unit_table)
        self._unfed = self.over = False

    def ask(self, tokens: int) -> DecodeRequest:
        """What to ask of the speech LM for `tokens` further tokens, fewer where the write ends before."""
        feed = self.tokens[-1] if self._unfed else None
        ends = (self._config.tokens.speech_eos,)
        return DecodeRequest(self.state, feed, self.choose, self.tokens, min(tokens, self._left), ends)

    def take(self, token: int) -> list[int]:
        """Add a token; the units that became certain with it."""
        self.tokens.append(token)
        self._unfed = True
        self._left -= 1
        self.over = token == self._config.tokens.speech_eos or self._left == 0
        return self._units.push(token)

    def flush(self) -> list[int]:
        """The units that became certain as the write ended."""
        return self._units.flush()
