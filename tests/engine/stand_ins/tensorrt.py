"""A TensorRT without a GPU: a plan is an ONNX graph, which ONNX Runtime executes on the stand-in device's memory.

It holds callers to what TensorRT documents: every shape within the profile, every address set before a call, caches at
one address in and out, working memory large enough, nothing changed in a context that a CUDA graph relies on. Working
memory begins as noise, and must not change while a call runs. The logger is called from the compiler's thread too. The
work is enqueued on the stream, so that it comes in order with copies, and can be recorded.
"""

from __future__ import annotations

import ctypes
import enum
import json
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ...waiting import let_others_run
from .cuda import FakeCuda

VERSION = "0.0.1"
WORKING_BYTES = 1 << 16  # of any plan
WEIGHT_BYTES = 1 << 20  # of device memory that any plan takes
TYPES = {
    "tensor(float)": "FLOAT",
    "tensor(float16)": "HALF",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(bool)": "BOOL",
}
MOST = 1 << 20  # of a dimension that a plan's file does not bound


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class TensorLocation(enum.Enum):
    DEVICE, HOST = range(2)


class CudaGraphStrategy(enum.Enum):
    DISABLED, WHOLE_GRAPH_CAPTURE = range(2)


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY, EAGER, NONE = range(3)


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


DataType = enum.Enum("DataType", ["FLOAT", "HALF", "BF16", "INT8", "UINT8", "INT32", "INT64", "BOOL"])


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING
    INFO, VERBOSE = Severity.INFO, Severity.VERBOSE

    def __init__(self) -> None: ...
    def log(self, severity: Any, message: str) -> None: ...


