"""The floors and the rooms of the engine's floor: imports point down only, no modules import each other in a circle,
and using the engine never loads what only builders need."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

FOLDERS = {
    "kernels": "omni2_kernels",
    "engine": "omni2_engine",
    "export": "omni2_export",
    "serve": "omni2_serve",
    "bench": "omni2_bench",
    "training": "omni2_training",
}  # lowest first
# A room is a folder or a module of the package; it imports from rooms before it. Lowest first.
ROOMS = (
    "errors",
    "settings",
    "system",
    "model",
    "text",
    "audio",
    "sampling",
    "backends",
    "stages",
    "memory",
    "turn",
    "schedule",
    "sessions",
    "live",
    "engine",
    "cli",
)
BACKENDS = ("cuda", "base", "onnxruntime", "tensorrt", "select")  # the rooms of `backends`, lowest first
MOST_ROOMS = 16
BESIDE = {"__init__", "__main__", "_core"}  # what users import, the program, and the C++ extension
CHOOSERS = {"engine", "cli"}  # rooms that may know which backends there are
HEAVY = {"torch", "transformers", "onnx", "onnx_ir", "onnxscript", "huggingface_hub", "safetensors", "matplotlib"}


def imported_packages(source: str) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of every import at any place of the module; relative ones stay inside it."""
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


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """(dotted name below the package, file) of every module; the package's own is `__init__`."""
    for path in sorted(package.rglob("*.py")):
        yield ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__"), path


