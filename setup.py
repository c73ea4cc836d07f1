"""Builds the C++ extension `omni2_engine._core`, says which folder holds which package and what they need.

ONNX Runtime comes in two builds, `onnxruntime` for CPUs and `onnxruntime-gpu` with a CUDA provider, which overwrite
each other's files. An extra can add to what is installed, not replace it; so the build is chosen here, and no extra
names either:

    pip install .                                              # onnxruntime
    OMNI2_ONNXRUNTIME=onnxruntime-gpu pip install '.[gpu]'     # onnxruntime-gpu, and the CUDA libraries it needs
"""

from __future__ import annotations

import os
import sys
from glob import glob
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

FOLDERS = {
    "omni2_kernels": "kernels",
    "omni2_engine": "engine",
    "omni2_export": "export",
    "omni2_serve": "serve",
    "omni2_bench": "bench",
}  # training/ is a distribution of its own, which users do not get

# What samplers on the host and kernels on the GPU compute alike stands once, where NVRTC finds it at run time.
SHARED_ARITHMETIC = "kernels/omni2_kernels/cuda"

ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
ONNX_RUNTIME = os.environ.get("OMNI2_ONNXRUNTIME", ONNX_RUNTIMES[0])
if ONNX_RUNTIME not in ONNX_RUNTIMES:
    sys.exit(f"OMNI2_ONNXRUNTIME is {ONNX_RUNTIME!r}: use one of {', '.join(ONNX_RUNTIMES)}")
DEPENDENCIES = [
    "filelock>=3.30",
    "jinja2>=3.1",
    "numpy>=1.26",
    f"{ONNX_RUNTIME}>=1.25",
    "psutil>=5.9; platform_system != 'Linux'",  # which says in /proc how much memory there is
    "pydantic>=2.7",
    "rich>=13",
    "soundfile>=0.12",
    "soxr>=1.1",
    "tokenizers>=0.20",
    "typer>=0.12",
]

# Random numbers must agree to the last bit everywhere: no fused multiply-adds, no re-ordering, no -march. The last two
# flags change no result; they tell the compiler that errno and floating-point traps are not read, so loops vectorise.
EXACT_FLOATS = ["-fno-fast-math", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
WINDOWS_ARGS = ["/O2", "/fp:precise", "/utf-8"]
COMPILE_ARGS = WINDOWS_ARGS if sys.platform == "win32" else ["-O3", "-Wall", "-Wextra", *EXACT_FLOATS]


class EditableWheel(editable_wheel):
    """An editable install as one .pth file that lists the folders.

    For a layout of several folders setuptools installs an import hook instead, which neither editors nor type checkers
    follow.
    """

    def _select_strategy(self, name: str, tag: str, build_lib: str) -> object:
        from setuptools.command.editable_wheel import _StaticPth  # no public name: editable installs alone need it

        return _StaticPth(self.distribution, name, [Path(folder).resolve() for folder in FOLDERS.values()])


ParallelCompile(default=0).install()  # as many compilers as processors

setup(
    install_requires=DEPENDENCIES,
    packages=[package for folder in FOLDERS.values() for package in find_packages(folder)],
    package_dir={package: f"{folder}/{package}" for package, folder in FOLDERS.items()},
    ext_modules=[
        Pybind11Extension(
            "omni2_engine._core",
            sources=sorted(glob("cpp/**/*.cpp", recursive=True)),
            depends=sorted([*glob("cpp/**/*.h", recursive=True), *glob(f"{SHARED_ARITHMETIC}/*.cuh")]),
            include_dirs=["cpp", SHARED_ARITHMETIC],
            cxx_std=17,
            extra_compile_args=COMPILE_ARGS,
        )
    ],
    cmdclass={"build_ext": build_ext, "editable_wheel": EditableWheel},
)
