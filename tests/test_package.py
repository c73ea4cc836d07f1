"""The distributions as users get them: what they hold, that they install without extras and stream, and their types."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest

SHIPPED = {
    "omni2_kernels": "kernels",
    "omni2_engine": "engine",
    "omni2_export": "export",
    "omni2_serve": "serve",
    "omni2_bench": "bench",
}
LICENSES = {"LICENSE", "NOTICE", "licenses/pybind11.txt", "licenses/silero-vad.txt"}
BUILT = ("*.so", "*.pyd", "__pycache__", "*.egg-info")
ELSEWHERE = (".*", "build", "dist", "docs", "engines", "examples", "shared", "tests")
ABSENT = ("torch", "transformers", "onnx", "onnx_ir", "onnxscript", "safetensors", "matplotlib")
UNREACHABLE = ("connection", "Connection", "Temporary failure", "timed out", "Could not fetch URL")

STREAM = f"""
import importlib.util, sys
import omni2_engine
absent = {ABSENT!r}
assert not any(importlib.util.find_spec(name) for name in absent), "the environment is not clean"
import numpy as np
engine = omni2_engine.Engine.load(sys.argv[1], threads=1)
question = (0.1 * np.sin(np.arange(16000) * 0.1)).astype(np.float32)
chunks = list(engine.stream(question, sample_rate=16000, max_new_tokens=6, max_last_write=20))
assert sum(len(chunk.pcm) for chunk in chunks) > 0 and chunks[-1].final
assert not set(absent) & set(sys.modules)
print("streamed", omni2_engine.__version__, omni2_engine.__file__)
"""

# README leaves the reader's own: a player, a recording.
READERS_OWN = """
from typing import Any
import numpy as np
from numpy.typing import NDArray
from omni2_engine import Engine
array: NDArray[np.float32]
engine: Engine
def play(pcm: NDArray[np.float32]) -> None: ...
"""


def copied(repository: Path, destination: Path) -> Path:
    """The sources that a distribution is built from, without anything built."""
    return Path(shutil.copytree(repository, destination, ignore=shutil.ignore_patterns(*BUILT, *ELSEWHERE)))


def package_files(source: Path) -> dict[str, str]:
    """Path in the wheel → path in the repository of every file of the shipped packages."""
    return {
        path.relative_to(source / folder).as_posix(): path.relative_to(source).as_posix()
        for package, folder in SHIPPED.items()
        for path in (source / folder / package).rglob("*")
        if path.is_file()
    }


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """In `cwd`, where neither the checkout nor the tests' import path is seen."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def new_environment(folder: Path) -> Path:
    """The interpreter of a new virtual environment."""
    venv.create(folder)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(python: Path, *arguments: str | Path) -> None:
    """With this environment's pip into that of `python`."""
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile")  # imports do that
    result = run(*pip, *arguments, cwd=python.parent)
    if result.returncode and any(word in result.stderr for word in UNREACHABLE):
        pytest.skip("the package index cannot be reached, so nothing can be installed in a fresh environment")
    assert result.returncode == 0, result.stderr


def mypy(python: Path, file: Path) -> subprocess.CompletedProcess[str]:
    """mypy of this environment on `file`, with what is installed for `python`."""
    options = ("--strict", "--config-file=", "--cache-dir=.cache", f"--python-executable={python}")
    return run(sys.executable, "-m", "mypy", *options, file.name, cwd=file.parent)


@pytest.fixture(scope="module")
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(repository, tmp_path_factory.mktemp("package") / "source")


@pytest.fixture(scope="module")
def distributions(source: Path) -> tuple[Path, Path]:
    """(sdist, the wheel built from that sdist)."""
    folder = source.parent / "dist"
    built = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, cwd=source.parent)
    assert built.returncode == 0, built.stdout + built.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(distributions: tuple[Path, Path]) -> Path:
    """The interpreter of an environment that holds the wheel and what it requires, without extras."""
    wheel = distributions[1]
    python = new_environment(wheel.parent.parent / "venv")
    install(python, wheel)
    return python


def test_the_wheel_holds_the_packages_and_their_licences(source: Path, distributions: tuple[Path, Path]) -> None:
    wheel = distributions[1]
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    extensions = {name for name in names if re.fullmatch(r"omni2_engine/_core\.[^/]+\.(so|pyd)", name)}
    assert len(extensions) == 1
    described = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt"}
    expected = {f"{info}/{name}" for name in described} | {f"{info}/licenses/{name}" for name in LICENSES}
    assert names - extensions == expected | set(package_files(source))


def test_the_source_distribution_holds_what_a_wheel_is_built_from(
    source: Path, distributions: tuple[Path, Path]
) -> None:
    with tarfile.open(distributions[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    made = {name for name in names if name.startswith("omni2_engine.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    cpp = {path.relative_to(source).as_posix() for path in (source / "cpp").rglob("*") if path.is_file()}
    files = {"pyproject.toml", "setup.py", "README.md"} | LICENSES
    assert names - made == files | cpp | set(package_files(source).values())


def test_an_install_without_extras_streams(
    installed: Path, distributions: tuple[Path, Path], tiny_engine_dir: Path, tmp_path: Path
) -> None:
    script = tmp_path / "stream.py"
    script.write_text(STREAM, encoding="utf-8")
    result = run(installed, script, tiny_engine_dir, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    streamed, version, file = result.stdout.split(maxsplit=2)
    assert streamed == "streamed" and version == distributions[1].name.split("-")[1]
    assert file.startswith(str(installed.parent.parent))


def test_a_command_that_needs_an_extra_names_it(installed: Path, tmp_path: Path) -> None:
    arguments = ("build", "x", "--decoder", "y", "--voice", "z", "-o", "e")
    result = run(installed, "-m", "omni2_engine.cli.app", *arguments, cwd=tmp_path)
    assert result.returncode == 1 and "omni2-engine[export]" in result.stderr and "Traceback" not in result.stderr


def test_the_readme_has_right_types(repository: Path, installed: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (repository / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    functions = [
        f"async def block_{number}() -> None:\n{textwrap.indent(block, '    ')}" for number, block in enumerate(blocks)
    ]
    script = tmp_path / "readme.py"
    script.write_text("\n".join([READERS_OWN, *functions]), encoding="utf-8")
    checked = mypy(installed, script)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_type_checkers_follow_an_editable_install(repository: Path, tmp_path: Path) -> None:
    source = copied(repository, tmp_path / "source")
    shutil.rmtree(source / "cpp")  # a compiler's minute that says nothing of types
    (source / "cpp").mkdir()
    (source / "cpp" / "empty.cpp").write_text("#include <pybind11/pybind11.h>\nPYBIND11_MODULE(_core, m) {}\n")
    build = "from setuptools import build_meta; print(build_meta.build_editable('..'))"
    built = run(sys.executable, "-c", build, cwd=source)
    assert built.returncode == 0, built.stderr
    python = new_environment(tmp_path / "venv")
    (wheel,) = tmp_path.glob("*.whl")
    install(python, "--no-deps", wheel)
    script = tmp_path / "user.py"
    imports = "".join(f"import {package}\n" for package in SHIPPED)
    script.write_text(f"{imports}engine: omni2_engine.Engine\nengine.no_such_method()\n", encoding="utf-8")
    checked = mypy(python, script)
    line = len(SHIPPED) + 2
    assert f'user.py:{line}: error: "Engine" has no attribute "no_such_method"' in checked.stdout
    assert "Found 1 error" in checked.stdout