def imports_within(package: Path, name: str) -> Iterator[tuple[str, str, str]]:
    """(importing module, imported module, where) of every import from the package itself, TYPE_CHECKING's included.

    Args:
        package: its folder.
        name: its dotted name; both modules are named relative to it.
    """
    known = {f"{name}.{module}" for module, _ in modules(package)}
    for module, path in modules(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: write the whole name of the module"
                source = node.module or ""
                named = [f"{source}.{alias.name}" for alias in node.names]
                found = [one if source == name or one in known else source for one in named]
            else:
                continue
            for imported in found:
                if imported.startswith(f"{name}."):
                    yield module, imported.removeprefix(f"{name}."), f"{path.relative_to(package)}:{node.lineno}"


def room_of(module: str) -> str:
    return module.partition(".")[0]


def upward(package: Path, name: str, rooms: tuple[str, ...]) -> list[str]:
    """Imports of a package's rooms that do not point to a lower one; which leaves no circle."""
    order = {room: number for number, room in enumerate(rooms)}
    return [
        f"{where} imports {imported}"
        for module, imported, where in imports_within(package, name)
        if room_of(module) not in BESIDE
        and room_of(imported) not in {room_of(module), "_core"}
        and order.get(room_of(imported), len(rooms)) >= order[room_of(module)]
    ]


def circle(package: Path, name: str) -> list[str]:
    """Modules of which each imports another, and the last is the first again; empty if there are none."""
    imports: defaultdict[str, set[str]] = defaultdict(set)
    for module, imported, _ in imports_within(package, name):
        imports[module].add(imported)
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def purpose(room: Path) -> str:
    """What a room is for: the first paragraph of its docstring."""
    source = (room / "__init__.py" if room.is_dir() else room.with_suffix(".py")).read_text(encoding="utf-8")
    return " ".join((ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].split())


ENGINE = pytest.mark.parametrize(
    ("folder", "name", "rooms"),
    [
        pytest.param("engine/omni2_engine", "omni2_engine", ROOMS, id="engine"),
        pytest.param("engine/omni2_engine/backends", "omni2_engine.backends", BACKENDS, id="backends"),
    ],
)


def test_the_walk_finds_every_import_within_a_package(tmp_path: Path) -> None:
    for room, source in {
        "low": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.high.a\n",
        "high": "def f():\n    from p import low, other\n    from p.high import b\n    import p._core\n",
    }.items():
        (tmp_path / "p" / room).mkdir(parents=True)
        (tmp_path / "p" / room / "a.py").write_text(source)
    assert upward(tmp_path / "p", "p", ("low", "high")) == [
        "high/a.py:2 imports other",
        "low/a.py:3 imports high.a",
    ]


def test_a_circle_is_found(tmp_path: Path) -> None:
    (tmp_path / "p" / "a").mkdir(parents=True)
    for module, source in {
        "a/__init__": "from p.a import b\n",
        "a/b": "from p.a import c\nimport p\n",
        "a/c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import B\n",
        "d": "from p.a.b import x\n",
    }.items():
        (tmp_path / "p" / module).with_suffix(".py").write_text(source)
    found = circle(tmp_path / "p", "p")
    assert found[0] == found[-1] and sorted(found[1:]) == ["a", "a.b", "a.c"]
    (tmp_path / "p" / "a" / "c.py").write_text("import p.d2\n")
    assert circle(tmp_path / "p", "p") == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_modules_import_each_other_in_a_circle(repository: Path, folder: str) -> None:
    """Imports for type checkers alone, and those within functions, count as others do."""
    assert circle(repository / folder / FOLDERS[folder], FOLDERS[folder]) == []


@ENGINE
def test_imports_between_rooms_point_down(repository: Path, folder: str, name: str, rooms: tuple[str, ...]) -> None:
    assert upward(repository / folder, name, rooms) == []


@ENGINE
def test_rooms_are_few_and_each_has_a_purpose(repository: Path, folder: str, name: str, rooms: tuple[str, ...]) -> None:
    package = repository / folder
    present = {room_of(module) for module, _ in modules(package)} - BESIDE
    assert present == set(rooms) and len(rooms) <= MOST_ROOMS
    for room in present:
        words = purpose(package / room)
        assert words.endswith(".") and ". " not in words, f"{room}: say what it is for, in one sentence: {words!r}"


def test_only_the_engine_knows_which_backends_there_are(repository: Path) -> None:
    found = imports_within(repository / "engine" / "omni2_engine", "omni2_engine")
    assert [
        f"{where} imports {imported}"
        for module, imported, where in found
        if room_of(imported) == "backends"
        and not imported.startswith("backends.base.")
        and room_of(module) not in CHOOSERS | {"backends"}
    ] == []


def test_the_page_on_architecture_lists_the_rooms(repository: Path) -> None:
    page = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+?)(?:/|\.py)` \|", page, re.MULTILINE)
    present = {room_of(module) for module, _ in modules(repository / "engine" / "omni2_engine")}
    assert listed == [room for room in reversed(ROOMS) if room in present]  # the highest first, as the floors


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


@pytest.mark.parametrize("folder", ["engine", "kernels", "serve"])
def test_lower_floors_need_no_builder_packages(repository: Path, folder: str) -> None:
    assert violations(repository / folder, HEAVY) == []


@pytest.mark.parametrize("module", ["omni2_engine", "omni2_engine.cli.app"])
def test_importing_the_engine_stays_light(module: str) -> None:
    script = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "omni2_engine" in loaded
    assert loaded & (HEAVY | {"omni2_export", "omni2_serve", "omni2_bench", "omni2_training"}) == set()


def test_no_class_name_is_used_twice(repository: Path) -> None:
    """In what is shipped, and in the benchmarks; the training's scripts are apart."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for folder in FOLDERS.keys() - {"training"}:
        for path in sorted((repository / folder).rglob("*.py*")):
            if path.suffix in (".py", ".pyi"):
                for node in ast.parse(path.read_text(encoding="utf-8")).body:
                    if isinstance(node, ast.ClassDef):
                        places[node.name].append(str(path.relative_to(repository)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_is_a_package(repository: Path, folder: str) -> None:
    """An installation leaves out those that are not, which an editable one hides."""
    folders = {path.parent for path in (repository / folder).rglob("*.py")}
    assert [str(path) for path in sorted(folders) if not (path / "__init__.py").is_file()] == []
