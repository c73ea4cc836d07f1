"""What graphs of narrower floats compute: rounding, layouts of caches, and what is left of the signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from omni2_bench.lab.probes import DECODED, Material, ask_flow, ask_language_model
from omni2_bench.random_checkpoint import PRESETS, CheckpointPaths, write_checkpoint
from omni2_engine.backends.base.graph import Graph
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.model.config import EstimatorConfig
from omni2_engine.stages.flow import Flow
from omni2_export.build.graphs import GraphSpec, first_block_specs, graph_specs
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.graphs.builder import FLOAT, GraphBuilder, Numerics
from omni2_export.graphs.linear import Precision
from omni2_export.graphs.weights import WeightWriter
from omni2_export.narrow_backend import NarrowBackend
from omni2_export.rounded import rounded
from omni2_export.verify.rows import snr

FLOAT16, BFLOAT16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: CheckpointPaths) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)


@pytest.fixture(scope="module")
def specs(checkpoint: Checkpoint) -> dict[str, GraphSpec]:
    return graph_specs(checkpoint.config, checkpoint.modules, positions=600)


def build(folder: Path, numerics: Numerics, lay: Callable[[GraphBuilder], None]) -> Path:
    with WeightWriter(folder / "graph.weights") as writer:
        g = GraphBuilder("graph", writer, numerics)
        lay(g)
        g.save(folder / "graph.onnx")
    return folder / "graph.onnx"


@pytest.mark.parametrize("compute", [FLOAT16, BFLOAT16])
def test_the_emulation_rounds_every_result(compute: ir.DataType, tmp_path: Path) -> None:
    kind = {FLOAT16: np.dtype(np.float16), BFLOAT16: np.dtype(ml_dtypes.bfloat16)}[compute]
    weight = np.random.default_rng(1).standard_normal((8, 5), np.float32)

    def lay(g: GraphBuilder) -> None:
        x = g.input("x", FLOAT, [3, 8])
        product = g.op("MatMul", x, g.weight("w", weight))
        g.output(g.op("Sigmoid", product), "y", FLOAT, [3, 5])
        with g.precise():
            g.output(g.mul(product, 1 / 3), "z", FLOAT, [3, 5])

    model = rounded(build(tmp_path, Numerics(compute), lay))
    options = ort.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(tmp_path))
    x = np.random.default_rng(2).standard_normal((3, 8), np.float32)
    y, z = ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})

    def narrow(array: np.ndarray) -> np.ndarray:
        return array.astype(kind).astype(np.float32)

    product = narrow(narrow(x) @ narrow(weight))
    assert np.abs(y - narrow(1 / (1 + np.exp(-product)))).max() <= 2 * float(ml_dtypes.finfo(kind).eps)
    assert (y == narrow(y)).all() and (z != narrow(z)).any()
    assert np.allclose(z, product / 3, rtol=1e-6, atol=0)


def test_a_gpus_layout_changes_nothing(checkpoint: Checkpoint, specs: dict[str, GraphSpec], tmp_path: Path) -> None:
    """The layout that TensorRT wants against the CPU's: every output and the caches, over two calls."""
    config, capacity = checkpoint.config.estimator, 48
    heads, width = 2 * config.heads, config.head_dim
    flat, first = (load(specs["flow_step"], tmp_path / str(device), device) for device in (False, True))
    names = [name for name in flat.inputs if "keys" in name or "values" in name]
    caches = {name: np.zeros((1, capacity, heads * width), np.float32) for name in names}
    theirs = {name: np.zeros((1, heads, capacity, 2 * width), np.float32) for name in first.inputs if "keys" in name}
    contexts = np.zeros([int(size or 0) for size in flat.inputs["contexts"]], np.float32)
    place = 0
    for frames in (14, 20):
        seen = place + frames
        random = np.random.default_rng(frames)
        common = {
            **step_inputs(flat, config, frames, random),
            "mask": random.random((1, 1, frames, seen)) < 0.7,
            "write": np.array([place], np.int64),
            "commit": np.array([frames], np.int64),
            "contexts": contexts,
        }
        common["mask"][..., 0] = True
        ours = flat.run({**common, **{name: cache[:, :seen] for name, cache in caches.items()}})
        other = first.run({**common, **theirs})
        assert np.abs(ours["new_z"] - other["new_z"]).max() < 1e-5
        assert np.abs(ours["new_contexts"] - other["new_contexts"]).max() < 1e-5
        for block, name in enumerate(theirs):
            theirs[name] = other[f"new_{name}"]
            for part, kind in enumerate(("keys", "values")):
                cache = caches[f"{kind}_{block}"]
                cache[:, :seen] = ours[f"new_{kind}_{block}"]
                split = cache.reshape(1, capacity, heads, width).transpose(0, 2, 1, 3)
                assert np.abs(theirs[name][..., part * width : (part + 1) * width] - split).max() < 1e-5
        contexts, place = ours["new_contexts"], seen


