"""What the checks for a GPU run on: the machine's own GPU, or the stand-ins, behind one interface."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnxruntime as ort

from omni2_engine import Engine
from omni2_engine._core import CudaDevice
from omni2_engine.backends.base.backend import Backend
from omni2_engine.backends.cuda.library import open_device
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.backends.onnxruntime.cuda import PROVIDER, OnnxRuntimeCudaBackend
from omni2_engine.backends.tensorrt.backend import TensorRTBackend, target_of
from omni2_engine.backends.tensorrt.library import MAINLINE, TensorRt, new_logger
from omni2_engine.errors import BackendError, Omni2Error
from omni2_engine.model.manifest import MANIFEST, EngineDirectory
from omni2_export.build import PRESETS, BuildRequest, build_engine, parse_precision
from omni2_export.build.precision import GPU, device_floor
from omni2_export.checkpoint import Checkpoint
from omni2_export.tensorrt.plans import OLDEST
from omni2_export.tensorrt.shapes import Sizes
from omni2_export.tensorrt.targets import CPU, check_buildable

from ..engine.stand_ins.cuda import FakeCuda
from ..engine.stand_ins.plans import add_plans
from ..engine.stand_ins.tensorrt import VERSION, FakeTensorRt

SESSIONS = 8
SIZES = Sizes(sessions=SESSIONS, context=1024, new_tokens=48, last_write=64)


@dataclass(frozen=True)
class Rig:
    """An engine with float32 graphs for the CPU and files for the device.

    Args:
        name: for the reader.
        checkpoint: of which it was built.
        engine: its directory.
        make_backend: with or without CUDA graphs.
        open_device: the device itself.
    """

    name: str
    checkpoint: Checkpoint
    engine: Path
    make_backend: Callable[[bool], Backend]
    open_device: Callable[[], CudaDevice]

    @cached_property
    def directory(self) -> EngineDirectory:
        """The engine directory, opened."""
        return EngineDirectory(self.engine)

    def floor(self, backend: Backend, stage: str) -> float:
        """The least dB that a stage keeps on the device."""
        if not isinstance(backend, TensorRTBackend):
            return device_floor(stage, "fp32")  # the CPU's own graphs
        library = backend.library
        plan = self.directory.plan(stage, backend.target, library.flavour, library.version)
        return device_floor(stage, plan.precision)

    def load(self, sessions: int = 1, cuda_graphs: bool = True, warm_up: bool = False) -> Engine:
        """The engine on the device."""
        backend = self.make_backend(cuda_graphs)
        context = SIZES.context - 1
        return Engine.load(self.engine, backend=backend, sessions=sessions, max_context=context, warm_up=warm_up)

    def load_on_cpu(self) -> Engine:
        """Its float32 graphs on the CPU."""
        return Engine.load(self.engine, backend=OnnxRuntimeBackend(1), max_context=SIZES.context - 1, warm_up=False)


def find_gpu() -> tuple[str, str] | str:
    """The GPU's architecture and what runs engines on it, "tensorrt" or "cuda"; or in one sentence why nothing does."""
    try:
        target = target_of(open_device())
    except BackendError as error:
        return f"no GPU can be used: {error}"
    try:
        check_buildable((target,))
        return target, "tensorrt"
    except Omni2Error as error:
        if PROVIDER in ort.get_available_providers():
            return target, "cuda"
        return f"nothing runs engines on this GPU ({target}): {error}; and ONNX Runtime has no CUDA provider"


def presets(found: tuple[str, str] | None) -> tuple[str, ...]:
    """What plans are checked in.

    Args:
        found: of `find_gpu`; None for the stand-ins, which know float32 alone, as the graphs for the CUDA provider do.
    """
    if found is None or found[1] == "cuda":
        return ("exact",)
    fp8 = int(found[0].removeprefix("sm")) >= OLDEST["fp8"]
    return ("exact", "balanced", "fast", *(("fp8", "mixed") if fp8 else ()))


def gpu_rig(checkpoint: Checkpoint, voice: Path, preset: str, folder: Path, found: tuple[str, str]) -> Rig:
    """Build the engine for the GPU that `find_gpu` found."""
    target, kind = found
    path = folder / f"engine-{preset}"
    targets = f"{CPU},{target}" if kind == "tensorrt" else CPU
    exact, formats = PRESETS["exact"].loaded_with("tail"), parse_precision(preset, GPU).loaded_with("tail")
    build_engine(BuildRequest(checkpoint, path, [voice], exact, targets, formats, SIZES))
    _load_window(path)
    name = f"{target}, {kind}, {preset}"
    if kind == "cuda":
        return Rig(name, checkpoint, path, lambda graphs: OnnxRuntimeCudaBackend(), open_device)
    return Rig(name, checkpoint, path, lambda graphs: TensorRTBackend(cuda_graphs=graphs), open_device)


def stand_in_rig(checkpoint: Checkpoint, voice: Path, folder: Path, cuda: FakeCuda) -> Rig:
    """The same with plans that ONNX Runtime executes in float32, on a device that is none."""
    path = folder / "engine"
    build_engine(BuildRequest(checkpoint, path, [voice], PRESETS["exact"].loaded_with("tail")))
    _load_window(path)
    (folder / "graphs").mkdir()
    library = TensorRt(None, MAINLINE, VERSION, None)
    add_plans(path, checkpoint, library, "sm89", SIZES, folder / "graphs", encoder="tail")

    def backend(cuda_graphs: bool) -> TensorRTBackend:
        module = FakeTensorRt(cuda)
        library = TensorRt(module, MAINLINE, VERSION, new_logger(module))
        return TensorRTBackend(CudaDevice(cuda.path), library, cuda_graphs)

    return Rig("stand-in", checkpoint, path, backend, lambda: CudaDevice(cuda.path))


def _load_window(engine: Path) -> None:
    """Say in the manifest that an engine is loaded without its tails: one check asks for them."""
    manifest = json.loads((engine / MANIFEST).read_text())
    manifest["settings"]["encoder"] = "window"
    (engine / MANIFEST).write_text(json.dumps(manifest))


def threads() -> int:
    """For what the CPU computes beside it."""
    return len(os.sched_getaffinity(0))
