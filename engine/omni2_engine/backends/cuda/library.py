"""Finds CUDA's runtime library: the one of the pip packages, or else the system's."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from omni2_engine._core import CudaDevice
from omni2_engine.errors import BackendError

CUDART_PACKAGES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")
CUDART_SYSTEM = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
INSTALL = "install it with `pip install 'omni2-engine[tensorrt]'`"
COMPUTE_CAPABILITY = (75, 76)  # cudaDevAttrComputeCapabilityMajor and …Minor


def cudart_path() -> Path | None:
    """libcudart of the pip packages, or what the environment variable OMNI2_CUDART names; None if neither is there."""
    if chosen := os.environ.get("OMNI2_CUDART"):
        return Path(chosen)
    for package in CUDART_PACKAGES:
        try:
            files = distribution(package).files or []
        except PackageNotFoundError:
            continue
        for file in files:
            if file.name.startswith("libcudart.so"):
                return Path(str(file.locate()))
    return None


def open_device() -> CudaDevice:
    """The first GPU, through the libcudart of the pip packages or else the system's.

    Raises:
        BackendError: there is no GPU, driver or libcudart.
    """
    packaged = cudart_path()
    return CudaDevice(None if packaged is None else str(packaged))


@cache
def load_cudart() -> ctypes.CDLL:
    """Load libcudart so that TensorRT's libraries find it: the pip packages', else the system's.

    Raises:
        BackendError: it is in neither place.
    """
    packaged = cudart_path()
    reasons = []
    for library in [str(packaged)] if packaged else CUDART_SYSTEM:
        try:
            return ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            reasons.append(str(error))
    raise BackendError(f"CUDA's runtime library cannot be loaded ({'; '.join(reasons)})", INSTALL)


def gpu_architecture(device: int = 0) -> str | None:
    """Architecture of a GPU of this machine, such as "sm89"; None where there is none, or no driver.

    Raises:
        BackendError: there is no libcudart.
    """
    cudart, number = load_cudart(), ctypes.c_int()
    parts = []
    for attribute in COMPUTE_CAPABILITY:
        if cudart.cudaDeviceGetAttribute(ctypes.byref(number), attribute, device) != 0:
            return None
        parts.append(number.value)
    return f"sm{parts[0]}{parts[1]}"
