"""Golden turns and streams through `Session.stream`, as a user runs it: inline, and on the scheduler's threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.engine import Engine
from omni2_engine.memory.budget import Admission, MemoryBudget
from omni2_engine.memory.states import StatePool
from omni2_engine.model.config import WHISPER_SAMPLE_RATE
from omni2_engine.sampling import Stream
from omni2_engine.schedule.base import Schedule
from omni2_engine.schedule.calls import StageCalls
from omni2_engine.schedule.inline import InlineSchedule
from omni2_engine.schedule.threaded import ThreadedSchedule
from omni2_engine.sessions.runtime import Runtime
from omni2_engine.sessions.session import Session
from omni2_engine.sessions.waiting_turns import WaitingTurns
from omni2_engine.stages.flow import Flow
from omni2_engine.stages.pipeline import Pipeline
from omni2_engine.stages.speech_decoder import SpeechDecoder, SpeechState
from omni2_engine.stages.vocoder import Vocoder
from omni2_engine.text.units import units_of_text
from omni2_engine.turn.options import Options
from omni2_engine.turn.playout import Playout
from omni2_engine.turn.prefix import PrefixCache
from omni2_export.verify.compare import FileComparison
from omni2_export.verify.goldens import Golden
from omni2_export.verify.tolerances import STREAMED_WAVE
from omni2_export.verify.turn import greedy

Floats = NDArray[np.float32]
SCHEDULES = ("inline", "threaded")
ROOM = 1 << 60  # bytes: nothing is refused here
TURN, SOUND = ("session", "llm", "speech_lm", "fusion", "encoder"), ("session", "flow", "vocoder", "sound")


@dataclass(frozen=True)
class GivenSources(SpeechDecoder):
    """The engine's flow and vocoder, the source of every vocoder call given (1, 1, samples)."""

    sources: tuple[Floats, ...] = ()

    def run_vocoder(self, state: SpeechState, mel: Floats, final: bool, seed: int, turn: int) -> Floats:
        """See `SpeechDecoder.run_vocoder`."""
        state.vocoder.source = np.ascontiguousarray(self.sources[state.calls][0, 0])
        return super().run_vocoder(state, mel, final, seed, turn)


@dataclass(frozen=True)
class GivenVoice:
    """In place of the stored voices: one that a golden file holds, (1, mel) float32."""

    vector: Floats

    def names(self) -> list[str]:
        """It has no name."""
        return []

    def features(self, voice: str | None) -> Floats:
        """See `Voices.features`."""
        return self.vector


def compare_heard(engine: Engine, compare: FileComparison) -> None:
    """A spoken turn from its samples to its ids and units, greedy."""
    golden, tokens = compare.golden, engine.config.tokens
    if not all(name in golden for name in ("audio16k_i16", "g_text_ids", "g_tts_tokens", "g_group_unit_len")):
        return
    options = Options(
        text_sampling=greedy(tokens.repetition_penalty),
        speech_sampling=greedy(),
        max_new_tokens=len(golden.ids("g_text_ids")),
        max_last_write=golden.ids("g_group_unit_len")[-1],
        long="truncate",
    )
    audio = golden["audio16k_i16"].astype(np.int16)
    for schedule in SCHEDULES:
        chosen: dict[Stream, list[int]] = {Stream.TEXT: [], Stream.SPEECH: []}

        def note(stream: Stream, generated: list[int], token: int, chosen: dict[Stream, list[int]] = chosen) -> int:
            chosen[stream].append(token)
            return token

        with _session(engine, engine.pipeline, schedule, options) as session:
            chunks = list(session.stream(audio, sample_rate=WHISPER_SAMPLE_RATE, steer=note))
        found = {"g_text_ids": chosen[Stream.TEXT], "g_tts_tokens": chosen[Stream.SPEECH]}
        for name, ids in found.items():
            compare.comparison.same(golden.name, f"{name} ({schedule})", TURN, ids, golden.ids(name))
        if "g_units_string" in golden:
            known = engine.config.flow_encoder.units
            units = [unit for unit in units_of_text(golden.text("g_units_string")) if unit < known]
            voiced = [chunk.units for chunk in chunks[-1:]] or [0]
            compare.comparison.same(golden.name, f"g units voiced ({schedule})", TURN, voiced, [len(units)])


