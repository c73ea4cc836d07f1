"""Answers a golden prompt with the engine's own turn, run inline, and records everything golden files hold about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.decode_request import DecodeRequest, Tokens
from omni2_engine.backends.base.kv_cache import DecoderState
from omni2_engine.backends.base.language_model import LanguageModel
from omni2_engine.engine import Engine
from omni2_engine.memory.states import TurnStates
from omni2_engine.sampling import Choose, Sampling, Stream
from omni2_engine.schedule.calls import StageCalls
from omni2_engine.schedule.inline import InlineSchedule
from omni2_engine.turn.history import History
from omni2_engine.turn.metrics import Recorder
from omni2_engine.turn.options import Options
from omni2_engine.turn.output import ChunkQueue
from omni2_engine.turn.playout import Playout
from omni2_engine.turn.prefix import PrefixCache
from omni2_engine.turn.prompt import Exchange, Layout
from omni2_engine.turn.run import Question, TurnRun

Floats = NDArray[np.float32]
Enough = Callable[[], bool]


@dataclass
class AnsweredTurn:
    """What happened in one turn, a list entry per text token, per write, or per speech token as the comments say."""

    text_ids: list[int] = field(default_factory=list)
    text_logits: list[Floats] = field(default_factory=list)  # per text token, before any penalty
    hidden: list[Floats] = field(default_factory=list)  # per text token, of the position that produced it
    reads: list[int] = field(default_factory=list)  # per write, pairs read
    writes: list[list[int]] = field(default_factory=list)  # per write, its tokens
    units: list[int] = field(default_factory=list)  # that went to the flow
    contexts: list[int] = field(default_factory=list)  # per write, positions of the speech LM's context before it
    speech_logits: list[Floats] = field(default_factory=list)  # per speech token
    last_context: Floats | None = None  # (contexts[-1], speech hidden)
    pcm: Floats | None = None  # (n,)

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
        tokenizer = engine.pipeline.unit_table.tokenizer
        return [tokenizer.decode(write) for write in self.writes]


class _Recorded:
    """A language model that keeps what it is fed and what it chose; it offers what a turn uses of one."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.embed, self.table = model.embed, model.table
        self.fed: list[Floats] = []
        self.reads: list[tuple[int, int]] = []  # per call of `extend`: parts fed with it, tokens chosen before it
        self.ids: list[int] = []
        self.logits: list[Floats] = []  # per token
        self.hidden: list[Floats] = []

    def longest(self, choose: Choose) -> int:
        """One token a step, so that its logits can be looked at."""
        return 1

    def extend(self, state: DecoderState, embeds: Floats) -> None:
        """See `LanguageModel.extend`."""
        self.fed.append(np.array(embeds))
        self.reads.append((len(self.fed), len(self.ids)))
        self._model.extend(state, embeds)

    def decode_many(self, requests: Sequence[DecodeRequest], enough: Enough | None = None) -> list[Tokens]:
        """See `LanguageModel.decode_many`."""
        found = self._model.decode_many(requests, enough)
        for request, tokens in zip(requests, found, strict=True):
            if request.feed is not None:
                self.fed.append(self.embed([request.feed]))
            self.ids += tokens.ids
            self.logits.append(request.state.logits.copy())
            self.hidden.append(request.state.hidden.copy())
        return found


def run_turn(
    engine: Engine,
    prompt: Floats,
    options: Options,
    forced: Mapping[Stream, Sequence[int]] | None = None,
    eos: tuple[int, ...] | None = None,
) -> AnsweredTurn:
    """Answer a prompt.

    Args:
        prompt: (n, hidden) float32 input embeddings.
        options: how tokens are chosen, and how many at most.
        forced: ids the turn goes on with in place of those chosen; behind them, the end token (teacher forcing).
        eos: ids that end the text instead of the model's own.
    """
    p = engine.pipeline
    text, speech = _Recorded(p.llm), _Recorded(p.speech_lm)
    llm, speech_lm = cast(LanguageModel, text), cast(LanguageModel, speech)
    config = p.config
    if eos is not None:
        config = config.model_copy(update={"tokens": config.tokens.model_copy(update={"eos": eos})})
    pipeline = replace(p, config=config, llm=llm, speech_lm=speech_lm)
    ends = {Stream.TEXT: config.tokens.eos[0], Stream.SPEECH: config.tokens.speech_eos}

    def end_behind(stream: Stream, generated: list[int], chosen: int) -> int:
        return chosen if len(generated) < len((forced or {})[stream]) else ends[stream]

    question = Question(_layout_of(prompt), None, options, steer=None if forced is None else end_behind, forced=forced)
    positions = pipeline.speech_positions(options.max_new_tokens, options.max_last_write)
    states = TurnStates(p.speech_lm.new_state(positions), p.decoder.new_state(engine.voice_features(None)), 0.0, 0.0, 0)
    schedule = InlineSchedule(StageCalls(llm, speech_lm))
    history = History(exchanges=[Exchange()], fed=[0])  # something is fed, so that no other prefix is put in front
    state = p.llm.new_state(len(prompt) + options.max_new_tokens)
    queue = schedule.open(_raise, options.run_ahead)
    output = ChunkQueue(float("inf"), queue.hold)
    prefixes = PrefixCache(p.llm, engine.prompts)
    run = TurnRun(pipeline, prefixes, history, state, states, question, queue, output, Recorder(0), Playout())
    queue.begin()
    run.begin()
    while queue.run_step():
        pass
    return _record(run, history, text, speech, output)


def _record(run: TurnRun, history: History, text: _Recorded, speech: _Recorded, output: ChunkQueue) -> AnsweredTurn:
    """What the models and the turn have kept."""
    turn = AnsweredTurn(text.ids, text.logits, text.hidden, units=run.units, speech_logits=speech.logits)
    totals = [0, *(total for _, total in history.rounds)]
    turn.reads = [after - before for before, after in pairwise(totals)]
    stops = [*(tokens for _, tokens in speech.reads[1:]), len(speech.ids)]
    for (_, start), stop in zip(speech.reads, stops, strict=True):
        turn.writes.append(speech.ids[start:stop])
    turn.contexts = [sum(len(part) for part in speech.fed[:parts]) for parts, _ in speech.reads]
    turn.last_context = np.concatenate(speech.fed[: speech.reads[-1][0]])
    chunks = []
    while (chunk := output.get(timeout=0)) is not None:
        chunks.append(chunk.pcm)
    turn.pcm = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
    return turn


def _layout_of(prompt: Floats) -> Layout:
    """A prompt of given vectors alone."""
    exchange = Exchange(speech=prompt)
    return Layout(list(exchange.items()), [exchange])


def _raise(error: BaseException) -> None:
    raise error


def greedy(repetition_penalty: float = 1.0) -> Sampling:
    """The engine's own greedy choice."""
    return Sampling(temperature=0.0, repetition_penalty=repetition_penalty)
