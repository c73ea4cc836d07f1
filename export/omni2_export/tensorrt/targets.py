"""What `--target` names: the CPU, and GPUs by their architecture."""

from __future__ import annotations

import re
from dataclasses import dataclass

from omni2_engine.backends.cuda.library import gpu_architecture
from omni2_engine.backends.tensorrt.library import TensorRt, find_tensorrt
from omni2_engine.errors import BackendError, SettingError

CPU = "cpu"
ARCHITECTURE = re.compile(r"sm[1-9]\d{1,2}")


@dataclass(frozen=True)
class Targets:
    """Devices an engine is for.

    Args:
        cpu: whether graphs for ONNX Runtime are written.
        gpus: architectures that plans are built for, such as "sm89".
    """

    cpu: bool
    gpus: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, as `--target` has them."""
        return (*([CPU] if self.cpu else []), *self.gpus)


def parse_targets(text: str) -> Targets:
    """Read `--target`: "cpu" and architectures such as "sm89", separated by commas.

    Raises:
        SettingError: a target is neither.
    """
    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    for name in names:
        if name != CPU and not ARCHITECTURE.fullmatch(name):
            raise SettingError(f"unknown target {name!r}", "use cpu, sm80, sm86, sm89, sm120, or several: cpu,sm89")
    return Targets(CPU in names, tuple(name for name in names if name != CPU))


def check_buildable(gpus: tuple[str, ...]) -> TensorRt:
    """The TensorRT that builds plans for these architectures.

    Raises:
        BackendError: none is installed, or it cannot build for one of them on this machine.
    """
    library = find_tensorrt()
    if library.builds_for_other_gpus:
        known = [name.lower() for name in library.module.ComputeCapability.__members__ if name.startswith("SM")]
        remedy = "use ONNX Runtime's CUDA provider (`pip install 'omni2-engine[gpu]'`, --target cpu) on that GPU"
    else:
        present = gpu_architecture()
        known = [present] if present else []
        remedy = "build on a machine with that GPU, or install tensorrt-rtx-cu13, which needs none, in its place"
    for gpu in gpus:
        if gpu not in known:
            raise BackendError(
                f"{library.flavour} {library.version} builds no plans for {gpu} here, but for "
                f"{', '.join(known) or 'nothing, as there is no GPU'}",
                remedy,
            )
    return library
