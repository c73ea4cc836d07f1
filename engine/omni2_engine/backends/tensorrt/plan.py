"""A deserialized TensorRT plan: its inputs and outputs, and contexts that execute it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from omni2_engine.backends.base.graph import Shape, is_cache
from omni2_engine.backends.cuda.array import DeviceArray
from omni2_engine.backends.cuda.stream import GraphCapture, StageStream, cannot_record
from omni2_engine.backends.tensorrt.library import TensorRt
from omni2_engine.errors import BackendError

PROFILE = 0  # plans have one wide optimization profile
REBUILD = "build the plans again with `omni2-engine build --target`"
# Kept as raw bits where NumPy has no type of the name.
DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "BF16": np.uint16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


class TensorRTPlan:
    """One plan on the device.

    Args:
        library: the TensorRT it belongs to.
        engine: `ICudaEngine`.
        stage: its name, for errors.
        kernels: that an earlier process compiled for it, see `kernels`.

    Attributes:
        inputs, outputs: shape per name; a dynamic dimension is None.
        dtypes: of every input and output, see `Graph.dtypes`.

    Raises:
        BackendError: a cache is not updated in place, or a size depends on an input's value.
    """

    def __init__(self, library: TensorRt, engine: Any, stage: str, kernels: bytes | None = None) -> None:
        self.library = library
        self.engine = engine
        self.stage = stage
        self._runtime_cache = library.runtime_cache(engine, kernels)
        module = library.module
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        shapes: dict[str, Shape] = {
            name: tuple(None if size < 0 else size for size in engine.get_tensor_shape(name)) for name in names
        }
        self.inputs = {name: shapes[name] for name in names if modes[name] == module.TensorIOMode.INPUT}
        self.outputs = {name: shapes[name] for name in names if modes[name] == module.TensorIOMode.OUTPUT}
        self.dtypes = {name: np.dtype(DTYPES[engine.get_tensor_dtype(name).name]) for name in names}
        for name in self.inputs:
            if engine.get_tensor_location(name) == module.TensorLocation.HOST:
                raise BackendError(f"the plan of {stage} has sizes that depend on the value of {name}", REBUILD)
        for name in filter(is_cache, self.inputs):
            if engine.get_aliased_input_tensor(f"new_{name}") != name:
                raise BackendError(f"the plan of {stage} does not update the cache {name} in place", REBUILD)

    @property
    def kernels(self) -> bytes | None:
        """What TensorRT-RTX has compiled for it so far, for the next start; None: nothing to keep."""
        return None if self._runtime_cache is None else bytes(self._runtime_cache.serialize())

    @property
    def working_bytes(self) -> int:
        """Device memory that a context needs for activations."""
        return int(self.engine.get_device_memory_size_for_profile_v2(PROFILE))

    def execution(self, stream: StageStream, few_shapes: bool) -> Execution:
        """A context of its own.

        Args:
            stream: on which it runs, and whose working memory it uses.
            few_shapes: its calls have few shapes, or become a CUDA graph; see `TensorRt.context`.

        Raises:
            BackendError, CapacityError: the device has no room for the context.
        """
        context = self.library.context(self.engine, few_shapes=few_shapes, runtime_cache=self._runtime_cache)
        return Execution(self, context, stream)

    def range_of(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The least and the most shape an input may have."""
        least, _, most = self.engine.get_tensor_profile_shape(name, PROFILE)
        return tuple(least), tuple(most)


class Execution:
    """A context that is only given what has changed since its last call."""

    def __init__(self, plan: TensorRTPlan, context: Any, stream: StageStream) -> None:
        self.plan = plan
        self._stream = stream
        self._context = context
        self._memory = stream.scratch(plan.working_bytes)  # held while the context may use it
        context.set_device_memory(self._memory.address, self._memory.nbytes)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._known: dict[tuple[Any, ...], dict[str, tuple[int, ...]]] = {}

    def set(self, name: str, address: int, shape: tuple[int, ...] | None = None) -> None:
        """Set the address of a tensor and, of an input, its shape.

        Raises:
            BackendError: the plan takes no such shape.
        """
        if shape is not None and self._shapes.get(name) != shape:
            if not self._context.set_input_shape(name, shape):
                least, most = self.plan.range_of(name)
                raise BackendError(
                    f"the plan of {self.plan.stage} takes {name} of {least} to {most}, not {shape}",
                    "load with what the plan was built for, or build it for more (`omni2-engine build --target`)",
                )
            self._shapes[name] = shape
        if self._addresses.get(name) != address:
            if not self._context.set_tensor_address(name, address):
                raise BackendError(f"the plan of {self.plan.stage} takes no {name}: {self._reason()}", REBUILD)
            self._addresses[name] = address

    def set_state(self, state: Mapping[str, DeviceArray]) -> None:
        """Set the addresses of state. Caches are updated in place; the caller sets where new contexts go."""
        for name, view in state.items():
            self.set(name, view.address, view.shape)
            if is_cache(name):
                self.set(f"new_{name}", view.address)

    def output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every output, after all inputs were set."""
        key = tuple(self._shapes.items())
        if key not in self._known:
            missing = self._context.infer_shapes()
            if missing:
                raise BackendError(f"the plan of {self.plan.stage} was not given the shape of {missing[0]}", REBUILD)
            self._known[key] = {name: tuple(self._context.get_tensor_shape(name)) for name in self.plan.outputs}
        return self._known[key]

    @contextmanager
    def recording(self, what: str) -> Iterator[GraphCapture]:
        """Record calls, and what is enqueued beside them; see `StageStream.recording`.

        Raises:
            BackendError: also where TensorRT cannot be recorded.
        """
        self.require_recordable(what)
        with self._stream.recording(what) as recording:
            yield recording

    def require_recordable(self, what: str) -> None:
        """Refuse a context whose calls cannot be recorded.

        Raises:
            BackendError: TensorRT says so.
        """
        if not self.plan.library.can_record(self._context, self._stream.cuda.handle):
            raise cannot_record(what, f"TensorRT says that its plan of {self.plan.stage} cannot be recorded")

    def enqueue(self) -> None:
        """Run on the stream's stream.

        Raises:
            BackendError: TensorRT refuses, or the device has failed.
        """
        self.plan.library.logger.messages.clear()
        if not self._context.execute_async_v3(self._stream.cuda.handle):
            self._stream.check()  # an earlier failure of the device is the error to report
            raise BackendError(
                f"TensorRT cannot run {self.plan.stage}: {self._reason()}",
                "report this with the plan's target and TensorRT's version, both in `omni2-engine inspect`",
            )

    def _reason(self) -> str:
        return self.plan.library.logger.messages.reason() or "it does not say why"