def compare_spoken(
    engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison, goldens: Mapping[str, Golden]
) -> None:
    """A stream's units as a turn's speech tokens: its sound, for the golden source, chunk by chunk.

    The whole source of a call is given, which the CPU's vocoder graph alone takes in any length: `backend` runs it.
    """
    golden, schedule = compare.golden, compare.golden.ids("schedule")
    sources = tuple(golden[f"c{k}_source"] for k in range(len(schedule)) if f"c{k}_source" in golden)
    ids = _tokens_of(engine, golden.ids("units"))
    file = goldens.get("decoder_units")
    if ids is None or file is None or len(sources) < len(schedule) or not _is_own(engine, schedule):
        return  # a turn never makes these calls
    pipeline = replace(engine.pipeline, decoder=_given(engine, backend, file, sources))
    rounds, write = len(schedule), engine.config.write
    text = [id for id in range(500) if id not in engine.config.tokens.eos][: engine.config.read * (rounds - 1) + 1]
    options = Options(max_new_tokens=len(text), max_last_write=max(len(ids) - write * (rounds - 1), 1))
    voice = GivenVoice(file["spks"] if "spks" in file else pipeline.decoder.flow.speaker_features(file["embedding"][0]))
    for name in SCHEDULES:
        with _session(engine, pipeline, name, options, voice) as session:
            forced = {Stream.TEXT: text, Stream.SPEECH: ids}
            pieces = [chunk.pcm for chunk in session.stream(text="a", forced=forced)]
        for k, pcm in enumerate(pieces):
            if f"c{k}_wav" in golden:
                compare.comparison.close(
                    golden.name, f"c{k}_wav ({name})", SOUND, pcm[None], golden[f"c{k}_wav"], absolute=STREAMED_WAVE
                )
        compare.comparison.same(golden.name, f"calls ({name})", SOUND, [len(pieces)], [len(schedule)])


def _given(engine: Engine, backend: OnnxRuntimeBackend, file: Golden, sources: tuple[Floats, ...]) -> GivenSources:
    """The engine's decoder with golden noise and sources."""
    decoder = engine.pipeline.decoder
    flow = _with_noise(decoder.flow, np.ascontiguousarray(file["rand_noise"][0].T))
    vocoder = Vocoder(backend.open(engine.directory, "vocoder"), engine.config.vocoder)
    return GivenSources(flow, vocoder, decoder.config, sources)


def _with_noise(flow: Flow, noise: Floats) -> Flow:
    """The same flow, starting from other noise (frames, mel)."""
    other = Flow.__new__(Flow)
    other.__dict__ |= flow.__dict__ | {"noise": noise}
    return other


def _is_own(engine: Engine, schedule: list[int]) -> bool:
    """Whether a turn calls the flow with these units: W and again W, and a rest at its end."""
    write, fewest = engine.config.write, engine.pipeline.decoder.fewest_units
    return write >= fewest and set(schedule[:-1]) <= {write} and 0 < schedule[-1] < write


def _tokens_of(engine: Engine, units: list[int]) -> list[int] | None:
    """Speech tokens that say these units; None if one has no token of its own."""
    table = engine.pipeline.unit_table.table
    by_unit = {int(unit): token for token, unit in reversed(list(enumerate(table.tolist())))}
    found = [by_unit.get(unit) for unit in units]
    return None if None in found else [token for token in found if token is not None]


@contextmanager
def _session(
    engine: Engine, pipeline: Pipeline, name: str, options: Options, voice: GivenVoice | None = None
) -> Iterator[Session]:
    """A session of its own, on stages that may be others than the engine's."""
    own = engine.runtime
    positions = pipeline.speech_positions(options.max_new_tokens, options.max_last_write)
    states = StatePool(
        pipeline.llm,
        pipeline.speech_lm,
        pipeline.decoder,
        1,
        own.max_context,
        pipeline.speech_lm.fitting(positions),
        MemoryBudget(ROOM),
        Admission.REFUSE,
    )
    calls = StageCalls(pipeline.llm, pipeline.speech_lm)
    schedules: dict[str, Callable[[], Schedule]] = {
        "inline": lambda: InlineSchedule(calls),
        "threaded": lambda: ThreadedSchedule(calls, states.key, 1, engine.backend.width),
    }
    runtime = Runtime(
        pipeline,
        own.prompts,
        PrefixCache(pipeline.llm, own.prompts),
        own.voices if voice is None else voice,
        own.listener,
        states,
        schedules[name](),
        WaitingTurns(),
        Playout(),
        own.max_context,
        own.max_speech,
    )
    try:
        with Session(runtime, options) as session:
            yield session
    finally:
        runtime.close()
