"""Single golden calls of the speech decoder's modules (`decoder_units.npz`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.graph import Graph
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.engine import Engine
from omni2_engine.stages.flow_solver import FlowSolver
from omni2_engine.stages.flow_window import block_mask
from omni2_export.inspection import open_cut
from omni2_export.speaker import fbank
from omni2_export.verify.compare import FileComparison
from omni2_export.verify.goldens import FIT, Golden, GoldenError
from omni2_export.verify.tolerances import DEVIATION, DRIVEN_WAVE, EXACT, HERTZ, SIGNAL

Floats = NDArray[np.float32]
INSIDE = {  # golden name → value in the graph
    "embed": "embed_out",
    "posemb": "positions",
    "prelook": "prelook_out",
    "layers": "layers_out",
    "up": "up_out",
    "out": "encoded",
    "mu": "mu",
}


def compare_units(engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison) -> None:
    """Every module on its golden input."""
    golden = compare.golden
    _compare_speaker(engine, compare)
    compare.close("t_span", ("flow",), FlowSolver().times(), absolute=EXACT)
    for frames in golden.matches(r"est(\d+)_out"):
        _compare_estimator(engine, backend, compare, f"est{frames}")
    for units in golden.matches(r"enc(\d+)_tok"):
        _compare_encoder(engine, backend, compare, f"enc{units}")
    if "hift_mel" in golden and "hift_s" in golden:
        _compare_vocoder(engine, backend, compare)


def _compare_speaker(engine: Engine, compare: FileComparison) -> None:
    """Filter banks of the voice prompt, and the voice's projection. The network between them is the checkpoint's."""
    golden = compare.golden
    if "prompt_16k" in golden:
        compare.close("fbank_meannorm", ("speaker",), fbank(golden["prompt_16k"][0]), absolute=SIGNAL)
    if "embedding" in golden:
        features = engine.pipeline.decoder.flow.speaker_features(golden["embedding"][0])
        compare.close("spks", ("speaker",), features, absolute=SIGNAL)


def _compare_estimator(engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison, call: str) -> None:
    """Both rows of one call, from the beginning of a turn: nothing cached, nothing committed."""
    golden = compare.golden
    x, mu, speaker, times = (golden[f"{call}_{name}"] for name in ("x", "mu", "spks", "t"))
    frames = x.shape[2]
    spread = np.broadcast_to(speaker[:, :, None], x.shape)
    rows = np.ascontiguousarray(np.concatenate([x, mu, spread], axis=1).transpose(0, 2, 1))
    conditions = backend.load(engine.directory.graph("flow_conditions"))
    silent = np.ones((1, engine.config.estimator.speaker), np.float32)
    shifts = conditions.run({"t": times, "embedding": silent})["shifts"]
    step = open_cut(backend, engine.directory.graph("flow_step"), ["estimator_in"], ["velocities"])
    found = np.empty_like(x)
    for row in range(len(x)):  # a graph run has one point in time, the file one for every row
        inputs = {
            "estimator_in": rows,
            "shifts": shifts[row],
            "mask": block_mask(0, frames, engine.config.flow_encoder.block_frames),
        }
        found[row] = step.run(inputs | fresh_state(step, inputs, {"T": frames}))["velocities"][row].T
    compare.close(f"{call}_out", ("estimator",), found, relative=DEVIATION)


def _compare_encoder(engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison, call: str) -> None:
    golden, config = compare.golden, engine.config.flow_encoder
    units = golden[f"{call}_tok"].astype(np.int64)
    count, frames = units.shape[1], units.shape[1] * config.ratio
    wanted = [name for name in INSIDE if f"{call}_{name}" in golden]
    graph = open_cut(backend, engine.directory.graph("flow_encoder"), [], [INSIDE[name] for name in wanted])
    inputs = {
        "units": units,
        "mask": block_mask(0, count, config.block_units),
        "up_mask": block_mask(0, frames, config.block_frames),
    }
    inputs = {name: array for name, array in inputs.items() if name in graph.inputs}
    outputs = graph.run(inputs | fresh_state(graph, inputs, {"capacity": count, "up_capacity": frames}))
    if "posemb" in wanted:  # the graph's table begins with a position that no key has
        outputs["positions"] = outputs["positions"][:, 1:]
    for name in wanted:
        compare.close(f"{call}_{name}", ("flow_encoder",), outputs[INSIDE[name]], relative=DEVIATION)


def _compare_vocoder(engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison) -> None:
    golden = compare.golden
    outputs = ["wav", "f0", "stft_real", "stft_imag"]
    graph = open_cut(backend, engine.directory.graph("vocoder"), [], outputs)
    found = drive_vocoder(graph, engine, golden, "hift_mel", "hift_s")
    compare.close("hift_f0", ("vocoder",), found["f0"], absolute=HERTZ)
    compare.close("hift_stft_real", ("vocoder",), found["stft_real"], absolute=SIGNAL)
    compare.close("hift_stft_imag", ("vocoder",), found["stft_imag"], absolute=SIGNAL)
    compare.close("hift_wav", ("vocoder",), found["wav"], absolute=DRIVEN_WAVE)


def drive_vocoder(
    graph: Graph, engine: Engine, golden: Golden, mel: str, source: str
) -> dict[str, NDArray[np.generic]]:
    """Run the vocoder graph, or a part of it, on a golden mel with the whole golden source given."""
    check_source(engine, golden, source, golden[mel].shape[2])
    sines, samples = engine.config.vocoder.harmonics + 1, golden[source].shape[2]
    inputs = {
        "mel": np.ascontiguousarray(golden[mel]),
        "phase": np.zeros((1, sines, 1), np.float32),
        "noise": np.zeros((1, sines, samples), np.float32),
        "source_cache": np.ascontiguousarray(golden[source]),
    }
    return graph.run(inputs)


def check_source(engine: Engine, golden: Golden, source: str, frames: int) -> None:
    """Refuse a source (1, 1, samples) whose length does not fit this number of mel frames."""
    samples = frames * engine.config.vocoder.hop
    if golden[source].shape[2] != samples:
        found = golden[source].shape[2]
        raise GoldenError(f"{golden.path}: {source} has {found} samples where {frames} frames take {samples}", FIT)


def fresh_state(
    graph: Graph, inputs: dict[str, NDArray[np.generic]], sizes: dict[str, int]
) -> dict[str, NDArray[np.generic]]:
    """Zeros for every input of a flow graph that `inputs` lacks: state before the first unit, `write` and `commit`.

    Args:
        sizes: lengths of the symbolic dimensions.
    """
    shapes = {name: shape for name, shape in graph.inputs.items() if name not in inputs}
    return {
        name: np.zeros(
            [sizes[size] if isinstance(size, str) else int(size or 0) for size in shape],
            graph.dtypes[name],
        )
        for name, shape in shapes.items()
    }
