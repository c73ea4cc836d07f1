"""What both pipelines are made to say, so that they do the same work with any weights.

Every id is chosen from the logits as always, and then the scripted one is gone on with.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from omni2_engine.errors import SettingError
from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES, ModelConfig
from omni2_engine.sampling import Stream
from omni2_engine.text import TextTokenizer, UnitTable


@dataclass
class Script:
    """The ids of one answer.

    Args:
        text: text tokens; none ends the text.
        speech: speech tokens, each of one unit.

    Attributes:
        chosen: what the text model itself chose at every step of the last answer that was steered.
    """

    text: list[int]
    speech: list[int]
    chosen: list[int] = field(default_factory=list)

    def steer(self, stream: Stream, generated: list[int], chosen: int) -> int:
        """The id to go on with instead of the chosen one; see `omni2_engine.sessions.session.Session.stream`."""
        if stream is Stream.SPEECH:
            return self.speech[len(generated)]
        self.chosen[len(generated) :] = [chosen]
        return self.text[len(generated)]

    @property
    def forced(self) -> dict[Stream, list[int]]:
        """The same ids, to be taken along; see `omni2_engine.sessions.session.Session.stream`."""
        return {Stream.TEXT: self.text, Stream.SPEECH: self.speech}

    def opening(self, config: ModelConfig, rounds: int) -> Script:
        """The same answer cut after a number of rounds of reading and writing."""
        return Script(self.text[: rounds * config.read], self.speech[: rounds * config.write])


def units_per_chunk(config: ModelConfig) -> int:
    """Units of one flow call: a write, or as many as bring a frame beyond look-ahead and overlap (spec §10)."""
    c = config.flow_encoder
    return max(config.write, c.lookahead - (-VOCODER_OVERLAP_FRAMES // c.ratio) + 1)


def write_script(config: ModelConfig, tokenizer: TextTokenizer, units: UnitTable, chunks: int, seed: int = 0) -> Script:
    """An answer of `chunks` chunks: random text, random units.

    Args:
        config: gives R, W and what must not be said.
        tokenizer: the text tokenizer.
        units: which speech tokens say which unit.
        chunks: flow calls that bring new units.
        seed: names the random numbers.

    Raises:
        SettingError: the speech tokenizer has no token of a single unit.
    """
    rounds = -(-chunks * units_per_chunk(config) // config.write)
    random = np.random.default_rng(seed)
    silent = {*config.tokens.eos, config.tokens.speech}
    words = [token for token in range(min(tokenizer.size, config.llm.vocab)) if token not in silent]
    voiced = np.flatnonzero((units.table >= 0) & (units.table < config.flow_encoder.units))
    voiced = voiced[voiced < config.speech_lm.vocab]
    if not len(voiced):
        raise SettingError("the speech tokenizer has no token that is a unit", "use the checkpoint's own tokenizer")
    return Script(
        random.choice(words, rounds * config.read).tolist(), random.choice(voiced, rounds * config.write).tolist()
    )
