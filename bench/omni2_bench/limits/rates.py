"""What this machine reaches at its best: GEMM in float32 and int8, and reading memory; imported by workers only."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from omni2_engine.backends.onnxruntime.backend import CpuProvider, OnnxRuntimeBackend

ROWS, INNER, COLUMNS = 1500, 1280, 5120  # the encoder's widest layer
READ_BYTES = 1 << 30


def measure_rates(library: str, threads: int, seconds: float) -> dict[str, dict[str, float]]:
    """Measure the rates of one library.

    Args:
        library: "ort", "torch" or "numpy".
        threads: processor threads.
        seconds: of attempts at each; the more, the less it counts what else the machine does.

    Returns:
        `rates` of its kinds of work, "fp32", "int8" or "read": operations or bytes per second, of the fastest attempt.
    """
    amounts = {"read": READ_BYTES}
    return {
        "rates": {
            kind: amounts.get(kind, 2 * ROWS * INNER * COLUMNS) / fastest(make(threads), seconds)
            for kind, make in WORK[library].items()
        }
    }


def fastest(work: Callable[[], Any], seconds: float) -> float:
    """Seconds of the fastest of the attempts in a time, after one that does not count."""
    work()
    attempts: list[float] = []
    while sum(attempts) < seconds:
        began = time.perf_counter()
        work()
        attempts.append(time.perf_counter() - began)
    return min(attempts)


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _ort_gemm(threads: int) -> Callable[[], Any]:
    return _ort(threads, "MatMul", _random(ROWS, INNER), _random(INNER, COLUMNS))


def _ort_int8(threads: int) -> Callable[[], Any]:
    random = np.random.default_rng(0)
    left = random.integers(0, 256, (ROWS, INNER), np.uint8)
    return _ort(threads, "MatMulInteger", left, random.integers(-127, 128, (INNER, COLUMNS), np.int8))


def _ort(threads: int, operator: str, left: np.ndarray, right: np.ndarray) -> Callable[[], Any]:
    """One node with a constant right side, as linear layers have it, set up as the engine's graphs are."""
    import onnx
    from onnx import helper, numpy_helper

    source = helper.np_dtype_to_tensor_dtype(left.dtype)
    result = onnx.TensorProto.FLOAT if left.dtype == np.float32 else onnx.TensorProto.INT32
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["product"])],
        "gemm",
        [helper.make_tensor_value_info("left", source, left.shape)],
        [helper.make_tensor_value_info("product", result, (len(left), right.shape[1]))],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = OnnxRuntimeBackend(threads).session(model.SerializeToString(), operator, CpuProvider("product"))
    return lambda: session.run(None, {"left": left})


def _torch_gemm(threads: int) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(threads)
    left, right = torch.from_numpy(_random(ROWS, INNER)), torch.from_numpy(_random(COLUMNS, INNER))
    return lambda: torch.nn.functional.linear(left, right)


def _numpy_gemm(threads: int) -> Callable[[], Any]:
    left, right = _random(ROWS, INNER), _random(INNER, COLUMNS)
    return lambda: left @ right


def _torch_read(threads: int) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(threads)
    data = torch.ones(READ_BYTES // 4)
    return data.sum


def _numpy_read(threads: int) -> Callable[[], Any]:
    parts = np.array_split(np.ones(READ_BYTES // 8, np.int64), threads)
    pool = ThreadPoolExecutor(threads)  # NumPy lets go of the interpreter while it reduces
    return lambda: list(pool.map(np.bitwise_or.reduce, parts))


WORK = {
    "ort": {"fp32": _ort_gemm, "int8": _ort_int8},
    "torch": {"fp32": _torch_gemm, "read": _torch_read},
    "numpy": {"fp32": _numpy_gemm, "read": _numpy_read},
}
