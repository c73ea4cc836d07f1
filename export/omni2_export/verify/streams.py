"""Golden streams: flow and vocoder stages on the given schedule, units to sound (`stream_*.npz`, `offline_*.npz`)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.engine import Engine
from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES
from omni2_engine.stages.flow import FlowState
from omni2_engine.stages.vocoder import Vocoder, VocoderState
from omni2_export.inspection import open_cut
from omni2_export.verify.compare import FileComparison
from omni2_export.verify.decoder import check_source, drive_vocoder
from omni2_export.verify.goldens import REMAKE, Golden, GoldenError
from omni2_export.verify.tolerances import DRIVEN_WAVE, HERTZ, MEL_DEVIATION, SIGNAL, STREAMED_WAVE

Floats = NDArray[np.float32]
FLOW, SOUND = ("flow",), ("vocoder", "sound")


class _Decoder:
    """The engine's flow and vocoder with their state, fed golden noise and sources.

    Args:
        engine: whose flow.
        backend: runs the vocoder.
        units: the `decoder_units` file: noise and voice.
    """

    def __init__(self, engine: Engine, backend: OnnxRuntimeBackend, units: Golden) -> None:
        flow = engine.pipeline.decoder.flow
        noise = np.ascontiguousarray(units["rand_noise"][0].T)
        speaker = units["spks"] if "spks" in units else flow.speaker_features(units["embedding"][0])
        self._flow = flow
        # its whole source is given, which the CPU's graph alone takes in any length
        self._vocoder = Vocoder(backend.open(engine.directory, "vocoder"), engine.config.vocoder)
        self._sines = engine.config.vocoder.harmonics + 1
        self.flow_state: FlowState = flow.new_state(speaker, noise)
        self.vocoder_state: VocoderState = self._vocoder.new_state()
        self.mel: Floats = np.zeros((0, engine.config.vocoder.mel), np.float32)  # of all units so far

    def flow(self, units: list[int], final: bool) -> tuple[Floats, Floats]:
        """Feed units: the mel of all so far (t, mel) and the frames (f, mel) that are new."""
        output = self._flow.step(self.flow_state, units, final)
        self.mel = np.concatenate([self.mel[: output.start], output.mel])
        return self.mel, output.new_mel

    def run_vocoder(self, new_mel: Floats, source: Floats, final: bool) -> Floats:
        """Sound of new frames driven by the golden source (1, 1, samples)."""
        self.vocoder_state.source = np.ascontiguousarray(source[0, 0])
        return self._vocoder.step(self.vocoder_state, new_mel, self._no_draws, final)

    def _no_draws(self, samples: int) -> tuple[Floats, Floats]:
        return np.zeros(self._sines, np.float32), np.zeros((self._sines, samples), np.float32)


def compare_stream(
    engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison, goldens: Mapping[str, Golden]
) -> None:
    """A stream call by call: units in the file's schedule, the last call final."""
    golden = compare.golden
    schedule, units = golden.ids("schedule"), golden.ids("units")
    if min(schedule, default=-1) < 0 or sum(schedule) != len(units):
        raise GoldenError(f"{golden.path}: the schedule {schedule} does not add up to {len(units)} units", REMAKE)
    decoder = _Decoder(engine, backend, _units_file(goldens, golden))
    single = _SingleCalls(engine, backend, compare)
    start, heard, driven = 0, [], True
    for k, count in enumerate(schedule):
        final = k + 1 == len(schedule)
        mel, new_mel = decoder.flow(units[start : start + count], final)
        start += count
        compare.close(f"c{k}_mel_full", FLOW, mel.T[None], relative=MEL_DEVIATION)
        compare.same(f"c{k}_token_offset_after", FLOW, decoder.flow_state.emitted)
        vocoder_mel = np.concatenate([decoder.vocoder_state.mel, new_mel])
        compare.close(f"c{k}_hift_mel_in", FLOW, vocoder_mel.T[None], relative=MEL_DEVIATION)
        single.compare_call(k)
        if not final and len(vocoder_mel) < VOCODER_OVERLAP_FRAMES:
            raise GoldenError(f"{golden.path}: call {k} of the schedule has too few units to be voiced", REMAKE)
        driven = driven and f"c{k}_source" in golden and _drives(golden, f"c{k}_source", vocoder_mel, engine)
        if driven:
            heard.append(decoder.run_vocoder(new_mel, golden[f"c{k}_source"], final))
            compare.close(f"c{k}_wav", SOUND, heard[-1][None], absolute=STREAMED_WAVE)
    if driven and heard:
        compare.close("wav", SOUND, np.concatenate(heard)[None], absolute=STREAMED_WAVE)


