"""Runs the engine's own read/write loop with chosen tokens and records everything golden files hold about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from omni2_engine.engine import Engine
from omni2_engine.metrics import Recorder
from omni2_engine.read_write import Read, Spoke
from omni2_engine.sampling import Choose, DrawKey, Sampling, Stream, choose
from omni2_engine.stages.burst import Burst, Tokens
from omni2_engine.stages.language_model import DecoderState, LanguageModel
from omni2_engine.text.units import units_of_text

Floats = NDArray[np.float32]


@dataclass
class Turn:
    """What happened in one turn, a list entry per text token, per write, or per speech token as the comments say."""

    text_ids: list[int] = field(default_factory=list)
    text_logits: list[Floats] = field(default_factory=list)  # per text token, before any penalty
    hidden: list[Floats] = field(default_factory=list)  # per text token, of the position that produced it
    reads: list[int] = field(default_factory=list)  # per write, pairs read
    writes: list[list[int]] = field(default_factory=list)  # per write, its tokens
    units: list[list[int]] = field(default_factory=list)  # per write, as the engine's unit stream gave them out
    contexts: list[int] = field(default_factory=list)  # per write, positions of the speech LM's context before it
    speech_logits: list[Floats] = field(default_factory=list)  # per speech token
    last_context: Floats | None = None  # (contexts[-1], speech hidden)

    @property
    def speech_ids(self) -> list[int]:
        """All speech tokens."""
        return [token for write in self.writes for token in write]

    @property
    def write_lengths(self) -> list[int]:
        """Tokens per write."""
        return [len(write) for write in self.writes]

    def spoken(self, engine: Engine) -> list[str]:
        """The text of each write, without special tokens."""
        tokenizer = engine.pipeline.loop.unit_table.tokenizer
        return [tokenizer.decode(write) for write in self.writes]

    def expected_units(self, engine: Engine) -> list[int]:
        """Units by the string rule of spec §6."""
        return [unit for text in self.spoken(engine) for unit in units_of_text(text)]


class _Recorded:
    """A language model that keeps what it is fed; it offers what the read/write loop uses of one."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.fed: list[Floats] = []
        self.embed = model.embed

    def extend(self, state: DecoderState, embeds: Floats) -> None:
        """See `LanguageModel.extend`."""
        self.fed.append(np.array(embeds))
        self._model.extend(state, embeds)

    def burst(self, bursts: Sequence[Burst]) -> list[Tokens]:
        """See `LanguageModel.burst`; the loop asks for one token of one state."""
        self.fed += [self.embed([burst.feed]) for burst in bursts if burst.feed is not None]
        return self._model.burst(bursts)


def run_turn(
    engine: Engine,
    prompt: Floats,
    choose_text: Choose,
    choose_speech: Choose,
    max_text: int,
    max_last_write: int,
    eos: tuple[int, ...] | None = None,
) -> Turn:
    """Prefill a prompt and answer it.

    Args:
        prompt: (n, hidden) float32 input embeddings.
        choose_text, choose_speech: as in `ReadWriteLoop.run`.
        max_text, max_last_write: limits of the text and of the final write.
        eos: ids that end the text instead of the model's own.
    """
    loop, llm = engine.pipeline.loop, engine.pipeline.llm
    recorded = _Recorded(loop.speech_lm)
    config = loop.config
    if eos is not None:
        config = config.model_copy(update={"tokens": config.tokens.model_copy(update={"eos": eos})})
    state = llm.new_state(len(prompt) + max_text)
    llm.extend(state, prompt)
    turn, starts = Turn(), []

    def pick_text(logits: Floats, generated: list[int]) -> int:
        turn.text_logits.append(logits.copy())
        turn.hidden.append(state.hidden.copy())
        turn.text_ids.append(choose_text(logits, generated))
        return turn.text_ids[-1]

    def pick_speech(logits: Floats, generated: list[int]) -> int:
        turn.speech_logits.append(logits.copy())
        return choose_speech(logits, generated)

    events = replace(loop, config=config, speech_lm=cast(LanguageModel, recorded)).run(
        state,
        loop.speech_lm.new_state(loop.speech_capacity(max_text, max_last_write)),
        pick_text,
        pick_speech,
        max_text,
        max_last_write,
        Recorder(0),
    )
    for event in events:
        if isinstance(event, Read):
            turn.reads.append(event.tokens - sum(turn.reads))
            turn.writes.append([])
            turn.units.append([])
            starts.append(len(recorded.fed) + 1)  # the write begins by feeding what was read
        elif isinstance(event, Spoke):
            turn.units[-1] += event.units
            if event.token is not None:
                turn.writes[-1].append(event.token)
    turn.contexts = [sum(len(part) for part in recorded.fed[:start]) for start in starts]
    turn.last_context = np.concatenate(recorded.fed[: starts[-1]])
    return turn


def greedy(repetition_penalty: float = 1.0) -> Choose:
    """The engine's own greedy choice."""
    sampling, key = Sampling(temperature=0.0, repetition_penalty=repetition_penalty), DrawKey(0, Stream.TEXT, 0)

    def pick(logits: Floats, generated: list[int]) -> int:
        return choose(logits, sampling, key, len(generated), generated if repetition_penalty != 1.0 else [])

    return pick


def forced(ids: Sequence[int], afterwards: int) -> Choose:
    """The given ids in their order whatever the logits say, then `afterwards`."""

    def pick(logits: Floats, generated: list[int]) -> int:
        return ids[len(generated)] if len(generated) < len(ids) else afterwards

    return pick
