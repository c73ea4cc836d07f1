"""How long flow and vocoder take for several turns in one call, and one after the other; imported by workers only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omni2_bench.script import units_per_chunk
from omni2_engine.backends.onnxruntime import OnnxRuntimeBackend
from omni2_engine.config import VOCODER_OVERLAP_FRAMES
from omni2_engine.manifest import EngineDirectory
from omni2_engine.speech_decoder import SpeechDecoder, load_decoder
from omni2_engine.stages.flow import FlowState
from omni2_engine.stages.vocoder import VocoderCall, VocoderState

PLACES = 4  # different numbers of chunks that turns have behind them
Times = dict[str, dict[str, list[float]]]


def measure_decoder_batching(engine: str, sizes: list[int], rounds: int, threads: int) -> dict[str, Any]:
    """Time calls of flow and vocoder, all kinds of them in every round.

    Args:
        engine: directory.
        sizes: turns in a call.
        rounds: how often.
        threads: processor threads.

    Returns:
        `stage` → `size` → seconds of every round, `together` and `alone`. Stages: `flow_first` is a first chunk of
        every turn, `flow_later` a chunk of turns that have come differently far, `vocoder` a chunk in the middle. A
        stage that this engine makes alone is left out.
    """
    directory = EngineDirectory(Path(engine))
    decoder = load_decoder(directory, OnnxRuntimeBackend(threads, shares_decoder_calls=True), sessions=max(*sizes, 2))
    measured: dict[str, Callable[[int], dict[str, float]]] = {}
    if decoder.flow.most_at_once > 1:
        chunk = units_per_chunk(directory.manifest.model)
        measured["flow_first"] = _Mel(decoder, chunk, max(sizes), places=1).measure
        measured["flow_later"] = _Mel(decoder, chunk, max(sizes), places=PLACES).measure
    measured["vocoder"] = _Sound(decoder, units_per_chunk(directory.manifest.model)).measure
    times: dict[str, Times] = {name: {str(size): {"together": [], "alone": []} for size in sizes} for name in measured}
    for number in range(rounds + 1):
        for name, measure in measured.items():
            for size in sizes:
                found = measure(size)
                if number:  # the first call of a kind takes memory from the system
                    for kind, seconds in found.items():
                        times[name][str(size)][kind].append(seconds)
    return times


class _Mel:
    """Flow calls of several turns, each of them the same one again and again.

    Args:
        decoder: its flow.
        chunk: units of a call.
        turns: how many there are.
        places: turn i has i % places chunks behind it.
    """

    def __init__(self, decoder: SpeechDecoder, chunk: int, turns: int, places: int) -> None:
        self._flow, self._chunk = decoder.flow, chunk
        random, config = np.random.default_rng(0), decoder.flow.units_config
        voice = self._flow.speaker_features(random.standard_normal(decoder.flow.config.speaker, dtype=np.float32))
        self._turns: list[FlowState] = []
        self._units: list[list[int]] = []
        for turn in range(turns):
            state = self._flow.new_state(voice)
            units = random.integers(0, config.units, chunk * (turn % places + 1)).tolist()
            if turn % places:
                self._flow.step(state, units[:-chunk], final=False)
            self._turns.append(state)
            self._units.append(units[-chunk:])

    def measure(self, size: int) -> dict[str, float]:
        """Seconds of one chunk for so many turns."""
        return {"together": self._seconds(size, size), "alone": self._seconds(size, 1)}

    def _seconds(self, size: int, at_once: int) -> float:
        turns = self._turns[:size]
        before = [_Place.of(state) for state in turns]
        began = time.perf_counter()
        calls = [self._flow.begin(state, units, False) for state, units in zip(turns, self._units, strict=False)]
        for first in range(0, size, at_once):
            self._flow.finish(calls[first : first + at_once])
        seconds = time.perf_counter() - began
        for place in before:
            place.restore()
        return seconds


@dataclass(frozen=True)
class _Place:
    """How far a turn had come; what its caches hold beyond that will be written again."""

    state: FlowState
    units: int
    done: int
    voiced: int
    contexts: list[dict[str, Any]]

    @classmethod
    def of(cls, state: FlowState) -> _Place:
        contexts = [part.contexts for part in (state.encoder, *state.steps)]
        return cls(state, len(state.units), state.done, state.voiced, contexts)

    def restore(self) -> None:
        """Forget what came since."""
        state = self.state
        del state.units[self.units :]
        state.done, state.voiced = self.done, self.voiced
        for part, contexts in zip((state.encoder, *state.steps), self.contexts, strict=True):
            part.contexts = contexts


class _Sound:
    """Vocoder calls in the middle of several turns."""

    def __init__(self, decoder: SpeechDecoder, chunk: int) -> None:
        self._decoder = decoder
        frames = chunk * decoder.flow.units_config.ratio
        self._mel = np.random.default_rng(0).standard_normal((frames, decoder.config.mel), dtype=np.float32)

    def measure(self, size: int) -> dict[str, float]:
        """Seconds of one chunk for so many turns."""
        return {"together": self._seconds(size, size), "alone": self._seconds(size, 1)}

    def _seconds(self, size: int, at_once: int) -> float:
        vocoder, overlap = self._decoder.vocoder, np.zeros(self._decoder.config.overlap, np.float32)
        began = time.perf_counter()
        calls: list[VocoderCall] = []
        for turn in range(size):
            state = VocoderState(self._mel[:VOCODER_OVERLAP_FRAMES], overlap, overlap)
            calls.append(vocoder.begin(state, self._mel, self._decoder.draws(0, turn, 1), final=False))
        for first in range(0, size, at_once):
            vocoder.finish(calls[first : first + at_once])
        return time.perf_counter() - began
