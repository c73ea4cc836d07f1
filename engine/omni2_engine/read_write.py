"""The read/write loop: after every R text tokens the speech LM reads them and writes W speech tokens (spec §6).

Nothing is ever prefilled twice: the speech LM's context only grows, so its cache holds everything but the last token
written, which goes in with the next round's fused vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine.config import ModelConfig
from omni2_engine.metrics import Recorder
from omni2_engine.stages.fusion import Fusion
from omni2_engine.stages.language_model import DecoderState, LanguageModel
from omni2_engine.text.units import UnitStream, UnitTable

Floats = NDArray[np.float32]
Choose = Callable[[Floats, list[int]], int]  # (logits (vocab,), ids generated so far) → id


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
        """Answer once.

        Args:
            state: the language model's, prefilled with the prompt; on return everything but the last token is in it.
            speech_state: the speech LM's, empty, with `speech_capacity` positions.
            choose_text, choose_speech: pick an id from logits (vocab,) float32.
            max_new_tokens, max_last_write: limits of the text and of the final write.

        Yields:
            What happens, in order; the text has ended when `Read.final` comes.
        """
        text: list[int] = []
        writer = _SpeechWriter(self, speech_state, choose_speech, recorder)
        hidden: list[Floats] = []
        while True:
            text.append(choose_text(state.logits, text))
            hidden.append(state.hidden.copy())  # of the position that produced the token, spec §6
            recorder.text()
            yield Wrote(text[-1])
            finished = text[-1] in self.config.tokens.eos or len(text) >= max_new_tokens
            if finished or len(text) % self.config.read == 0:
                yield Read(len(text), finished)
                limit = max_last_write if finished else self.config.write
                yield from writer.write(np.stack(hidden), text[-len(hidden) :], finished, limit)
                hidden = []
            if finished:
                return
            with recorder.span("decode"):
                self.llm.extend(state, self.llm.embed(text[-1:]))


class _SpeechWriter:
    """The speech LM's side of one turn."""

    def __init__(self, loop: ReadWriteLoop, state: DecoderState, choose: Choose, recorder: Recorder) -> None:
        self._loop = loop
        self._state = state
        self._choose = choose
        self._recorder = recorder
        self._written: list[int] = []

    def write(self, hidden: Floats, tokens: list[int], final: bool, limit: int) -> Iterator[Spoke]:
        """Read pairs (n, llm_hidden) and n ids, then write up to `limit` tokens or to the end token."""
        loop, model, config = self._loop, self._loop.speech_lm, self._loop.config.tokens
        with self._recorder.span("fusion"):
            fused = loop.fusion(hidden, model.embed(tokens))
        parts = [model.embed(self._written[-1:]), fused, model.embed([config.sep] if final else [])]
        with self._recorder.span("speech_prefill"):
            model.extend(self._state, np.concatenate(parts))
        units = UnitStream(loop.unit_table)
        for position in range(limit):
            token = self._choose(self._state.logits, self._written)
            self._written.append(token)
            yield Spoke(token, units.push(token))
            if token == config.speech_eos:
                break
            if position + 1 < limit:
                with self._recorder.span("speech_decode"):
                    model.extend(self._state, model.embed([token]))
        yield Spoke(None, units.flush())
