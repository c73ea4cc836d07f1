"""Products in fp8: what a graph computes, by the CPU's own conversions, and what a trained model keeps."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from omni2_bench.lab.probes import Rows, ask_language_model
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_export.build.graphs import graph_specs
from omni2_export.checkpoint import open_checkpoint
from omni2_export.checkpoint.tensors import Arrays
from omni2_export.graphs.builder import FLOAT, GraphBuilder, Numerics
from omni2_export.graphs.linear import E4M3_MOST, LinearWriter, Precision
from omni2_export.graphs.weights import WeightWriter
from omni2_export.narrow_backend import NarrowBackend
from omni2_export.verify.rows import snr

INPUTS, OUTPUTS = 256, 48
FLOAT16, BFLOAT16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16


def product(folder: Path, weight: np.ndarray, x: np.ndarray, numerics: Numerics, emulated: bool = False) -> np.ndarray:
    """One linear layer of weights (outputs, inputs) in fp8 over x (n, inputs)."""
    tensors = Arrays({"layer.weight": weight})
    with WeightWriter(folder / "graph.weights") as writer:
        g = GraphBuilder("graph", writer, numerics)
        y = LinearWriter(g, tensors, Precision.FP8)(g.input("x", FLOAT, ["n", weight.shape[1]]), "layer")
        g.output(y, "y", FLOAT, ["n", weight.shape[0]])
        g.save(folder / "graph.onnx")
    found: np.ndarray = NarrowBackend(1, emulated).load(folder / "graph.onnx").run({"x": x})["y"]
    return found


def e4m3(array: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Rounded to fp8 with one scale a row."""
    return (array / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale


def test_a_product_is_that_of_both_factors_in_fp8(tmp_path: Path) -> None:
    """A scale per output channel, and one per position, however they differ."""
    random = np.random.default_rng(0)
    weight = (
        random.standard_normal((OUTPUTS, INPUTS), np.float32) * np.logspace(-3, 1, OUTPUTS, dtype=np.float32)[:, None]
    )
    x = random.standard_normal((5, INPUTS), np.float32) * np.array([[1e-4], [1], [30], [1e3], [1e6]], np.float32)
    found = product(tmp_path, weight, x, Numerics(FLOAT, doubles=False))
    narrow_x = e4m3(x.astype(np.float64), np.abs(x).max(1, keepdims=True) / E4M3_MOST)
    narrow_w = e4m3(weight.astype(np.float64), np.abs(weight).max(1, keepdims=True) / E4M3_MOST)
    sizes = np.abs(weight).max(1)  # of the channels, so that all count alike
    for row in range(len(x)):  # each on its own: the last would hide the others
        exact = x[row].astype(np.float64) @ weight.T.astype(np.float64)
        assert snr(found[row] / sizes, (narrow_x[row] @ narrow_w.T) / sizes) > 45
        assert snr(found[row] / sizes, exact / sizes) > 24


@pytest.mark.parametrize(("compute", "emulated"), [(FLOAT16, False), (FLOAT16, True), (BFLOAT16, True)])
def test_sums_fit_into_sixteen_bits(compute: ir.DataType, emulated: bool, tmp_path: Path) -> None:
    """The largest sum there is: all numbers of a row of Whisper's widest layer alike."""
    width = 5120
    weight, x = np.full((2, width), 0.02, np.float32), np.full((1, width), 30.0, np.float32)
    found = product(tmp_path, weight, x, Numerics(compute, doubles=False), emulated)
    assert found == pytest.approx(width * 0.02 * 30, rel=0.02)


def test_a_position_of_zeros_stays_zero(tmp_path: Path) -> None:
    weight = np.random.default_rng(1).standard_normal((4, INPUTS), np.float32)
    assert not product(tmp_path, weight, np.zeros((1, INPUTS), np.float32), Numerics(FLOAT16, doubles=False)).any()


@pytest.mark.parametrize("name", ["llm", "speech_lm"])
def test_a_trained_model_keeps_its_logits(repository: Path, name: str, tmp_path: Path) -> None:
    """In int4 for a GPU it keeps 15."""
    model = repository / "examples" / "model"
    demo = open_checkpoint(model / "omni2", decoder=model / "decoder")
    config, spec = getattr(demo.config, name), graph_specs(demo.config, demo.modules, positions=256)[name]
    embeds = Rows(demo.modules[name])(np.random.default_rng(0).integers(config.vocab, size=120))
    (tmp_path / "exact").mkdir()
    exact = OnnxRuntimeBackend(1).load(spec.write(tmp_path / "exact", Precision.FP32))
    narrow = NarrowBackend(1).load(spec.write(tmp_path, Precision.FP8, Numerics(FLOAT, doubles=False)))
    expected, found = (ask_language_model(graph, config, embeds)["logits"] for graph in (exact, narrow))
    assert snr(found.astype(np.float64), expected.astype(np.float64)) > 20