def test_the_first_step_without_state_is_one_with_empty_state(
    checkpoint: Checkpoint, specs: dict[str, GraphSpec], tmp_path: Path
) -> None:
    config, frames = checkpoint.config.estimator, 22
    stateless = load(first_block_specs(checkpoint.config, checkpoint.modules)["first_flow_step"], tmp_path / "1", True)
    whole = load(specs["flow_step"], tmp_path / "2", False)
    random = np.random.default_rng(5)
    common = {**step_inputs(whole, config, frames, random), "mask": random.random((1, 1, frames, frames)) < 0.7}
    common["mask"][..., 0] = True
    state: dict[str, np.ndarray] = {
        "write": np.array([0], np.int64),
        "commit": np.array([0], np.int64),
        "contexts": np.zeros([int(size or 0) for size in whole.inputs["contexts"]], np.float32),
    }
    shape = (1, frames, 2 * config.heads * config.head_dim)
    caches = {name: np.zeros(shape, np.float32) for name in whole.inputs if "keys" in name or "values" in name}
    expected, found = whole.run({**common, **state, **caches}), stateless.run(common)
    assert sorted(found) == ["new_z", "velocity"]
    for name, array in found.items():
        assert np.abs(array - expected[name]).max() < 1e-5


@pytest.mark.parametrize("name", ["flow_encoder", "first_flow_encoder"])
def test_the_encoder_of_a_gpu_is_the_cpus(
    checkpoint: Checkpoint, specs: dict[str, GraphSpec], tmp_path: Path, name: str
) -> None:
    """With state over two calls, and without for a turn's first units."""
    c, capacity = checkpoint.config.flow_encoder, 24
    graphs = specs | first_block_specs(checkpoint.config, checkpoint.modules)
    ours, theirs = load(specs["flow_encoder"], tmp_path / "1", False), load(graphs[name], tmp_path / "2", True)

    def empty(graph: Graph) -> dict[str, np.ndarray]:
        kept = {key: shape for key, shape in graph.inputs.items() if f"new_{key}" in graph.outputs}
        lengths = {"capacity": capacity, "up_capacity": c.ratio * capacity}
        return {
            key: np.zeros([size if isinstance(size, int) else lengths[str(size)] for size in shape], np.float32)
            for key, shape in kept.items()
        }

    states = [empty(graph) for graph in (ours, theirs)]
    random, place = np.random.default_rng(6), 0
    for count in (11,) if name.startswith("first") else (11, 7):
        seen = place + count
        asked = {
            "units": random.integers(c.units, size=(1, count)),
            "write": np.array([place], np.int64),
            "commit": np.array([count], np.int64),
            "present": np.ones((1, count, 1), np.float32),
            "mask": random.random((1, 1, count, seen)) < 0.7,
            "up_mask": random.random((1, 1, c.ratio * count, c.ratio * seen)) < 0.7,
        }
        asked["mask"][..., 0] = asked["up_mask"][..., 0] = True
        results = [
            graph.run({key: array for key, array in {**asked, **state}.items() if key in graph.inputs})
            for graph, state in zip((ours, theirs), states, strict=True)
        ]
        assert np.abs(results[0]["mu"] - results[1]["mu"]).max() < 1e-5
        states = [{key: result[f"new_{key}"] for key in state} for state, result in zip(states, results, strict=True)]
        place = seen


def load(spec: GraphSpec, folder: Path, device: bool) -> Graph:
    """A graph in float32, as for a CPU or as for a GPU."""
    folder.mkdir()
    return OnnxRuntimeBackend(1).load(spec.write(folder, Precision.FP32, Numerics(doubles=False, device=device)))


def step_inputs(graph: Graph, config: EstimatorConfig, frames: int, random: np.random.Generator) -> dict[str, Any]:
    """What every step is given beside its state and its mask."""
    return {
        "z": random.standard_normal((1, frames, config.mel), np.float32),
        "mu": random.standard_normal((1, frames, config.mel), np.float32),
        "speaker": random.standard_normal((1, config.mel), np.float32),
        "shifts": random.standard_normal([int(size or 0) for size in graph.inputs["shifts"]], np.float32),
        "move": np.array([0.1, -0.02], np.float32),
        "velocity_before": random.standard_normal((1, frames, config.mel), np.float32),
    }


