"""ONNX Runtime backend: one session per graph, memory bound once, caches updated in place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from omni2_engine.backends.base import Array, Arrays
from omni2_engine.errors import BackendError, EngineDirectoryError

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class OnnxRuntimeBackend:
    """Runs graphs with ONNX Runtime on the CPU.

    Args:
        threads: threads per graph call; all processors this process may use if None.
        shares_decoder_calls: see `Backend`.
    """

    name = "onnxruntime"

    def __init__(self, threads: int | None = None, shares_decoder_calls: bool = False) -> None:
        self.shares_decoder_calls = shares_decoder_calls
        processors = len(os.sched_getaffinity(0))
        self.threads = threads or processors
        # One call more than fill the processors: it runs where another's threads wait for their slowest.
        self.width = processors // self.threads + 1

    def load(self, path: Path) -> OnnxRuntimeGraph:
        """Load the graph at `path`; see `Backend.load`."""
        if not path.is_file():
            raise EngineDirectoryError(f"the engine has no {path.name}", "build it again with `omni2-engine build`")
        return OnnxRuntimeGraph(self._session(str(path), path.name))

    def load_bytes(self, model: bytes, folder: Path, label: str) -> OnnxRuntimeGraph:
        """Load a graph held in memory.

        Args:
            model: a serialised ONNX model.
            folder: where the weight files it refers to are.
            label: what errors call it.

        Raises:
            BackendError: ONNX Runtime cannot run it.
        """
        return OnnxRuntimeGraph(self._session(model, label, folder))

    def _session(self, model: str | bytes, label: str, weights: Path | None = None) -> ort.InferenceSession:
        options = ort.SessionOptions()
        if weights is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # several sessions on few processors: a spinning pool takes time from the one that has work
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # lets block-quantised weights run in the int8 kernel instead of being expanded
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
        try:
            return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a family of its own exception types
            text = str(error).splitlines()[0][:300]
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot load {label}: {text}",
                "check the engine with `omni2-engine inspect --check`, and that onnxruntime is at least 1.25",
            ) from error


class OnnxRuntimeGraph:
    """A loaded session; see `Graph`."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._dtypes = {value.name: DTYPES[value.type] for value in session.get_inputs()}
        self.inputs: Mapping[str, tuple[int | str | None, ...]] = {v.name: tuple(v.shape) for v in session.get_inputs()}
        self.outputs: Mapping[str, tuple[int | str | None, ...]] = {
            v.name: tuple(v.shape) for v in session.get_outputs()
        }

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with all inputs given; see `Graph.run`."""
        return dict(zip(self.outputs, self._session.run(None, dict(inputs)), strict=True))

    def bind(self, state: Arrays, fixed: Arrays | None = None) -> BoundOnnxRuntimeGraph:
        """Bind memory once; see `Graph.bind`."""
        return BoundOnnxRuntimeGraph(self._session, self._dtypes, list(self.outputs), state, fixed or {})


class BoundOnnxRuntimeGraph:
    """A session with an I/O binding over NumPy memory; see `BoundGraph`."""

    def __init__(
        self,
        session: ort.InferenceSession,
        dtypes: Mapping[str, type],
        outputs: list[str],
        state: Arrays,
        fixed: Arrays,
    ) -> None:
        self._session = session
        self._dtypes = dtypes
        self._binding = session.io_binding()
        self._fixed = dict(fixed)
        self._held: dict[str, Array] = {}  # bound memory must outlive the binding
        self._order: list[str] = []  # ONNX Runtime lists outputs in the order they were first bound
        self._free = list(outputs)  # outputs it makes anew in every run
        self.move(state)
        for name, array in fixed.items():
            self._bind_output(name, array)

    def move(self, state: Arrays) -> None:
        """Bind other memory for state; see `BoundGraph.move`."""
        for name, array in state.items():
            self._held[name] = array
            self._bind_input(name, array)
            self._bind_output(f"new_{name}", array)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with the remaining inputs; see `BoundGraph.run`."""
        for name, array in inputs.items():
            self._held[name] = array
            self._bind_input(name, array)
        for name in self._free:  # bound anew: otherwise the last run's memory and shape would be asked for again
            self._binding.bind_output(name, "cpu")
            self._note(name)
        self._session.run_with_iobinding(self._binding)
        results: dict[str, Array] = dict(self._fixed)
        if self._free:
            values = zip(self._order, self._binding.get_outputs(), strict=True)
            results |= {name: value.numpy() for name, value in values if name in self._free}
        return results

    def _bind_input(self, name: str, array: Array) -> None:
        self._binding.bind_input(name, "cpu", 0, self._dtypes[name], array.shape, _address(array))

    def _bind_output(self, name: str, array: Array) -> None:
        if name in self._free:
            self._free.remove(name)
        self._note(name)
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, _address(array))

    def _note(self, name: str) -> None:
        if name not in self._order:
            self._order.append(name)


def _address(array: Array) -> int:
    """Where its memory begins; several times faster than `array.ctypes.data`, and asked for in every call."""
    address: int = array.__array_interface__["data"][0]
    return address
