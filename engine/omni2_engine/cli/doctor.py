"""`omni2-engine doctor`: what this machine can run, and what is missing for the rest."""

from __future__ import annotations

import ctypes
import json
import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Annotated, Any

import onnxruntime as ort
import typer

from omni2_engine._core import CudaDevice, processor_instructions
from omni2_engine.backends.cuda.library import cudart_path, open_device
from omni2_engine.backends.onnxruntime.cuda import PROVIDER, OnnxRuntimeCudaBackend
from omni2_engine.backends.onnxruntime.int8 import products_saturate
from omni2_engine.backends.tensorrt.backend import target_of
from omni2_engine.backends.tensorrt.library import TensorRt, find_tensorrt
from omni2_engine.errors import BackendError, Omni2Error
from omni2_engine.memory.plan import gib
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.system.resources import available_memory, processors, total_memory

EXTRAS = {
    "export": ("onnx", "onnx-ir", "huggingface-hub", "ml-dtypes", "pyyaml"),
    "media": ("av",),
    "tensorrt": ("tensorrt-rtx-cu13", "nvidia-cuda-runtime", "nvidia-cuda-nvrtc", "cuda-bindings", "cuda-core"),
    "gpu": ("nvidia-cuda-runtime", "nvidia-cudnn-cu13", "nvidia-cufft", "nvidia-curand", "nvidia-cublas"),
    "torch": ("torch", "transformers"),
    "bench": ("matplotlib",),
}
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")  # two builds of one package: each overwrites the other's files
DRIVER = "libcuda.so.1"
# The best first: the instruction that a kernel needs, its name, and the time of a linear layer with quantisation of its
# input, (1500, 1280) by (1280, 1280), as a share of the time in float32 with the same instructions.
INT8_KERNELS: tuple[tuple[str, str, float | None], ...] = (
    ("amx_int8", "AMX", 0.12),
    ("avx512_vnni", "AVX-512 VNNI", 0.30),
    ("avx_vnni", "AVX-VNNI", 0.32),
    ("avx512f", "AVX-512 without VNNI", 0.97),
    ("avx2", "AVX2 without VNNI", 0.76),
    ("i8mm", "ARM's matrix products", None),
    ("asimddp", "ARM's dot products", None),
)
MEASURED = "(0.12 with AMX, 0.3 with VNNI; measured on one thread of a Xeon, Sapphire Rapids)"
FOR_GPUS = ("tensorrt", "gpu")  # extras
NVIDIA_VENDOR = "0x10de"  # on the PCI bus
NO_GPU = "no NVIDIA GPU here, and none is needed"
SCHEMA_VERSION = 1  # of --json


@dataclass(frozen=True)
class Finding:
    """A line, what it is about, for programs, and what to do if what it says is `wrong`."""

    about: str
    line: str
    remedy: str = ""
    wrong: bool = False


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command()
    def doctor(
        engine: Annotated[Path | None, typer.Argument(help="an engine directory: can it run here?")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="one JSON object and nothing else")] = False,
    ) -> None:
        """Say what this machine can run."""
        device, tensorrt = _device(), _tensorrt()
        findings = [*_machine(), *_int8(), *_onnx_runtime(isinstance(device, CudaDevice))]
        findings += [*_gpu(device), *_library(tensorrt)] if _nvidia(device) else [Finding("gpu", NO_GPU)]
        findings += _extras(_nvidia(device))
        if engine is not None:
            findings += _engine(EngineDirectory(engine), device, tensorrt)
        verdict = _verdict(findings, device, tensorrt)
        if as_json:
            typer.echo(json.dumps(_record([verdict, *findings]), indent=1))
        else:
            _show([verdict, *findings])
        raise typer.Exit(1 if verdict.wrong else 0)