class Graphs(Mapping[str, Graph]):
    """A checkpoint's graphs at one precision, built when they are asked for."""

    def __init__(self, specs: Mapping[str, GraphSpec], folder: Path, numerics: Numerics | None, emulated: bool) -> None:
        self._specs, self._folder, self._numerics = specs, folder, numerics
        self._backend = OnnxRuntimeBackend(1) if numerics is None else NarrowBackend(1, emulated)

    def __getitem__(self, name: str) -> Graph:
        return self._backend.load(self._specs[name].write(self._folder, Precision.FP32, self._numerics))

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)


SHAPES = {
    "tiny": {},
    "wide": {"width": 96, "heads": 4, "head_dim": 40, "transformers": 2, "mid_blocks": 1},
    "deep": {"width": 32, "heads": 2, "head_dim": 16, "transformers": 1, "mid_blocks": 6},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_flow_in_float16_keeps_40_db(shape: str, tmp_path: Path) -> None:
    """All Euler steps of two calls, caches in float16, over random checkpoints of several dimensions."""
    dimensions = PRESETS["tiny"].changed(estimator=SHAPES[shape])
    paths = write_checkpoint(tmp_path / "checkpoint", dimensions, seed=7)
    opened = open_checkpoint(paths.model, decoder=paths.decoder)
    specs = graph_specs(opened.config, opened.modules)
    for name in ("fp32", "fp16", "rounded"):
        (tmp_path / name).mkdir()
    exact = Graphs(specs, tmp_path / "fp32", None, False)
    material = Material(opened, exact, np.zeros(1, np.float32), seed=0)
    expected = ask_flow(material, exact)
    half = Numerics(FLOAT16, doubles=False)
    for name, emulated in (("fp16", False), ("rounded", True)):
        found = ask_flow(material, Graphs(specs, tmp_path / name, half, emulated))
        for array, floor in (("mu", 50.0), ("mel", 40.0)):
            assert snr(found[array].astype(np.float64), expected[array].astype(np.float64)) >= floor, (name, array)


def test_the_flow_of_goldens_in_float16(shared: Path, tmp_path: Path) -> None:
    """Against the original's own mel: all units in one call, and streamed."""
    tiny = shared / "checkpoints" / "tiny"
    opened = open_checkpoint(
        tiny / "omni2_tiny", decoder=tiny / "cosy2_decoder", speech_encoder=tiny / "speech_encoder" / "large-v3.pt"
    )
    graphs = Graphs(graph_specs(opened.config, opened.modules), tmp_path, Numerics(FLOAT16, doubles=False), True)
    c = opened.config
    with np.load(shared / "goldens" / "decoder_units.npz") as arrays:
        noise, embedding = np.ascontiguousarray(arrays["rand_noise"][0].T), arrays["embedding"][0]
    flow = Flow(
        graphs["flow_encoder"], graphs["flow_step"], graphs["flow_conditions"], c.flow_encoder, c.estimator, noise
    )
    speaker = flow.speaker_features(embedding)
    for name in ("offline_C", "stream_C"):
        with np.load(shared / "goldens" / f"{name}.npz") as arrays:
            golden = dict(arrays)
        units = golden["units"].ravel().tolist()
        schedule, mels = [len(units)], [golden.get("mel_full")]
        if name == "stream_C":
            schedule = golden["schedule"].tolist()
            mels = [golden[f"c{k}_mel_full"] for k in range(len(schedule))]
        state, told = flow.new_state(speaker), 0
        for k, (count, mel) in enumerate(zip(schedule, mels, strict=True)):
            output = flow.step(state, units[told : told + count], k + 1 == len(schedule))
            told += count
            expected = mel[0].T[output.start :]
            assert output.mel.shape == expected.shape
            assert snr(output.mel.astype(np.float64), expected.astype(np.float64)) >= 40, (name, k)


def test_a_stream_beyond_the_range_of_float16(
    checkpoint: Checkpoint, specs: dict[str, GraphSpec], tmp_path: Path
) -> None:
    """What a language model's layers add to may be larger than float16 knows; only what they read is normalised."""
    config, random = checkpoint.config.llm, np.random.default_rng(5)
    inputs = 3e5 * random.standard_normal((DECODED + 20, config.hidden), np.float32)
    for name in ("fp32", "fp16"):
        (tmp_path / name).mkdir()
    exact = ask_language_model(Graphs(specs, tmp_path / "fp32", None, False)["llm"], config, inputs)
    half = ask_language_model(Graphs(specs, tmp_path / "fp16", Numerics(FLOAT16), True)["llm"], config, inputs)
    assert np.abs(inputs).max() > 10 * float(ml_dtypes.finfo(np.float16).max)
    for array in ("logits", "hidden"):
        assert snr(half[array].astype(np.float64), exact[array].astype(np.float64)) >= 40
