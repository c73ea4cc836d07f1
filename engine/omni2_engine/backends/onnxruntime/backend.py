"""The ONNX Runtime backend on the CPU: one session per graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from omni2_engine.backends.base.backend import MemoryUse, logged_load
from omni2_engine.backends.base.host_language_model import HostLanguageModel
from omni2_engine.backends.cuda.stopwatch import Stopwatch
from omni2_engine.backends.onnxruntime.graph import OnnxRuntimeGraph, Provider
from omni2_engine.backends.onnxruntime.int8 import EXACT_PRODUCTS, needs_exact_products
from omni2_engine.errors import BackendError, EngineDirectoryError
from omni2_engine.model.config import DecoderConfig
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.model.tables import EmbeddingTable
from omni2_engine.system.reservation import Reservation
from omni2_engine.system.resources import available_memory, processors


class CpuProvider:
    """The processor and its memory; see `Provider`."""

    device = "cpu"
    providers: list[Any] = ["CPUExecutionProvider"]  # noqa: RUF012 (it is not changed)

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def state(self, specs: Mapping[str, tuple[Sequence[int], np.dtype[Any]]]) -> Reservation:
        """Memory that the system provides as it fills."""
        return Reservation(specs)

    def timed(self) -> AbstractContextManager[None]:
        """Not timed here: callers time calls by the clock of the processor."""
        return nullcontext()


class OnnxRuntimeBackend:
    """Runs graphs with ONNX Runtime on the CPU.

    Args:
        threads: threads per graph call; all processors this process may use if None.
    """

    name = "onnxruntime"
    width: int | None
    even_batches = True  # kernels of quantised weights need them, see `HostLanguageModel`
    stopwatch: Stopwatch | None = None
    matmul_accuracy = "4"  # lets block-quantised weights run in the int8 kernel instead of being expanded

    def __init__(self, threads: int | None = None) -> None:
        usable = processors()
        self.threads = threads or usable
        self.description = f"ONNX Runtime {ort.__version__} on the CPU, {self.threads} threads a call"
        # One call more than the processors hold: it runs while threads of another call wait for the slowest one.
        self.width = usable // self.threads + 1

    def open(self, directory: EngineDirectory, stage: str) -> OnnxRuntimeGraph:
        """Load a stage's graph; see `Backend.open`."""
        with logged_load(stage, directory.manifest.precision.get(stage, "fp32")):
            return self.load(directory.graph(stage))

    def has(self, directory: EngineDirectory, stage: str) -> bool:
        """See `Backend.has`."""
        return directory.graph(stage).is_file()

    def language_model(
        self, directory: EngineDirectory, stage: str, config: DecoderConfig, table: EmbeddingTable, sessions: int
    ) -> HostLanguageModel:
        """Load a language model; see `Backend.language_model`."""
        by_pairs = directory.manifest.precision.get(stage, "fp32") not in ("fp32", "w8a8")
        even_batches = self.even_batches and sessions > 1 and by_pairs
        return HostLanguageModel(self.open(directory, stage), config, table, even_batches)

    def keep(self, directory: EngineDirectory) -> None:
        """Nothing; see `Backend.keep`."""

    def free_memory(self) -> int:
        """Bytes of main memory; see `Backend.free_memory`."""
        return available_memory()

    def device_memory(self) -> MemoryUse | None:
        """None; see `Backend.device_memory`."""
        return None

    def load(self, path: Path) -> OnnxRuntimeGraph:
        """Load the graph at `path`, which is named after its stage.

        Raises:
            EngineDirectoryError: the file is missing.
            BackendError: ONNX Runtime cannot run it.
        """
        if not path.is_file():
            raise EngineDirectoryError(f"the engine has no {path.name}", "build it again with `omni2-engine build`")
        return self.load_on(path, self.provider(path.stem))

    def load_on(self, path: Path, provider: Provider) -> OnnxRuntimeGraph:
        """Load the graph at `path` for a provider; see `load`."""
        return OnnxRuntimeGraph(self.session(str(path), path.name, provider), provider)

    def load_bytes(self, model: bytes, folder: Path, label: str) -> OnnxRuntimeGraph:
        """Load a graph held in memory.

        Args:
            model: a serialised ONNX model.
            folder: where the weight files it refers to are.
            label: what errors call it.

        Raises:
            BackendError: ONNX Runtime cannot run it.
        """
        provider = self.provider(label)
        return OnnxRuntimeGraph(self.session(model, label, provider, folder), provider)

    def provider(self, stage: str) -> Provider:
        """Where a stage's graph runs."""
        return CpuProvider(stage)

    def session(
        self, model: str | bytes, label: str, provider: Provider, weights: Path | None = None
    ) -> ort.InferenceSession:
        options = self.options()
        if weights is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
        if needs_exact_products(model):
            options.add_session_config_entry(*EXACT_PRODUCTS)
        try:
            session = ort.InferenceSession(model, options, providers=provider.providers)
        except Exception as error:  # ONNX Runtime raises a family of its own exception types
            text = str(error).splitlines()[0][:300]
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot load {label}: {text}",
                "check the engine with `omni2-engine inspect --check`, and that onnxruntime is at least 1.25",
            ) from error
        session.disable_fallback()  # it would print to standard output and go on without the GPU
        return session

    def options(self) -> ort.SessionOptions:
        """How every session is set up; `session` adds what depends on the model."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # several sessions on few processors: a spinning pool takes time from the one that has work
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", self.matmul_accuracy)
        return options
