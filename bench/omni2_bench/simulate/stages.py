"""Stages that make counts and no arrays: a pipeline for `TurnRun` whose calls take time on a virtual clock.

A language model's tokens are all the same one until the answer ends; hidden states and mel frames are arrays of no
width, sound is one number that stands for all its samples. What each call was asked decides how long it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import greenlet
import numpy as np
from numpy.typing import NDArray

from omni2_bench.simulate.device import DeviceLimits, Effort
from omni2_bench.simulate.model import SimulatedModel
from omni2_engine.backends.base.decode_request import DecodeRequest, Tokens
from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES
from omni2_engine.sampling import Choose
from omni2_engine.schedule.calls import Errors, StageCalls, Task
from omni2_engine.stages.pipeline import Pipeline
from omni2_engine.text.units import NO_UNIT, UnitTable

Floats = NDArray[np.float32]
END, TOKEN = 0, 1  # the ids there are: one ends speech, the other is a piece of text or a unit
MOST_TOKENS = 1024  # speech tokens: a device writes as far as the plan lets it
Extend = Callable[[Sequence[tuple[int, int]]], Effort]  # (positions to feed, positions held) per turn → effort


class StageCall:
    """A call of the scheduler under way: suspended while its stage takes time, as a thread waits for a device.

    Args:
        calls: of the stages.
        tasks: that the call serves.
    """

    def __init__(self, calls: StageCalls, tasks: list[Task]) -> None:
        self._work = greenlet.greenlet(partial(calls.call, tasks))

    def begin(self) -> float:
        """Run until the stage is asked; the seconds that it takes."""
        return float(self._work.switch())

    def end(self) -> Errors:
        """The time is over: take the stage's results. What each task raised, or None."""
        found = self._work.switch()
        while not self._work.dead:  # a further piece of work of the same call, which takes no time
            assert found == 0
            found = self._work.switch()
        errors: Errors = found
        return errors


def take_time(seconds: float) -> None:
    """Let virtual time pass: suspends the call that runs until it is over."""
    greenlet.getcurrent().parent.switch(seconds)


@dataclass
class ModelState:
    """A language model's context: stands for a `DecoderState`.

    Args:
        tokens: that the model chooses before it ends.
        length: positions held.
    """

    tokens: int
    length: int = 0

    def truncate(self, length: int) -> None:
        """See `DecoderState`."""
        self.length = length


@dataclass
class SoundState:
    """What flow and vocoder have seen of a turn: stands for a `SpeechState`."""

    units: int = 0
    frames: int = 0
    samples: int = 0


class TimedLanguageModel:
    """Stands for a `LanguageModel`, and for the fusion before it.

    Args:
        limits: of the device.
        extend: effort of a call.
        fuse: effort of fusing pairs.
        longest: tokens in one step at most.
    """

    def __init__(
        self, limits: DeviceLimits, extend: Extend, fuse: Callable[[Sequence[int]], Effort], longest: int
    ) -> None:
        self._limits = limits
        self._extend = extend
        self._fuse = fuse
        self._fused = Effort(0, 0)  # by the call that runs
        self._longest = longest

    def longest(self, choose: Choose) -> int:
        """See `LanguageModel.longest`."""
        return self._longest

    def embed(self, ids: Sequence[int]) -> Floats:
        """(n, 0) for n ids."""
        return np.zeros((len(ids), 0), np.float32)

    table = embed

    def fusion(self, hidden: Floats, embeds: Floats) -> Floats:
        """Fuse n pairs (n, 0); the time it takes is part of the `extend` that follows."""
        self._fused = self._fuse([len(hidden)])
        return embeds

    def extend(self, state: ModelState, embeds: Floats) -> None:
        """Feed n positions (n, 0)."""
        effort, self._fused = self._extend([(len(embeds), state.length)]) + self._fused, Effort(0, 0)
        take_time(self._limits.seconds(effort))
        state.length += len(embeds)

    def decode_many(self, requests: Sequence[DecodeRequest], enough: Callable[[], bool] | None = None) -> list[Tokens]:
        """Choose tokens, a call for each but those that follow from what was fed last.

        The device does not know where a turn ends: it computes what was asked.
        """
        states: list[Any] = [request.state for request in requests]
        calls = [request.tokens - (request.feed is None) for request in requests]
        rows = [
            [(1, state.length + call) for state, most in zip(states, calls, strict=True) if call < most]
            for call in range(max(calls))
        ]
        take_time(sum(self._limits.seconds(self._extend(row)) for row in rows))
        found = []
        for request, state in zip(requests, states, strict=True):
            left = state.tokens - len(request.generated)
            ids = [TOKEN] * min(request.tokens, left) + [END] * (left < request.tokens)
            state.length += len(ids) - (request.feed is None)
            found.append(Tokens(ids, [np.zeros(0, np.float32)] * len(ids) if request.hidden else []))
        return found


