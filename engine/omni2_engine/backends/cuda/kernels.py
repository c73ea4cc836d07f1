"""The kernels of `omni2_kernels` on one device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omni2_engine._core import CudaDevice, CudaKernel, CudaStream
from omni2_engine.errors import BackendError
from omni2_kernels.compile import CompileError, architecture, compile_source
from omni2_kernels.launch import Launch
from omni2_kernels.registry import KERNELS


class DeviceKernels:
    """Kernels, compiled for the device and loaded.

    Args:
        device: the GPU.
        names: of the kernels, as in the registry.
        cache: the folder of compiled kernels; the user's cache folder if None.

    Raises:
        BackendError: they cannot be compiled here, or the device refuses them.
    """

    def __init__(self, device: CudaDevice, names: Sequence[str], cache: Path | None = None) -> None:
        target = architecture(*device.capability)
        self._kernels: dict[str, CudaKernel] = {}
        for source in dict.fromkeys(KERNELS[name].source for name in names):
            try:
                module = device.load(compile_source(source, target, cache).cubin)
            except CompileError as error:
                raise BackendError(error.problem, error.remedy) from error
            for name in names:
                if KERNELS[name].source == source:
                    self._kernels[name] = module.kernel(name)

    def enqueue(self, stream: CudaStream, launch: Launch) -> None:
        """Put a launch on a stream.

        Raises:
            BackendError: the device refuses.
        """
        stream.launch(self._kernels[launch.kernel], launch.grid, launch.block, launch.arguments)
