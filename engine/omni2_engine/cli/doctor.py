"""`omni2-engine doctor`: what this machine can run, and what is missing for the rest."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, distributions, version

import onnxruntime as ort
import typer

EXTRAS = {
    "export": ("onnx", "onnx-ir", "huggingface-hub", "ml-dtypes", "pyyaml"),
    "torch": ("torch", "transformers"),
    "bench": ("matplotlib", "psutil"),
}
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command()
    def doctor() -> None:
        """Say what this machine can run."""
        typer.echo(f"omni2-engine {version('omni2-engine')}, Python {platform.python_version()}, {platform.platform()}")
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        typer.echo(f"{processors} processors; instructions: {_instructions()}")
        installed = sorted({d.metadata["Name"].lower() for d in distributions() if d.metadata["Name"]} & set(RUNTIMES))
        typer.echo(
            f"ONNX Runtime {ort.__version__} ({', '.join(installed)}): {', '.join(ort.get_available_providers())}"
        )
        healthy = True
        if len(installed) > 1:
            healthy = False
            typer.echo("both onnxruntime and onnxruntime-gpu are installed and overwrite each other")
            typer.echo("  try: pip uninstall -y onnxruntime onnxruntime-gpu, then pip install the one you want")
        for extra, packages in EXTRAS.items():
            missing = [package for package in packages if _version(package) is None]
            found = ", ".join(f"{package} {_version(package)}" for package in packages if package not in missing)
            if missing:
                typer.echo(f"extra {extra}: missing {', '.join(missing)}; pip install 'omni2-engine[{extra}]'")
            else:
                typer.echo(f"extra {extra}: {found}")
        raise typer.Exit(0 if healthy else 1)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _instructions() -> str:
    """Processor features that decide how fast int8 and float32 run."""
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            words = set(file.read().split())
    except OSError:
        return "unknown"
    return ", ".join(feature for feature in wanted if feature in words) or "none of those that matter"
