"""Which backend runs an engine: the one asked for, or the fastest that this machine and the engine's files allow."""

from __future__ import annotations

import logging
from enum import StrEnum

import onnxruntime as ort

from omni2_engine._core import CudaDevice
from omni2_engine.backends.base.backend import Backend
from omni2_engine.backends.cuda.library import open_device
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.backends.onnxruntime.cuda import PROVIDER, OnnxRuntimeCudaBackend
from omni2_engine.backends.tensorrt.backend import TensorRTBackend
from omni2_engine.errors import BackendError, Omni2Error
from omni2_engine.model.manifest import EngineDirectory

FIRST = "llm"  # every engine has it; its files stand for those of all stages

log = logging.getLogger("omni2_engine.backends")


class Device(StrEnum):
    """AUTO: TensorRT if there are plans for the GPU, else the CUDA provider if ONNX Runtime has one, else the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


def select_backend(
    directory: EngineDirectory,
    device: Device,
    threads: int | None = None,
    cuda_graphs: bool = True,
    timed: bool = False,
) -> Backend:
    """Make a backend.

    Args:
        directory: what it is to run.
        device: where.
        threads: of every graph call on the CPU.
        cuda_graphs, timed: see `TensorRTBackend`; the CPU has no clock of its own.

    Raises:
        EngineDirectoryError: the engine has no files for that device.
        BackendError: this machine cannot run it.
    """
    if device is Device.TENSORRT:
        return _tensorrt(directory, cuda_graphs, timed)
    if device is Device.CUDA:
        return _cuda(directory, timed)
    if device is Device.CPU:
        return _cpu(directory, threads)
    return _on_gpu(directory, cuda_graphs, timed) or _cpu(directory, threads)


def _on_gpu(directory: EngineDirectory, cuda_graphs: bool, timed: bool) -> Backend | None:
    """The fastest backend for the GPU; None if there is no GPU, or no file for it, and the CPU can run the engine."""
    if not directory.manifest.plans and PROVIDER not in ort.get_available_providers():
        return None  # and the GPU is not initialised
    refused: list[Omni2Error] = []
    level = logging.INFO
    try:
        gpu = open_device()
        level = logging.WARNING  # there is a GPU, and it will idle
        if directory.manifest.plans:
            try:
                return _tensorrt(directory, cuda_graphs, timed, gpu)
            except Omni2Error as error:
                refused.append(error)
        return _cuda(directory, timed, gpu)
    except Omni2Error as error:
        refused.append(error)
    if not directory.graph(FIRST).is_file():
        raise BackendError(f"{directory.path} is for GPUs alone, and {refused[0].problem}", refused[0].remedy)
    log.log(level, "running on the CPU: %s", "; ".join(map(str, refused)))
    return None


def _tensorrt(directory: EngineDirectory, cuda_graphs: bool, timed: bool, gpu: CudaDevice | None = None) -> Backend:
    backend = TensorRTBackend(gpu, cuda_graphs=cuda_graphs, timed=timed)
    directory.plan(FIRST, backend.target, backend.library.flavour, backend.library.version)
    return backend


def _cuda(directory: EngineDirectory, timed: bool, gpu: CudaDevice | None = None) -> Backend:
    _check_graphs(directory)
    OnnxRuntimeCudaBackend.check(directory)
    return OnnxRuntimeCudaBackend(gpu, timed)


def _cpu(directory: EngineDirectory, threads: int | None) -> Backend:
    _check_graphs(directory)
    return OnnxRuntimeBackend(threads)


def _check_graphs(directory: EngineDirectory) -> None:
    if not directory.graph(FIRST).is_file():
        raise BackendError(
            f"{directory.path} has no graphs for ONNX Runtime, only plans for {', '.join(directory.manifest.targets)}",
            "build it again with `omni2-engine build --target cpu` added",
        )
