"""ONNX Runtime's CUDA provider: the same graphs as on the CPU, for GPUs that no plan was built for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import onnxruntime as ort

from omni2_engine._core import CudaDevice
from omni2_engine.backends.base.backend import MemoryUse
from omni2_engine.backends.cuda.library import open_device
from omni2_engine.backends.cuda.state import DeviceState
from omni2_engine.backends.cuda.stopwatch import Stopwatch
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.cuda.streams import StageStreams
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.errors import BackendError

PROVIDER = "CUDAExecutionProvider"  # ONNX Runtime's name for it


class CudaProvider:
    """The CUDA provider on the stream of one stage; see `Provider`."""

    device = "cuda"

    def __init__(self, stream: StageStream, stage: str) -> None:
        self._stream = stream
        self._stage = stage
        # one CUDA stream for both, so that work on the state stays in order with ONNX Runtime
        options = {"device_id": "0", "user_compute_stream": str(stream.cuda.handle)}
        self.providers: list[Any] = [(PROVIDER, options), "CPUExecutionProvider"]

    def state(self, specs: Mapping[str, tuple[Sequence[int], np.dtype[Any]]]) -> DeviceState:
        """Memory of the device."""
        return DeviceState(self._stream, specs)

    def timed(self) -> AbstractContextManager[None]:
        """By the device's clock, if calls are timed; see `Provider.timed`."""
        return self._stream.timed(self._stage)


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

    def provider(self, stage: str) -> CudaProvider:
        """The GPU, on the stream of the stage."""
        return CudaProvider(self.streams.of(stage), stage)

    def session(self, model: str | bytes, label: str, provider: Any, weights: Any = None) -> ort.InferenceSession:
        """A session on the GPU, or an error: ONNX Runtime itself only warns, and runs on the CPU."""
        session = super().session(model, label, provider, weights)
        if session.get_providers()[0] != PROVIDER:
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot start its CUDA provider",
                "install the CUDA and cuDNN it was built for (pip install 'omni2-engine[gpu]'), see what "
                "`omni2-engine doctor` says, or load with device='cpu'",
            )
        return session
