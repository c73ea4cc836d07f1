"""ONNX Runtime's CUDA provider: the same graphs as on the CPU, for GPUs that no plan was built for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from omni2_engine._core import CudaDevice
from omni2_engine.backends.base.backend import MemoryUse
from omni2_engine.backends.base.graph import Array, Arrays
from omni2_engine.backends.cuda.library import open_device
from omni2_engine.backends.cuda.state import DeviceState
from omni2_engine.backends.cuda.stopwatch import Stopwatch
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.cuda.streams import StageStreams
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.backends.onnxruntime.graph import OnnxRuntimeGraph, Provider
from omni2_engine.errors import BackendError
from omni2_engine.model.manifest import EngineDirectory

PROVIDER = "CUDAExecutionProvider"  # ONNX Runtime's name for it
# Stages whose int8 format quantises activations in every call: the provider leaves such products to one CPU thread.
DYNAMIC = ("encoder", "flow")
PLACEMENT = "session.record_ep_graph_assignment_info"  # lets a session tell which node runs where
# Operators on shapes, which are on the host anyway: none of them is work.
SHAPE_ARITHMETIC = frozenset({"Add", "Cast", "Concat", "Div", "Gather", "Mul", "Neg", "Range", "Reshape", "Shape"})
SHAPE_ARITHMETIC |= {"Slice", "Squeeze", "Sub", "Unsqueeze"}
# What may be rounded to TF32 where the engine is not "exact"; log-mel, F0 and the source's phase never are.
ROUNDED = frozenset({"encoder", "llm", "fusion", "speech_lm", "flow_encoder", "flow_step"})
VOCODER = "vocoder"
SHAPES_APART = 2  # shapes of the vocoder's input that have a session of their own: a turn's first call, the usual one


class CudaProvider:
    """The CUDA provider on the stream of one stage; see `Provider`.

    Args:
        stream: of the stage.
        stage: its name.
        tf32: let products of float32 keep ten bits of their operands, which are four times as fast from SM80 on.
    """

    device = "cuda"

    def __init__(self, stream: StageStream, stage: str, tf32: bool = False) -> None:
        self._stream = stream
        self.stage = stage
        # one CUDA stream for both, so that work on the state stays in order with ONNX Runtime
        options = {"device_id": "0", "user_compute_stream": str(stream.cuda.handle), "use_tf32": str(int(tf32))}
        self.providers: list[Any] = [(PROVIDER, options), "CPUExecutionProvider"]

    def state(self, specs: Mapping[str, tuple[Sequence[int], np.dtype[Any]]]) -> DeviceState:
        """Memory of the device."""
        return DeviceState(self._stream, specs)

    def timed(self) -> AbstractContextManager[None]:
        """By the device's clock, if calls are timed; see `Provider.timed`."""
        return self._stream.timed(self.stage)


