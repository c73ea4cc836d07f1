"""An ONNX Runtime session as a graph: memory is bound once, state is updated in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from omni2_engine.backends.base.graph import (
    Array,
    Arrays,
    BoundGraph,
    CallBefore,
    Shape,
    StateMemory,
    is_context,
    run_one_by_one,
)
from omni2_engine.errors import BackendError
from omni2_engine.system.reservation import Reservation

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class Provider(Protocol):
    """An execution provider: where a graph runs, and where its state lies.

    Attributes:
        stage: the graph's name, for errors.
        device: ONNX Runtime's name for it: "cpu" or "cuda".
        providers: of a session.
    """

    @property
    def stage(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def providers(self) -> list[Any]: ...
    def state(self, specs: Mapping[str, tuple[Sequence[int], np.dtype[Any]]]) -> StateMemory:
        """Memory for state."""
        ...

    def timed(self) -> AbstractContextManager[None]:
        """Time a call, if calls are timed."""
        ...


class OnnxRuntimeGraph:
    """A loaded session; see `Graph`."""

    def __init__(self, session: ort.InferenceSession, provider: Provider) -> None:
        self._session = session
        self._provider = provider
        values = [*session.get_inputs(), *session.get_outputs()]
        self.dtypes: Mapping[str, np.dtype[Any]] = {value.name: np.dtype(DTYPES[value.type]) for value in values}
        self.inputs: Mapping[str, Shape] = {v.name: tuple(v.shape) for v in session.get_inputs()}
        self.outputs: Mapping[str, Shape] = {v.name: tuple(v.shape) for v in session.get_outputs()}

    def most(self, name: str, axis: int) -> int | None:
        """Of what the graph fixes; see `Graph.most`."""
        size = self.inputs[name][axis]
        return size if isinstance(size, int) else None

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with all inputs given; see `Graph.run`."""
        with self._provider.timed(), reporting(self._provider.stage):
            return dict(zip(self.outputs, self._session.run(None, dict(inputs)), strict=True))

    def run_chain(
        self,
        bound: Sequence[BoundGraph],
        inputs: Arrays,
        each: Sequence[Arrays],
        carried: Mapping[str, str],
        before: CallBefore | None = None,
    ) -> dict[str, Array]:
        """Run several times in a row; see `Graph.run_chain`."""
        return run_one_by_one(bound, inputs, each, carried, before)

    def expect(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Nothing to prepare; see `Graph.expect`."""

    def expect_chains(self, count: int) -> None:
        """Nothing to keep; see `Graph.expect_chains`."""

    def state(self, shapes: Mapping[str, Sequence[int]]) -> StateMemory:
        """Memory for state; see `Graph.state`."""
        return self._provider.state({name: (shape, self.dtypes[name]) for name, shape in shapes.items()})

    def results(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
        """Arrays for outputs; see `Graph.results`."""
        return Reservation({name: (shape, self.dtypes[name]) for name, shape in shapes.items()}).arrays

    def bind(self, state: Mapping[str, Any], fixed: Arrays | None = None) -> BoundOnnxRuntimeGraph:
        """Bind memory once; see `Graph.bind`."""
        return BoundOnnxRuntimeGraph(self._session, self._provider, self.dtypes, list(self.outputs), state, fixed or {})


class BoundOnnxRuntimeGraph:
    """A session with an I/O binding; see `BoundGraph`. Inputs come from the host and outputs go there, state stays."""

    def __init__(
        self,
        session: ort.InferenceSession,
        provider: Provider,
        dtypes: Mapping[str, np.dtype[Any]],
        outputs: list[str],
        state: Mapping[str, Any],
        fixed: Arrays,
    ) -> None:
        self._session = session
        self._provider = provider
        self._dtypes = dtypes
        self._binding = session.io_binding()
        self._fixed = dict(fixed)
        self._held: dict[str, Any] = {}  # bound memory must outlive the binding
        self._order: list[str] = []  # ONNX Runtime lists outputs in the order they were first bound
        self._free = list(outputs)  # outputs it makes anew in every run
        self._contexts = {name: (a.shape, a.dtype) for name, a in state.items() if is_context(name)}
        self._new = provider.state(self._contexts) if self._contexts else None  # contexts as a call leaves them
        self.move(state)
        for name, array in fixed.items():
            self._bind_output(name, array, "cpu")

    def move(self, state: Mapping[str, Any]) -> None:
        """Bind other memory for state; see `BoundGraph.move`."""
        for name, array in state.items():
            self._held[name] = array
            self._bind_input(name, array, self._provider.device)
            made = self._new.arrays[name] if self._new and name in self._contexts else array
            self._bind_output(f"new_{name}", made, self._provider.device)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with the remaining inputs; see `BoundGraph.run`."""
        for name, array in inputs.items():
            self._held[name] = array
            self._bind_input(name, array, "cpu")
        for name in self._free:  # bound anew: otherwise the last run's memory and shape would be asked for again
            self._binding.bind_output(name, "cpu")
            self._note(name)
        with self._provider.timed(), reporting(self._provider.stage):
            self._session.run_with_iobinding(self._binding)
        if self._new:
            for name in self._contexts:
                self._new.copy(self._held[name], self._new.arrays[name])
        results: dict[str, Array] = dict(self._fixed)
        if self._free:
            values = zip(self._order, self._binding.get_outputs(), strict=True)
            results |= {name: value.numpy() for name, value in values if name in self._free}
        return results

    def _bind_input(self, name: str, array: Any, device: str) -> None:
        self._binding.bind_input(name, device, 0, self._dtypes[name].type, array.shape, address(array))

    def _bind_output(self, name: str, array: Any, device: str) -> None:
        if name in self._free:
            self._free.remove(name)
        self._note(name)
        self._binding.bind_output(name, device, 0, array.dtype.type, array.shape, address(array))

    def _note(self, name: str) -> None:
        if name not in self._order:
            self._order.append(name)


@contextmanager
def reporting(stage: str) -> Iterator[None]:
    """Translate what ONNX Runtime raises, a family of its own exception types, into a BackendError."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise BackendError(
            f"ONNX Runtime {ort.__version__} cannot run {stage}: {text}",
            "free memory and ask again; if that does not help, see `omni2-engine doctor`, and report this",
        ) from error


def address(array: Any) -> int:
    """Where its memory begins; of a NumPy array several times faster than `array.ctypes.data`, in every call."""
    begin: int = array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.address
    return begin
