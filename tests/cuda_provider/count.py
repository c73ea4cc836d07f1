"""Opens graphs with the real CUDA provider on the stub driver and calls them: `python count.py DRIVER GRAPHS`.

For a process of its own, whose onnxruntime is onnxruntime-gpu. Prints JSON: graph → what runs where, and what a call
does. Numbers are those of a device that computes nothing, so only counts mean something.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

COUNTED = ("kernel", "product", "product in TF32", "copy to host", "copy to device", "copy within", "wait")
SIZES = {"B": 1, "S": 1, "T": 64, "n": 10, "N": 16, "m": 20, "M": 32, "t": 14, "k": 10, "F": 14, "capacity": 64}
SIZES |= {"up_capacity": 64, "cached": 0, "samples": 14 * 480}
WARM = 2  # calls before the one that is counted


def main(driver: Path, graphs: Path) -> None:
    """Load the driver before onnxruntime does, then count."""
    libraries = [ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in sorted_by_need(driver)]
    stub = libraries[0]
    stub.stub_counted.restype = ctypes.c_long
    os.environ["OMNI2_CUDART"] = str(driver / "libcudart.so.13")
    import onnxruntime as ort

    from omni2_engine.backends.onnxruntime import cuda
    from omni2_engine.errors import BackendError

    ort.preload_dlls = lambda *given, **named: None  # the stubs are loaded
    backend = cuda.OnnxRuntimeCudaBackend()
    found: dict[str, Any] = {}
    for path in sorted(graphs.glob("*/*.onnx")):
        name = f"{path.parent.name}/{path.stem}"
        try:
            graph = backend.load(path)
        except BackendError as error:
            found[name] = {"refused": error.problem}
            continue
        session = graph._session
        nodes = [(p.ep_name, n.op_type) for p in session.get_provider_graph_assignment_info() for n in p.get_nodes()]
        on_host = sorted(kind for place, kind in nodes if place != cuda.PROVIDER)
        found[name] = {"nodes": len(nodes), "shape arithmetic on the host": len(on_host)}
        try:
            call = caller(graph)
            for _ in range(WARM):
                call()
            stub.stub_reset()
            call()
        except BackendError as error:  # a convolution: the stub of cuDNN computes none
            found[name]["stops"] = error.problem[:120]
            continue
        found[name] |= {what: stub.stub_counted(what.encode()) for what in COUNTED}
    json.dump(found, sys.stdout)


def sorted_by_need(driver: Path) -> list[Path]:
    """The libraries, each behind those that it stands on."""
    order = ("cudart", "cublasLt", "cublas", "cudnn", "curand", "cuda")
    return [next(driver.glob(f"lib{name}.so.*")) for name in order]


def caller(graph: Any) -> Any:
    """A call of a graph with state on the device and zeros for everything else."""

    def shape(name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else SIZES[size] for size in graph.inputs[name])

    state = [name for name in graph.inputs if f"new_{name}" in graph.outputs]
    inputs = {name: np.zeros(shape(name), graph.dtypes[name]) for name in graph.inputs if name not in state}
    if "mask" in inputs:
        inputs["mask"][...] = True
    if not state:
        return lambda: graph.run(inputs)
    bound = graph.bind(graph.state({name: shape(name) for name in state}).arrays)
    return lambda: bound.run(inputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
