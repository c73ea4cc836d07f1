"""int4 on a CPU: which layers are stored in what, and what a trained language model keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from omni2_bench.lab.probes import Rows, ask_language_model
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_export.build.graphs import graph_specs
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.graphs.builder import FLOAT, Numerics
from omni2_export.graphs.linear import Precision
from omni2_export.verify.rows import snr


@pytest.fixture(scope="module")
def demo(repository: Path) -> Checkpoint:
    model = repository / "examples" / "model"
    return open_checkpoint(model / "omni2", decoder=model / "decoder")


def storage(graph: Path) -> dict[str, tuple[int, int]]:
    """Linear layer → its type and the weights that share a scale."""
    model = onnx.load(graph, load_external_data=False).graph
    types = {tensor.name: tensor.data_type for tensor in model.initializer}
    return {
        node.input[0].rpartition(".weight")[0]: (
            types[node.input[0]],
            next(attribute.i for attribute in node.attribute if attribute.name == "block_size"),
        )
        for node in model.node
        if node.op_type == "DequantizeLinear"
    }


def test_gates_and_up_projections_behind_the_first_layers_are_in_four_bits(demo: Checkpoint, tmp_path: Path) -> None:
    spec = graph_specs(demo.config, demo.modules, positions=64)["llm"]
    found = storage(spec.write(tmp_path, Precision.INT4))
    int4, int8 = int(onnx.TensorProto.INT4), int(onnx.TensorProto.INT8)
    first = [f"layers.{layer}." for layer in range(round(demo.config.llm.layers / 4))]
    packed = {name for name in found if "gate" in name and not name.startswith(tuple(first))}
    assert first and packed
    assert {found[name] for name in packed} == {(int4, 32)}
    assert {kind for name, (kind, _) in found.items() if name not in packed} == {int8}
    assert sum("self_attn" in name for name in found) == 2 * demo.config.llm.layers and "lm_head" in found


def test_for_a_gpu_all_are_in_four_bits(demo: Checkpoint, tmp_path: Path) -> None:
    spec = graph_specs(demo.config, demo.modules, positions=64)["llm"]
    found = storage(spec.write(tmp_path, Precision.INT4, Numerics(FLOAT, doubles=False, device=True)))
    assert {kind for kind, _ in found.values()} == {int(onnx.TensorProto.INT4)}


@pytest.mark.parametrize("name", ["llm", "speech_lm"])
def test_a_trained_model_keeps_its_logits(demo: Checkpoint, name: str, tmp_path: Path) -> None:
    """All in int4 in blocks of 128 it kept 16 and 15 dB."""
    config, spec = getattr(demo.config, name), graph_specs(demo.config, demo.modules, positions=256)[name]
    ids = np.random.default_rng(0).integers(config.vocab, size=120)
    inputs = Rows(demo.modules[name])(ids)
    exact, packed = (
        ask_language_model(OnnxRuntimeBackend(1).load(spec.write(tmp_path, precision)), config, inputs)["logits"]
        for precision in (Precision.FP32, Precision.INT4)
    )
    assert snr(packed.astype(np.float64), exact.astype(np.float64)) > 22
