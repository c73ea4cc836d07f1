"""The floors: packages import downwards only, and using the engine never loads what only builders need."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDERS = {
    "kernels": "omni2_kernels",
    "engine": "omni2_engine",
    "export": "omni2_export",
    "bench": "omni2_bench",
    "training": "omni2_training",
}  # lowest first
HEAVY = {"torch", "transformers", "onnx", "onnx_ir", "onnxscript", "huggingface_hub", "safetensors", "matplotlib"}


def imported_packages(source: str) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of every import, wherever in the module it stands; relative ones stay inside it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.partition(".")[0]


def violations(folder: Path, forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(folder.parent)}:{line} imports {package}"
        for path in sorted(folder.rglob("*.py"))
        for line, package in imported_packages(path.read_text(encoding="utf-8"))
        if package in forbidden
    ]


def test_the_walk_finds_every_kind_of_import(tmp_path: Path) -> None:
    module = tmp_path / "floor" / "module.py"
    module.parent.mkdir()
    module.write_text("import torch.nn as nn\ndef f():\n    from onnx.helper import load\n    from . import onnx\n")
    assert violations(tmp_path / "floor", {"torch", "onnx"}) == [
        "floor/module.py:1 imports torch",
        "floor/module.py:3 imports onnx",
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_down(repository: Path, folder: str) -> None:
    floors = list(FOLDERS)
    above = {FOLDERS[name] for name in floors[floors.index(folder) + 1 :]}
    assert violations(repository / folder, above) == []


@pytest.mark.parametrize("folder", ["engine", "kernels"])
def test_lower_floors_need_no_builder_packages(repository: Path, folder: str) -> None:
    assert violations(repository / folder, HEAVY) == []


@pytest.mark.parametrize("module", ["omni2_engine", "omni2_engine.cli.app"])
def test_importing_the_engine_stays_light(module: str) -> None:
    script = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "omni2_engine" in loaded
    assert loaded & (HEAVY | {"omni2_export", "omni2_bench", "omni2_training"}) == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_is_a_package(repository: Path, folder: str) -> None:
    """An installation leaves out those that are not, which an editable one hides."""
    folders = {path.parent for path in (repository / folder).rglob("*.py")}
    assert [str(path) for path in sorted(folders) if not (path / "__init__.py").is_file()] == []
