"""The TensorRT backend: every stage's plan on the device, on the stream of its stage."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from omni2_engine._core import CudaDevice
from omni2_engine.backends.base.backend import MemoryUse, logged_load
from omni2_engine.backends.cuda.library import open_device
from omni2_engine.backends.cuda.stopwatch import Stopwatch
from omni2_engine.backends.cuda.streams import StageStreams
from omni2_engine.backends.tensorrt.graph import TensorRTGraph
from omni2_engine.backends.tensorrt.language_model import DeviceLanguageModel
from omni2_engine.backends.tensorrt.library import TensorRt, find_tensorrt
from omni2_engine.backends.tensorrt.plan import REBUILD, TensorRTPlan
from omni2_engine.backends.tensorrt.runtime_cache import read_kernels, write_kernels
from omni2_engine.errors import BackendError, EngineDirectoryError
from omni2_engine.model.config import DecoderConfig
from omni2_engine.model.manifest import PREFILL_SUFFIX, EngineDirectory
from omni2_engine.model.tables import EmbeddingTable


class TensorRTBackend:
    """Runs TensorRT plans, of either flavour.

    Args:
        device: the GPU; the first one if None.
        library: the TensorRT; the one installed if None.
        cuda_graphs: record calls that repeat as CUDA graphs.
        timed: time every call by the device's clock, copies of what it reads and writes included.

    Attributes:
        stopwatch: has the times; None unless `timed`.

    Raises:
        BackendError: there is no GPU, driver, libcudart or TensorRT.
    """

    name = "tensorrt"
    width: int | None = None  # every stage has a stream of its own

    def __init__(
        self,
        device: CudaDevice | None = None,
        library: TensorRt | None = None,
        cuda_graphs: bool = True,
        timed: bool = False,
    ) -> None:
        self.device = device or open_device()  # first: without a GPU, TensorRT is not loaded
        self.library = library or find_tensorrt()
        self.cuda_graphs = cuda_graphs
        graphs = "with" if cuda_graphs else "without"
        self.description = f"{self.library.flavour} {self.library.version} {graphs} CUDA graphs on {self.device.name}"
        self._weights = 0
        self._plans: list[TensorRTPlan] = []
        self._kernels: dict[str, bytes] = {}  # as stored
        self.stopwatch = Stopwatch(self.device) if timed else None
        self.streams = StageStreams(self.device, self.stopwatch)
        self._runtime = self.library.module.Runtime(self.library.logger)

    @property
    def target(self) -> str:
        """Architecture of the GPU: "sm89"."""
        return target_of(self.device)

    def open(self, directory: EngineDirectory, stage: str) -> TensorRTGraph:
        """Load a stage's plan; see `Backend.open`."""
        entry = directory.plan(stage, self.target, self.library.flavour, self.library.version)
        with logged_load(stage, entry.precision):
            return self._load(directory, stage, entry.file)

    def has(self, directory: EngineDirectory, stage: str) -> bool:
        """See `Backend.has`."""
        wanted = (stage, self.target, self.library.flavour, self.library.version)
        plans = directory.manifest.plans
        return any((plan.stage, plan.target, plan.flavour, plan.version) == wanted for plan in plans)

    def _load(self, directory: EngineDirectory, stage: str, file: str) -> TensorRTGraph:
        before = self.free_memory()
        engine = self._deserialize(directory.path / file, stage)
        self._weights += max(before - self.free_memory(), 0)
        if not self._plans:
            self._kernels = read_kernels(directory.runtime_cache(self.target))
        plan, stream = TensorRTPlan(self.library, engine, stage, self._kernels.get(stage)), self.streams.of(stage)
        self._plans.append(plan)
        stream.scratch(plan.working_bytes)  # now, so that `free_memory` counts it
        return TensorRTGraph(plan, stream, self.cuda_graphs)

    def language_model(
        self, directory: EngineDirectory, stage: str, config: DecoderConfig, table: EmbeddingTable, sessions: int
    ) -> DeviceLanguageModel:
        """Load a language model that decodes on the device; see `Backend.language_model`."""
        second = f"{stage}{PREFILL_SUFFIX}"
        prefill = self.open(directory, second) if self.has(directory, second) else None
        return DeviceLanguageModel(self.open(directory, stage), config, table, prefill)

    def keep(self, directory: EngineDirectory) -> None:
        """Store the kernels compiled so far; see `Backend.keep`."""
        compiled = {plan.stage: plan.kernels for plan in self._plans}
        kernels = {stage: found for stage, found in compiled.items() if found}
        if kernels != self._kernels:
            write_kernels(directory.runtime_cache(self.target), kernels)
            self._kernels = kernels

    def free_memory(self) -> int:
        """Bytes of device memory; see `Backend.free_memory`."""
        return self.device.memory()[0]

    def device_memory(self) -> MemoryUse:
        """See `Backend.device_memory`."""
        free, total = self.device.memory()
        return MemoryUse(free, total, {"weights": self._weights, "working memory": self.streams.scratch_bytes})

    def _deserialize(self, path: Path, stage: str) -> Any:
        self.library.logger.messages.clear()
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
                engine = self._runtime.deserialize_cuda_engine(plan)
        except (OSError, ValueError) as error:
            raise EngineDirectoryError(f"{path} cannot be read: {error}", REBUILD) from error
        if engine is None:
            reason = self.library.logger.messages.reason() or "it does not say why"
            raise BackendError(f"TensorRT cannot load the plan of {stage}: {reason}", REBUILD)
        return engine


def target_of(device: CudaDevice) -> str:
    """A device's architecture as plans name it: "sm89"."""
    major, minor = device.capability
    return f"sm{major}{minor}"