def _verdict(findings: list[Finding], device: CudaDevice | BackendError, tensorrt: TensorRt | BackendError) -> Finding:
    """Whether this machine can run an engine, in one line."""
    if faults := [finding for finding in findings if finding.wrong]:
        return Finding("verdict", f"no: {faults[0].line.strip()}", wrong=True)
    gpu = isinstance(device, CudaDevice) and (
        PROVIDER in ort.get_available_providers() or isinstance(tensorrt, TensorRt)
    )
    return Finding("verdict", "yes: this machine can run engines on the CPU" + (" and on the GPU" if gpu else ""))


def _show(findings: list[Finding]) -> None:
    for finding in findings:
        typer.echo(finding.line)
        if finding.remedy:
            typer.echo(f"  try: {finding.remedy}")


def _record(findings: list[Finding]) -> dict[str, Any]:
    """What programs are told."""
    return {
        "schema_version": SCHEMA_VERSION,
        "omni2_engine": version("omni2-engine"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "runs": not findings[0].wrong,
        "findings": [asdict(finding) for finding in findings],
    }


def _machine() -> Iterator[Finding]:
    """Versions, processors and memory."""
    installed = f"omni2-engine {version('omni2-engine')}, Python {platform.python_version()}"
    yield Finding("versions", f"{installed}, {platform.platform()}")
    instructions = ", ".join(processor_instructions()) or "none of those that matter"
    yield Finding("processors", f"{_processors()}; instructions: {instructions}")
    yield Finding("memory", f"memory: {gib(available_memory())} of {gib(total_memory())} GiB free")


def _onnx_runtime(gpu: bool) -> Iterator[Finding]:
    """Which build of ONNX Runtime there is, and that there is just one."""
    names = {d.metadata["Name"].lower().replace("_", "-") for d in distributions() if d.metadata["Name"]}
    installed, providers = sorted(names & set(RUNTIMES)), ort.get_available_providers()
    yield Finding("onnxruntime", f"ONNX Runtime {ort.__version__} ({', '.join(installed)}): {', '.join(providers)}")
    if len(installed) > 1:
        yield Finding(
            "onnxruntime",
            "both onnxruntime and onnxruntime-gpu are installed and overwrite each other",
            f"pip uninstall -y {' '.join(RUNTIMES)}, then pip install the one you want",
            wrong=True,
        )
    elif gpu and PROVIDER not in providers:
        yield Finding(
            "onnxruntime",
            "it is the build for CPUs, and there is a GPU",
            f"pip uninstall -y onnxruntime, then {install_for_gpu()} (needed only where no plan is built for the GPU)",
        )


def install_for_gpu() -> str:
    """How the build of ONNX Runtime with the CUDA provider gets in the other's place."""
    return "OMNI2_ONNXRUNTIME=onnxruntime-gpu pip install 'omni2-engine[gpu]'"


def _device() -> CudaDevice | BackendError:
    try:
        return open_device()
    except BackendError as error:
        return error


def _gpu(device: CudaDevice | BackendError) -> Iterator[Finding]:
    """libcudart, the driver, the GPU."""
    if isinstance(device, CudaDevice):
        free, total = device.memory()
        major, minor = device.driver_version
        yield Finding("gpu", f"CUDA {'.'.join(map(str, device.runtime_version))} ({device.library})")
        yield Finding(
            "gpu",
            f"GPU {device.name}, {target_of(device)}, {gib(free)} of {gib(total)} GiB free, "
            f"driver for CUDA {major}.{minor}",
        )
        yield Finding("gpu", "its makers had no GPU: `make test-gpu` in a checkout checks everything on yours")
        return
    found = cudart_path()
    yield Finding("gpu", f"libcudart: {found or 'not among the pip packages'}; driver ({DRIVER}): {_driver()}")
    yield Finding("gpu", f"no GPU can be used: {device.problem}", device.remedy)


def _nvidia(device: CudaDevice | BackendError) -> bool:
    """Whether there is anything of NVIDIA's: a GPU that can be used, a driver, or a card."""
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    return (
        isinstance(device, CudaDevice)
        or _driver() == "installed"
        or any(vendor.read_text().strip() == NVIDIA_VENDOR for vendor in vendors)
    )


def _driver() -> str:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return "not installed"
    return "installed"


def _tensorrt() -> TensorRt | BackendError:
    try:
        return find_tensorrt()
    except BackendError as error:
        return error


def _library(tensorrt: TensorRt | BackendError) -> Iterator[Finding]:
    """TensorRT."""
    if isinstance(tensorrt, BackendError):
        yield Finding("tensorrt", tensorrt.problem, tensorrt.remedy)
    else:
        yield Finding("tensorrt", f"TensorRT: {tensorrt.flavour} {tensorrt.version}")


def _engine(
    directory: EngineDirectory, device: CudaDevice | BackendError, tensorrt: TensorRt | BackendError
) -> Iterator[Finding]:
    """What an engine is for, and whether that is here."""
    manifest = directory.manifest
    yield Finding("engine", f"{directory.path}: {manifest.model.name} for {', '.join(manifest.targets)}")
    on_cpu = directory.graph("llm").is_file()
    if on_cpu:
        refused = _refused(directory, device)
        yield Finding("engine", "  its graphs run on the CPU" + ("" if refused else " and on the GPU"))
        if isinstance(refused, BackendError):
            yield Finding("engine", f"  the CUDA provider does not take them: {refused.problem}", refused.remedy)
    if not manifest.plans:
        return
    error = _why_not(directory, device, tensorrt)
    if error is not None:
        yield Finding("engine", f"  its plans cannot run here: {error.problem}", error.remedy, wrong=not on_cpu)
    else:
        yield Finding("engine", "  its plans are for this GPU and this TensorRT")


def _refused(directory: EngineDirectory, device: CudaDevice | BackendError) -> bool | BackendError:
    """Whether the CUDA provider is not there, or what it has against an engine's graphs."""
    if PROVIDER not in ort.get_available_providers() or isinstance(device, BackendError):
        return True
    try:
        OnnxRuntimeCudaBackend.check(directory)
    except BackendError as error:
        return error
    return False


def _why_not(
    directory: EngineDirectory, device: CudaDevice | BackendError, tensorrt: TensorRt | BackendError
) -> Omni2Error | None:
    """What keeps the plans of an engine from running."""
    if isinstance(device, BackendError):
        return device
    if isinstance(tensorrt, BackendError):
        return tensorrt
    try:
        for stage in dict.fromkeys(plan.stage for plan in directory.manifest.plans):
            directory.plan(stage, target_of(device), tensorrt.flavour, tensorrt.version)
    except Omni2Error as error:
        return error
    return None


def _extras(nvidia: bool) -> Iterator[Finding]:
    """Packages of every extra that is of use here."""
    for extra, packages in EXTRAS.items():
        if extra in FOR_GPUS and not nvidia:
            continue
        missing = [package for package in packages if _version(package) is None]
        if missing:
            install = install_for_gpu() if extra == "gpu" else f"pip install 'omni2-engine[{extra}]'"
            yield Finding("extras", f"extra {extra}: missing {', '.join(missing)}; {install}")
        else:
            yield Finding("extras", f"extra {extra}: {', '.join(_named(packages))}")


def _named(packages: Iterable[str]) -> Iterator[str]:
    for package in packages:
        yield f"{package} {_version(package)}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _int8() -> Iterator[Finding]:
    """The processor's kernel for products of bytes, and what it costs."""
    has = processor_instructions()
    kernels = ((name, share) for instruction, name, share in INT8_KERNELS if instruction in has)
    name, share = next(kernels, ("no instructions for it", None))
    exact = "its products would saturate, so exact ones are asked for" if products_saturate() else "products are exact"
    yield Finding("int8", f"int8: {name}; {exact}")
    if share is not None:
        yield Finding("int8", f"  a layer of an encoder takes {share} of its time in float32 {MEASURED}")


def _processors() -> str:
    """How many processors this process may use."""
    usable, there = processors(), os.cpu_count() or 0
    return f"{usable} processors" + (f" of {there}: this process may use no more" if usable < there else "")
