"""Builds the C++ extension `omni2_engine._core` and says which folder holds which package."""

from __future__ import annotations

import sys
from glob import glob

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import find_packages, setup

FOLDERS = {
    "omni2_kernels": "kernels",
    "omni2_engine": "engine",
    "omni2_export": "export",
    "omni2_bench": "bench",
}

# What samplers on the host and kernels on the GPU compute alike stands once, where NVRTC finds it at run time.
SHARED_ARITHMETIC = "kernels/omni2_kernels/cuda"

# Random numbers must agree to the last bit everywhere: no fused multiply-adds, no re-ordering, no -march. The last two
# flags change no result; they tell the compiler that nobody reads errno or floating-point traps, so loops vectorise.
EXACT_FLOATS = ["-fno-fast-math", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
COMPILE_ARGS = ["/O2", "/fp:precise"] if sys.platform == "win32" else ["-O3", "-Wall", "-Wextra", *EXACT_FLOATS]

setup(
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
    cmdclass={"build_ext": build_ext},
)
