"""Which device a benchmark is for, and what its GPU says of itself."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

import onnxruntime as ort

from omni2_engine.backends.cuda.library import gpu_architecture
from omni2_engine.backends.onnxruntime.cuda import PROVIDER
from omni2_engine.backends.select import Device
from omni2_engine.errors import BackendError, SettingError
from omni2_export.tensorrt.targets import CPU, check_buildable

# nvidia-smi's names → ours; megahertz, watts, mebibytes, degrees Celsius
FACTS = {
    "name": "name",
    "driver_version": "driver",
    "compute_cap": "compute_capability",
    "clocks.sm": "clock_mhz",
    "clocks.max.sm": "most_clock_mhz",
    "clocks.mem": "memory_clock_mhz",
    "clocks.max.mem": "most_memory_clock_mhz",
    "power.limit": "power_limit_w",
    "memory.total": "memory_mib",
    "temperature.gpu": "temperature_c",
}
PATIENCE = 20.0  # seconds: a driver that has to wake a GPU takes a few


@dataclass(frozen=True)
class Choice:
    """Where engines run, and what they are built for.

    Args:
        device: "cpu", "cuda" or "tensorrt".
        target: "cpu" for graphs of ONNX Runtime, the GPU's architecture for plans.
    """

    device: str
    target: str


ON_CPU = Choice(Device.CPU.value, CPU)


def choose(device: str) -> Choice:
    """What `--device` comes to on this machine: for "auto" plans, else the CUDA provider, else the CPU.

    Raises:
        SettingError: there is no such device.
        BackendError: it is not here, or nothing can be built for it.
    """
    if device not in list(Device):
        raise SettingError(f"unknown device {device!r}", f"use one of {', '.join(Device)}")
    if device == Device.CPU:
        return ON_CPU
    if device != Device.AUTO:
        return _choices[Device(device)]()
    for kind in (Device.TENSORRT, Device.CUDA):
        try:
            return _choices[kind]()
        except BackendError:
            continue
    return ON_CPU


def describe_gpu() -> dict[str, str | float] | None:
    """Name, driver, clocks, power limit and memory of the GPU, for JSON; None where `nvidia-smi` is not here or fails.

    What a GPU does not tell ("[N/A]") is left out.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    command = ["nvidia-smi", f"--id={first}", f"--query-gpu={','.join(FACTS)}", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    cells = [cell.strip() for cell in found.splitlines()[0].split(",")] if found.strip() else []
    if len(cells) != len(FACTS):
        return None
    return {ours: _value(ours, cell) for ours, cell in zip(FACTS.values(), cells, strict=True) if "N/A" not in cell}


def gpu_line(facts: dict[str, str | float]) -> str:
    """`describe_gpu` in one sentence."""
    parts = [str(facts.get("name", "a GPU"))]
    for label, now in (("SM clock", "clock_mhz"), ("memory clock", "memory_clock_mhz")):
        most = f"most_{now}"
        if now in facts:
            parts.append(f"{label} {facts[now]:.0f} MHz" + (f" of {facts[most]:.0f}" if most in facts else ""))
    if "power_limit_w" in facts:
        parts.append(f"power limit {facts['power_limit_w']:.0f} W")
    if "driver" in facts:
        parts.append(f"driver {facts['driver']}")
    return ", ".join(parts)


def _value(name: str, cell: str) -> str | float:
    if name in ("name", "driver", "compute_capability"):
        return cell
    try:
        return float(cell)
    except ValueError:
        return cell


def _present_gpu() -> str:
    found = gpu_architecture()
    if found is None:
        raise BackendError("there is no GPU here, or no driver", "see `omni2-engine doctor`, or use --device cpu")
    return found


def _plans() -> Choice:
    gpu = _present_gpu()
    check_buildable((gpu,))
    return Choice(Device.TENSORRT.value, gpu)


def _provider() -> Choice:
    _present_gpu()
    if PROVIDER not in ort.get_available_providers():
        raise BackendError(
            f"the ONNX Runtime {ort.__version__} installed here has no CUDA provider",
            "put onnxruntime-gpu in its place, see `omni2-engine doctor`",
        )
    return Choice(Device.CUDA.value, CPU)


_choices = {Device.TENSORRT: _plans, Device.CUDA: _provider}