class ShapeSessions(OnnxRuntimeGraph):
    """Sessions of one graph, for inputs of different shapes.

    ONNX Runtime keeps cuDNN's plans of a convolution for the last shape alone and makes them anew when it changes. The
    first shapes have a session each, so that their plans stay; all others share one more.

    Args:
        make: a session.
        provider: where they run.
        telling: the input that tells shapes apart.
    """

    def __init__(self, make: Callable[[], ort.InferenceSession], provider: Provider, telling: str) -> None:
        super().__init__(make(), provider)
        self._make, self._telling = make, telling
        self._apart: dict[tuple[int, ...], OnnxRuntimeGraph] = {}

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with all inputs given; see `Graph.run`."""
        shape = inputs[self._telling].shape
        if shape not in self._apart and len(self._apart) < SHAPES_APART:
            self._apart[shape] = OnnxRuntimeGraph(self._make(), self._provider)
        graph = self._apart.get(shape)
        return graph.run(inputs) if graph else super().run(inputs)


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """Runs graphs with ONNX Runtime on a GPU. State stays there; small arrays are copied with every call.

    Args:
        device: the GPU; the first one if None.
        timed: time every call by the device's clock, copies of what it reads and writes included.

    Attributes:
        stopwatch: has the times; None unless `timed`.

    Raises:
        BackendError: the ONNX Runtime installed has no CUDA provider, or there is no GPU.
    """

    name = "onnxruntime-cuda"
    even_batches = False

    def __init__(self, device: CudaDevice | None = None, timed: bool = False) -> None:
        super().__init__(threads=1)  # what the provider leaves to the CPU is small
        self.width = None  # every stage has a stream of its own
        self.device = device or open_device()
        self.description = f"ONNX Runtime {ort.__version__}, CUDA provider, on {self.device.name}"
        if PROVIDER not in ort.get_available_providers():
            raise BackendError(
                f"the ONNX Runtime {ort.__version__} installed here has no CUDA provider",
                "put onnxruntime-gpu in its place, see `omni2-engine doctor`, or load with device='cpu'",
            )
        self.stopwatch = Stopwatch(self.device) if timed else None
        self.streams = StageStreams(self.device, self.stopwatch)
        self._free_before = self.free_memory()
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # of CUDA and cuDNN, where pip has put them

    def free_memory(self) -> int:
        """Bytes of device memory; see `Backend.free_memory`."""
        return self.device.memory()[0]

    def device_memory(self) -> MemoryUse:
        """What ONNX Runtime took for weights; see `Backend.device_memory`."""
        free, total = self.device.memory()
        return MemoryUse(free, total, {"weights": max(self._free_before - free, 0)})

    @staticmethod
    def check(directory: EngineDirectory) -> None:
        """Refuse an engine with number formats that the provider has no kernels for.

        Raises:
            BackendError: it has some.
        """
        stored = directory.manifest.precision
        left = [stage for stage, kind in stored.items() if kind == "w8a8" or (stage in DYNAMIC and "int8" in kind)]
        if left:
            raise BackendError(
                f"{directory.path} has {' and '.join(left)} in int8, which the CUDA provider leaves to one CPU thread",
                f"build it with --precision {','.join(['balanced', *(f'{stage}=fp32' for stage in left)])}, "
                "or load with device='cpu'",
            )

    def open(self, directory: EngineDirectory, stage: str) -> OnnxRuntimeGraph:
        """Load a stage's graph; see `Backend.open`. TF32 is off in an engine whose every stage is float32."""
        self.check(directory)
        rounded = stage in ROUNDED and any(stored != "fp32" for stored in directory.manifest.precision.values())
        if not rounded:
            return self.load(directory.graph(stage))
        return self.load_on(directory.graph(stage), CudaProvider(self.streams.of(stage), stage, tf32=True))

    def load_on(self, path: Path, provider: Provider) -> OnnxRuntimeGraph:
        """Load the graph at `path`; see `OnnxRuntimeBackend.load_on`."""
        if path.stem != VOCODER:
            return super().load_on(path, provider)
        return ShapeSessions(lambda: self.session(str(path), path.name, provider), provider, "mel")

    def provider(self, stage: str) -> CudaProvider:
        """The GPU, on the stream of the stage, without TF32."""
        return CudaProvider(self.streams.of(stage), stage)

    def options(self) -> ort.SessionOptions:
        """How every session is set up; see `OnnxRuntimeBackend.options`."""
        options = super().options()
        options.add_session_config_entry(PLACEMENT, "1")
        return options

    def session(self, model: str | bytes, label: str, provider: Any, weights: Any = None) -> ort.InferenceSession:
        """A session on the GPU, or an error: ONNX Runtime itself only warns, and runs on the CPU."""
        session = super().session(model, label, provider, weights)
        if session.get_providers()[0] != PROVIDER:
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot start its CUDA provider",
                "install the CUDA and cuDNN it was built for (pip install 'omni2-engine[gpu]'), see what "
                "`omni2-engine doctor` says, or load with device='cpu'",
            )
        left = work_on_the_host(session)
        if left:
            kinds = ", ".join(sorted({kind for kind, _ in left}))
            raise BackendError(
                f"the CUDA provider of ONNX Runtime {ort.__version__} leaves {len(left)} nodes of {label} to one CPU "
                f"thread ({kinds}; {left[0][1]} the first)",
                "build the engine with --precision exact, or load with device='cpu'",
            )
        return session


def work_on_the_host(session: ort.InferenceSession) -> list[tuple[str, str]]:
    """(operator, name) of nodes that do not run on the GPU though they are work; none told by an old ONNX Runtime."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return []
    return [
        (node.op_type, node.name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
        if part.ep_name != PROVIDER and node.op_type not in SHAPE_ARITHMETIC
    ]
