"""Products of the largest bytes as the engine's sessions compute them, on this processor and on one without VNNI."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from omni2_engine.backends.onnxruntime import int8
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_export.graphs.linear import BLOCK

from ...waiting import SOON

PROGRAM = Path(__file__).with_name("run_graphs.py")
PROCESSORS = {"this one": [], "without VNNI": ["qemu-x86_64", "-cpu", "Haswell"]}
VNNI = {"avx_vnni", "avx512_vnni", "amx_int8"}
SHAPES = ((1, 64, 32), (7, 130, 33), (40, 256, 128))  # rows, inputs, outputs
BYTES = {"largest": ([255], [127]), "smallest": ([255], [-128]), "mixed": ([0, 1, 254, 255], [-128, -127, 126, 127])}
ZERO = 3  # what the quantised inputs call zero
PRODUCTS = [f"{kind} {rows} {inputs} {outputs}" for kind in BYTES for rows, inputs, outputs in SHAPES]
BLOCKS = [f"blocks {bits} {rows}" for bits in (8, 4) for rows in (1, 40)]


# -- graphs and what they are fed --------------------------------------------------------------------------------------


def write_product(folder: Path, name: str) -> None:
    """x (rows, inputs), whole numbers from 0 to 255, as bytes times constant signed bytes: y int32."""
    kind, *shape = name.split()
    rows, inputs, outputs = map(int, shape)
    random, (left, right) = np.random.default_rng(len(name)), BYTES[kind]
    x = random.choice(left, (rows, inputs)).astype(np.float32)
    weight = random.choice(right, (inputs, outputs)).astype(np.int8)
    nodes = [
        helper.make_node("Cast", ["x"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("MatMulInteger", ["bytes", "weight", "zero"], ["y"]),
    ]
    constants = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.uint8(ZERO), "zero")]
    save(folder, name, nodes, constants, (rows, outputs), TensorProto.INT32, x)
    np.save(folder / f"{name}.npy", (x.astype(np.int64) - ZERO) @ weight.astype(np.int64))


def write_blocks(folder: Path, name: str) -> None:
    """x (rows, inputs) of ±1, the largest there is when it is quantised, times the largest weights in blocks: y."""
    bits, rows = map(int, name.split()[1:])
    inputs, outputs, top = 4 * BLOCK, 64, 2 ** (bits - 1) - 1
    random = np.random.default_rng(bits)
    signs = random.choice([-1, 1], inputs)  # every product is of the same sign: a sum that saturates shows it
    x = np.repeat(signs[None].astype(np.float32), rows, 0)
    weight = np.where(signs[:, None] > 0, top, -top - 1) * np.ones((1, outputs), np.int64)
    scales = random.uniform(0.5, 2, (inputs // BLOCK, outputs)).astype(np.float32)
    kind = TensorProto.INT8 if bits == 8 else TensorProto.INT4
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", "scales"], ["wide"], axis=0, block_size=BLOCK),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    constants = [
        helper.make_tensor("weight", kind, weight.shape, weight.ravel()),
        numpy_helper.from_array(scales, "scales"),
    ]
    save(folder, name, nodes, constants, (rows, outputs), TensorProto.FLOAT, x)
    np.save(folder / f"{name}.npy", x.astype(np.float64) @ (weight * np.repeat(scales.astype(np.float64), BLOCK, 0)))


def save(
    folder: Path,
    name: str,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    shape: tuple[int, int],
    kind: int,
    x: np.ndarray,
) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", kind, shape)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / f"{name}.onnx")
    np.savez(folder / f"{name}.npz", x=x)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All graphs, with what they are fed and what the products are."""
    folder = tmp_path_factory.mktemp("graphs")
    for name in PRODUCTS:
        write_product(folder, name)
    for name in BLOCKS:
        write_blocks(folder, name)
    return folder


@dataclass(frozen=True)
class Ran:
    """What `run_graphs.py` did on a processor, and whether it found that plain products saturate there."""

    folder: Path
    saturates: bool
    instructions: set[str]

    def product(self, name: str) -> np.ndarray:
        """y of a graph."""
        with np.load(self.folder / f"{name}.results.npz") as results:
            return results["y"]


@pytest.fixture(scope="module", params=PROCESSORS)
def ran(request: pytest.FixtureRequest, graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All graphs, run on a processor."""
    emulator = PROCESSORS[request.param]
    if emulator and (not shutil.which(emulator[0]) or platform.machine() != "x86_64"):
        pytest.skip("a processor without VNNI is emulated by qemu-x86_64: install qemu-user on an x86-64 machine")
    folder = tmp_path_factory.mktemp("ran") / "graphs"
    shutil.copytree(graphs, folder)
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    command = [*emulator, sys.executable, str(PROGRAM), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SOON, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    saturates, *instructions = done.stdout.split()
    return Ran(folder, saturates == "True", set(instructions))


# -- tests -------------------------------------------------------------------------------------------------------------


def test_saturation_is_found_where_the_processor_has_it(ran: Ran) -> None:
    if platform.machine() == "x86_64":
        assert "avx2" in ran.instructions
        assert ran.saturates == (not ran.instructions & VNNI)
    else:
        assert not ran.saturates


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_bytes_are_exact(name: str, ran: Ran) -> None:
    assert (ran.product(name) == np.load(ran.folder / f"{name}.npy")).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_products_with_weights_in_blocks_are_exact_to_float32(name: str, ran: Ran) -> None:
    assert np.allclose(ran.product(name), np.load(ran.folder / f"{name}.npy"), rtol=1e-6, atol=0)


def test_every_way_to_load_a_graph_asks(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file and from memory. A graph with weights in blocks does not ask: it could not run."""
    asked: list[bool] = []

    def note(model: str | bytes) -> bool:
        asked.append(int8.needs_exact_products(model))
        return asked[-1]

    monkeypatch.setattr(int8, "products_saturate", lambda: True)
    monkeypatch.setattr("omni2_engine.backends.onnxruntime.backend.needs_exact_products", note)
    backend = OnnxRuntimeBackend(1)
    for name in (PRODUCTS[0], BLOCKS[0]):
        path = graphs / f"{name}.onnx"
        with np.load(path.with_suffix(".npz")) as inputs:
            for graph in (backend.load(path), backend.load_bytes(path.read_bytes(), graphs, name)):
                y = graph.run(dict(inputs))["y"]
                assert np.allclose(y, np.load(graphs / f"{name}.npy"), rtol=1e-6, atol=0)
    assert asked == [True, True, False, False]