class TimedDecoder:
    """Stands for a `SpeechDecoder`: units → mel frames (n, 0) → samples."""

    def __init__(self, model: SimulatedModel, limits: DeviceLimits) -> None:
        self._sound = model.sound
        self._efforts = model.efforts
        self._limits = limits
        self._hop = model.efforts.config.vocoder.hop
        units = model.efforts.config.flow_encoder
        self._most_first = units.block_units + units.lookahead  # of a call without state, see `FirstBlock`
        self.fewest_units = model.hop

    def run_flow(self, state: SoundState, units: list[int], final: bool) -> Floats:
        """See `SpeechDecoder.run_flow`: computes the frames of all blocks that are not finished."""
        sound, before = self._sound, state.units
        state.units += len(units)
        frames, finished = sound.frames(state.units, final), sound.finished(before)
        first = not finished and (final or not sound.finished(state.units)) and state.units <= self._most_first
        take_time(self._limits.seconds(self._efforts.flow([(frames - finished, finished)], first)))
        return np.zeros((frames - sound.frames(before, False), 0), np.float32)

    def run_vocoder(self, state: SoundState, mel: Floats, final: bool, seed: int, turn: int) -> Floats:
        """See `SpeechDecoder.run_vocoder`."""
        overlap = VOCODER_OVERLAP_FRAMES if state.frames else 0
        take_time(self._limits.seconds(self._efforts.vocode([len(mel) + overlap])))
        state.frames += len(mel)
        begin, held_back = state.samples, 0 if final else VOCODER_OVERLAP_FRAMES
        state.samples = max(state.frames - held_back, 0) * self._hop
        return np.broadcast_to(np.float32(0), state.samples - begin)


class EmptyTokenizer:
    """Stands for a `TextTokenizer` whose tokens have no characters."""

    def token_bytes(self, token_id: int, skip_special: bool = True) -> bytes:
        """See `TextTokenizer.token_bytes`."""
        return b""


class KeptPrefix:
    """Stands for a `PrefixCache` that holds the beginning of all prompts: the turn that warms an engine up leaves it.

    Args:
        positions: of the beginning.
    """

    def __init__(self, positions: int) -> None:
        self._positions = positions

    def fill(self, state: ModelState, layout: object, system: str | None) -> int:
        """See `PrefixCache.fill`."""
        state.length = self._positions
        return self._positions


def pipeline_of(model: SimulatedModel, limits: DeviceLimits) -> Pipeline:
    """All stages of a model on a device."""
    efforts = model.efforts
    positions = efforts.config.encoder.positions
    tokenizer: Any = EmptyTokenizer()
    # text comes token by token, since others may come in between any two
    llm: Any = TimedLanguageModel(limits, efforts.extend_llm, efforts.fuse, longest=1)
    speech_lm: Any = TimedLanguageModel(limits, efforts.extend_speech, efforts.fuse, MOST_TOKENS)
    decoder: Any = TimedDecoder(model, limits)

    def run_frontend(waveform: Floats) -> Floats:
        return waveform  # its time is part of the encoder's

    def run_encoder(log_mel: Floats) -> Floats:
        take_time(limits.seconds(efforts.encode))
        return np.zeros((positions, 0), np.float32)

    frontend: Any = run_frontend
    encoder: Any = run_encoder
    units = UnitTable(np.array([NO_UNIT, 0], np.int32), tokenizer)
    config, fusion = efforts.config, speech_lm.fusion
    return Pipeline(config, tokenizer, frontend, encoder, llm, fusion, speech_lm, units, decoder)
