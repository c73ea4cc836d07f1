"""Builds the stub driver: libraries that ONNX Runtime's CUDA provider loads in place of CUDA's, cuBLAS and cuDNN.

What a function must do for the provider to go on is written down in `stub_driver`; every other one that the provider
asks for is generated, does nothing and succeeds.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).parent / "stub_driver"
LIBRARIES = {  # in the order they are loaded → names of their functions; the first that fits has a function
    "libcudart.so.13": r"(__)?cuda\w+",
    "libcublasLt.so.13": r"cublasLt\w+",
    "libcublas.so.13": r"cublas\w+",
    "libcudnn.so.9": r"cudnn\w+",
    "libcurand.so.10": r"curand\w+",
    "libcuda.so.1": r"cu[A-Z]\w+",
}
VERSIONED = ("libcudart", "libcublas", "libcublasLt")  # the provider asks for symbols of a version named as the file


def asked_for(provider: Path) -> set[str]:
    """Functions of the libraries that a provider takes, those of cuDNN by their names alone."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", provider], text=True, capture_output=True, check=True)
    names = {line.split()[-1].partition("@")[0] for line in listed.stdout.splitlines()}
    return names | {name.decode() for name in re.findall(rb"\bcudnn[A-Z]\w{3,60}(?=\0)", provider.read_bytes())}


def build(provider: Path, folder: Path, includes: Sequence[Path]) -> list[Path]:
    """Compile all libraries.

    Args:
        provider: `libonnxruntime_providers_cuda.so`.
        folder: for the libraries.
        includes: with `cuda_runtime_api.h` and `crt/host_defines.h`.

    Returns:
        The libraries in the order to load them.
    """
    names, built = asked_for(provider), list[Path]()
    for library, pattern in LIBRARIES.items():
        own = {name for name in names if re.fullmatch(pattern, name)}
        names -= own
        stem = library.partition(".")[0]
        source = SOURCES / f"{stem.removeprefix('lib').lower()}.cpp"
        generated = folder / f"{stem}_generated.cpp"
        functions = "\n".join(f"__attribute__((weak)) int {name}(...) {{ return 0; }}" for name in sorted(own))
        generated.write_text(f'extern "C" {{\n{functions}\n}}\n', encoding="ascii")
        path = folder / library
        command = ["g++", "-std=c++17", "-O1", "-w", "-shared", "-fPIC", f"-Wl,-soname,{library}"]
        command += [f"-I{include}" for include in includes]
        if stem in VERSIONED:
            versions = folder / f"{stem}.map"
            versions.write_text(f"{library} {{ global: *; }};\n", encoding="ascii")
            command.append(f"-Wl,--version-script={versions}")
        sources = [source] if source.exists() else []
        subprocess.run([*command, "-o", path, generated, *sources, *built[:1]], check=True)
        built.append(path)
    return built
