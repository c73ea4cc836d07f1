"""What graphs of narrower floats compute: rounding, layouts of caches, and what is left of the signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from omni2_bench.lab.probes import DECODED, Material, ask_flow, ask_language_model
from omni2_bench.random_checkpoint import PRESETS, CheckpointPaths, write_checkpoint
from omni2_engine.backends.base.graph import Graph
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.stages.flow import Flow
from omni2_export.build.graphs import GraphSpec, graph_specs
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
    heads, random = 2 * config.heads, np.random.default_rng(3)
    graphs = {}
    for device in (False, True):
        folder = tmp_path / str(device)
        folder.mkdir()
        numerics = Numerics(doubles=False, device=device)
        graphs[device] = OnnxRuntimeBackend(1).load(specs["flow_step"].write(folder, Precision.FP32, numerics))
    flat, first = graphs[False], graphs[True]
    names = [name for name in flat.inputs if "keys" in name or "values" in name]
    caches = {name: np.zeros((1, capacity, heads * config.head_dim), np.float32) for name in names}
    theirs = {name: np.zeros((1, heads, capacity, config.head_dim), np.float32) for name in names}
    contexts = np.zeros([int(size or 0) for size in flat.inputs["contexts"]], np.float32)
    place = 0
    for frames in (14, 20):
        seen = place + frames
        common = {
            "z": random.standard_normal((1, frames, config.mel), np.float32),
            "mu": random.standard_normal((1, frames, config.mel), np.float32),
            "speaker": random.standard_normal((1, config.mel), np.float32),
            "shifts": random.standard_normal([int(size or 0) for size in flat.inputs["shifts"]], np.float32),
            "move": np.array([0.1, -0.02], np.float32),
            "velocity_before": random.standard_normal((1, frames, config.mel), np.float32),
            "mask": random.random((1, 1, frames, seen)) < 0.7,
            "write": np.array([place], np.int64),
            "commit": np.array([frames], np.int64),
            "contexts": contexts,
        }
        common["mask"][..., 0] = True
        ours = flat.run({**common, **{name: cache[:, :seen] for name, cache in caches.items()}})
        other = first.run({**common, **theirs})
        assert np.abs(ours["new_z"] - other["new_z"]).max() < 1e-5
        for name, cache in caches.items():
            cache[:, :seen] = ours[f"new_{name}"]
            theirs[name] = other[f"new_{name}"]
            split = cache.reshape(1, capacity, heads, config.head_dim).transpose(0, 2, 1, 3)
            assert np.abs(theirs[name] - split).max() < 1e-5
        contexts, place = ours["new_contexts"], seen


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