def write_plan(path: Path, graph: Path, ranges: Mapping[str, tuple[int, int, int]] | None = None) -> None:
    """Write a plan of an ONNX file.

    Args:
        path: of the plan.
        graph: the ONNX file, which must stay where it is.
        ranges: least, usual and most value of its symbolic dimensions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"graph": str(graph), "ranges": dict(ranges or {})}))


class FakeTensorRt:
    """The Python package, as a module-like object.

    Args:
        cuda: the stand-in libcudart it runs on.

    Attributes:
        fail_next: what the next call of a context says as it fails, if anything.
        calls: (stage's graph, whether it was recorded) of every call enqueued.
        rows: (stage's graph, first dimension of its first input) of every call enqueued.
        slow: whether other threads get every chance to run ahead of a call.
        capturable: whether contexts say that calls can be recorded.
    """

    __version__ = VERSION
    ILogger = ILogger
    TensorIOMode = TensorIOMode
    TensorLocation = TensorLocation
    DataType = DataType
    CudaGraphStrategy = CudaGraphStrategy
    DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.fail_next: str | None = None
        self.calls: list[tuple[str, bool]] = []
        self.rows: list[tuple[str, int]] = []
        self.slow = False
        self.capturable = True

    def Runtime(self, logger: ILogger) -> Runtime:
        return Runtime(self, logger)


class Runtime:
    def __init__(self, module: FakeTensorRt, logger: ILogger) -> None:
        self.module = module
        self.logger = logger

    def deserialize_cuda_engine(self, plan: Any) -> Engine | None:
        try:
            described = json.loads(bytes(plan[:]))
        except ValueError:
            self.logger.log(ILogger.ERROR, "the plan is of another version")
            return None
        return Engine(self, Path(described["graph"]), described["ranges"])


class Engine:
    def __init__(self, runtime: Runtime, graph: Path, ranges: Mapping[str, tuple[int, int, int]]) -> None:
        self.runtime = runtime
        self.name = graph.stem
        self.ranges = ranges
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # the level beyond makes ONNX Runtime 1.32 crash on convolutions and norms of float16
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        self.session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.aliases = dict(_aliases(onnx.load(graph, load_external_data=False).graph))
        self.weights = _Weights(runtime.module.cuda, WEIGHT_BYTES)

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(size, str) else size for size in self.value(name).shape)

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[TYPES[self.value(name).type]]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.aliases.get(name)

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        assert profile == 0
        return WORKING_BYTES

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        shape = self.value(name).shape
        return [tuple(self.bounds(size)[which] for size in shape) for which in range(3)]

    def bounds(self, size: int | str) -> tuple[int, int, int]:
        return tuple(self.ranges.get(size, (0, 1, MOST))) if isinstance(size, str) else (size, size, size)

    def value(self, name: str) -> Any:
        return self.inputs[name] if name in self.inputs else self.outputs[name]

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(self)

    def create_execution_context(self, how: Any = ExecutionContextAllocationStrategy.STATIC) -> Context:
        if not isinstance(how, RuntimeConfig):
            return Context(self, how)
        assert how.cuda_graph_strategy is CudaGraphStrategy.DISABLED  # callers record for themselves
        # kernels that are swapped beside the calls would answer one seed in two ways
        strategies = DynamicShapesKernelSpecializationStrategy
        assert how.dynamic_shapes_kernel_specialization_strategy in (strategies.EAGER, strategies.NONE)
        eager = how.dynamic_shapes_kernel_specialization_strategy is strategies.EAGER
        if how.cache is not None and not eager:
            how.cache.want("those for any shape")
        return Context(self, how.strategy, how.cache if eager else None)


class RuntimeConfig:
    """How a context of TensorRT-RTX is made."""

    cuda_graph_strategy: Any = None
    dynamic_shapes_kernel_specialization_strategy: Any = None

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.strategy: Any = ExecutionContextAllocationStrategy.STATIC
        self.cache: RuntimeCache | None = None

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self._engine.name)

    def set_runtime_cache(self, cache: RuntimeCache) -> None:
        self.cache = cache

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy


class RuntimeCache:
    """Kernels compiled for the shapes that an engine was called with, or once for any shape."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.kernels: set[str] = set()
        self.compiled = 0  # that were not in it

    def deserialize(self, blob: bytes) -> bool:
        name, *kernels = json.loads(blob)
        if name == self._name:
            self.kernels = set(kernels)
        return bool(name == self._name)

    def serialize(self) -> memoryview:
        return memoryview(json.dumps([self._name, *sorted(self.kernels)]).encode())

    def want(self, kernel: str) -> None:
        self.compiled += kernel not in self.kernels
        self.kernels.add(kernel)


class _Weights:
    """Device memory that lives with an engine."""

    def __init__(self, cuda: FakeCuda, nbytes: int) -> None:
        self._cuda, self._address = cuda, ctypes.c_void_p()
        status = cuda.function("cudaMalloc")(ctypes.byref(self._address), ctypes.c_size_t(nbytes))
        assert status == 0, status

    def __del__(self) -> None:
        self._cuda.function("cudaFree")(self._address)


class Context:
    def __init__(self, engine: Engine, strategy: Any, cache: RuntimeCache | None = None) -> None:
        self.engine = engine
        self._cache = cache
        self._own_memory = strategy != ExecutionContextAllocationStrategy.USER_MANAGED
        self._memory: tuple[int, int] | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._recorded: int | None = None  # the stream that recorded a call of it

    def is_stream_capturable(self, stream: int) -> bool:
        return self.engine.runtime.module.capturable

    @property
    def _settled(self) -> bool:
        """Whether a graph relies on it: within one recording it may be called several times, with other addresses."""
        return self._recorded is not None and not self.engine.runtime.module.cuda.is_recorded(self._recorded)

    def set_device_memory(self, memory: int, size: int) -> None:
        assert not self._own_memory and memory % 256 == 0
        self._memory = (memory, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self._recorded is None, "a context whose call was recorded gets another shape"
        bounds = [self.engine.bounds(size) for size in self.engine.inputs[name].shape]
        fits = len(shape) == len(bounds) and all(
            least <= size <= most for size, (least, _, most) in zip(shape, bounds, strict=True)
        )
        if not fits:
            return self._fail(f"{name} {shape} is outside the profile")
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert not self._settled, "a context whose call was recorded gets another address"
        if name not in self.engine.inputs and name not in self.engine.outputs:
            return self._fail(f"there is no tensor {name}")
        assert memory % 256 == 0 or name not in self.engine.inputs, f"{name} is not aligned"
        self._addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        sizes: dict[str, int] = {}
        for given, shape in self._shapes.items():
            for declared, size in zip(self.engine.inputs[given].shape, shape, strict=True):
                if isinstance(declared, str):
                    assert sizes.setdefault(declared, size) == size, f"{declared} of {given} is {size}"
        shape = self.engine.value(name).shape
        if all(isinstance(size, int) or size in sizes for size in shape):
            return tuple(size if isinstance(size, int) else sizes[size] for size in shape)
        return self._tried()[name]

    def execute_async_v3(self, stream_handle: int) -> bool:
        module = self.engine.runtime.module
        if module.fail_next is not None:
            reason, module.fail_next = module.fail_next, None
            return self._fail(reason)
        assert not self.infer_shapes(), f"no shape of {self.infer_shapes()}"
        assert not self._settled, "a context whose call was recorded is used for another"
        if not self._own_memory:
            assert self._memory is not None and self._memory[1] >= WORKING_BYTES
        recorded = module.cuda.is_recorded(stream_handle)
        shapes = {name: self.get_tensor_shape(name) for name in (*self.engine.inputs, *self.engine.outputs)}
        addresses = {name: self._addresses[name] for name in shapes}  # KeyError: one was not set
        for output, source in self.engine.aliases.items():
            assert addresses[output] == addresses[source], f"{output} is not where {source} is"
        self._compile()
        if self._cache is not None:
            self._cache.want(str([shapes[name] for name in self.engine.inputs]))
        status = module.cuda.launch(stream_handle, lambda: self._execute(shapes, addresses))
        if status != 0:
            return self._fail(f"CUDA error {status}")
        self._recorded = stream_handle if recorded else None
        module.calls.append((self.engine.name, recorded))
        module.rows.append((self.engine.name, shapes[next(iter(self.engine.inputs))][0]))
        return True

    def _execute(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        """On the stream's thread. Working memory holds noise, and is this call's alone until its end."""
        scratch = None
        if self._memory is not None:
            scratch = self.engine.runtime.module.cuda.contents(self._memory[0], (WORKING_BYTES,), np.dtype(np.uint8))
            noise = np.random.default_rng().integers(0, 256, WORKING_BYTES, np.uint8)
            scratch[...] = noise
        if self.engine.runtime.module.slow:
            let_others_run()
        contents = {
            name: self.engine.runtime.module.cuda.contents(addresses[name], shapes[name], _dtype(self.engine, name))
            for name in shapes
        }
        inputs = {name: contents[name] for name in self.engine.inputs}
        for name, result in zip(self.engine.outputs, self.engine.session.run(None, inputs), strict=True):
            assert result.shape == contents[name].shape, f"{name} is {result.shape}, not {contents[name].shape}"
            contents[name][...] = result
        if scratch is not None:
            assert np.array_equal(scratch, noise), f"another call wrote over the working memory of {self.engine.name}"

    def _compile(self) -> None:
        """Kernels are compiled on a thread of TensorRT's own, which reports what it likes to the one logger."""
        log = self.engine.runtime.logger.log
        compiler = Thread(target=log, args=(ILogger.INFO, f"kernels of {self.engine.name}"))
        compiler.start()
        compiler.join()

    def _tried(self) -> dict[str, tuple[int, ...]]:
        """Shapes of outputs that no input has, found by a run on zeros."""
        inputs = {name: np.zeros(shape, _dtype(self.engine, name)) for name, shape in self._shapes.items()}
        results = self.engine.session.run(None, inputs)
        return {name: result.shape for name, result in zip(self.engine.outputs, results, strict=True)}

    def _fail(self, reason: str) -> bool:
        self.engine.runtime.logger.log(ILogger.ERROR, reason)
        return False


def _dtype(engine: Engine, name: str) -> np.dtype[Any]:
    types = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}
    return np.dtype(types[TYPES[engine.value(name).type]])


def _aliases(graph: Any) -> list[tuple[str, str]]:
    """(output, input) of every cache that a scatter writes to, which TensorRT does where it is."""
    inputs = {value.name for value in graph.input}
    outputs = {value.name for value in graph.output}
    return [
        (node.output[0], node.input[0])
        for node in graph.node
        if node.op_type == "TensorScatter" and node.input[0] in inputs and node.output[0] in outputs
    ]