def compare_offline(
    engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison, goldens: Mapping[str, Golden]
) -> None:
    """All units in one final call; its source from golden F0 and draws: the phase over a long call."""
    golden = compare.golden
    decoder = _Decoder(engine, backend, _units_file(goldens, golden))
    mel, new_mel = decoder.flow(golden.ids("units"), final=True)
    compare.close("mel_full", FLOW, mel.T[None], relative=MEL_DEVIATION)
    if "source" in golden:
        if "mel_full" in golden:
            vocoder = backend.load(engine.directory.graph("vocoder"))
            outputs = drive_vocoder(vocoder, engine, golden, "mel_full", "source")
            compare.close("f0", ("vocoder",), outputs["f0"], absolute=HERTZ)
        if _drives(golden, "source", mel, engine):
            sound = decoder.run_vocoder(new_mel, golden["source"], final=True)
            compare.close("wav", SOUND, sound[None], absolute=STREAMED_WAVE)
    if all(name in golden for name in ("f0", "phase", "sine_noise")):
        graph = open_cut(backend, engine.directory.graph("vocoder"), ["f0"], ["source"])
        inputs = {"f0": golden["f0"], "phase": golden["phase"], "noise": golden["sine_noise"]}
        source = graph.run(inputs | {"source_cache": np.zeros((1, 1, 0), np.float32)})["source"]
        witness = "source_float64" if "source_float64" in golden else "source"
        compare.close(witness, ("vocoder",), source, absolute=SIGNAL)


class _SingleCalls:
    """Vocoder calls of a stream on golden mel: what must hold for any mel."""

    def __init__(self, engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison) -> None:
        self._engine = engine
        self._compare = compare
        path = engine.directory.graph("vocoder")
        self._vocoder = backend.load(path)
        self._source = open_cut(backend, path, ["f0"], ["source"])

    def compare_call(self, k: int) -> None:
        """F0 and waveform from the golden mel and source, the source from golden F0 and draws."""
        golden, compare = self._compare.golden, self._compare
        mel, source = f"c{k}_hift_mel_in", f"c{k}_source"
        if mel in golden and source in golden:
            outputs = drive_vocoder(self._vocoder, self._engine, golden, mel, source)
            compare.close(f"c{k}_f0", ("vocoder",), outputs["f0"], absolute=HERTZ)
            compare.close(f"c{k}_wav_raw", ("vocoder",), outputs["wav"], absolute=DRIVEN_WAVE)
        needed = [f"c{k}_{name}" for name in ("f0", "phase", "sine_noise", "source")]
        before = f"c{k - 1}_source"
        if all(name in golden for name in needed) and (k == 0 or before in golden):
            check_source(self._engine, golden, source, golden[f"c{k}_f0"].shape[1])
            overlap = self._engine.config.vocoder.overlap
            cached = golden[before][:, :, -overlap:] if k else np.zeros((1, 1, 0), np.float32)
            inputs = {
                "f0": golden[f"c{k}_f0"],
                "phase": golden[f"c{k}_phase"],
                "noise": golden[f"c{k}_sine_noise"],
                "source_cache": np.ascontiguousarray(cached),
            }
            compare.close(source, ("vocoder",), self._source.run(inputs)["source"], absolute=SIGNAL)


def _drives(golden: Golden, name: str, vocoder_mel: Floats, engine: Engine) -> bool:
    """Whether a golden source is as long as our frames need; where not, the mel's row has missed already."""
    return bool(golden[name].shape[2] == len(vocoder_mel) * engine.config.vocoder.hop)


def _units_file(goldens: Mapping[str, Golden], asking: Golden) -> Golden:
    if "decoder_units" not in goldens:
        raise GoldenError(
            f"{asking.path} needs decoder_units.npz beside it for the solver's noise", "copy the folder whole"
        )
    return goldens["decoder_units"]
