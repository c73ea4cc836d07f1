"""Nothing in cpp/ and kernels/ is out of reach: a walk from the public package and the command line to what they use.

Python is walked by its imports, the extension by its stub (tests/engine/test_core_stub.py compares the two), C++ by its
includes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from omni2_kernels.registry import KERNELS, SOURCES

PACKAGES = {"omni2_engine": "engine", "omni2_kernels": "kernels", "omni2_bench": "bench"}
PRODUCT = ("omni2_engine", "omni2_engine.cli.app")
LABORATORY = {  # what only others use, and who
    "Simulation": "omni2_bench.simulate.command",  # computes schedules on a device that is not there
}
FOR_TESTS = {
    "philox4x32",  # against the generator's published vectors
    "Scheduler.counts",  # that nothing is left
    "Scheduler.speculation",  # that it delays nothing by more than a call
}
SCRIPTS = {"omni2_kernels.table"}  # python -m omni2_kernels.table: the table of docs/kernels.md


def module_path(repository: Path, module: str) -> Path | None:
    """The file of a module of ours; None for other packages and for the extension."""
    package = module.partition(".")[0]
    if package not in PACKAGES:
        return None
    place = repository / PACKAGES[package] / Path(*module.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules that may be meant by the imports at any place of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def walk(repository: Path, entries: Iterable[str]) -> dict[str, ast.Module]:
    """Every module of ours that the entries reach, parsed."""
    reached: dict[str, ast.Module] = {}
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        path = module_path(repository, module)
        if path is None or module in reached:
            continue
        reached[module] = ast.parse(path.read_text(encoding="utf-8"))
        waiting += imports(reached[module])
    return reached


class Uses:
    """What modules use of the extension.

    Attributes:
        names: functions and classes they import from it or ask it for.
        attributes: every attribute they ask any object for.
    """

    def __init__(self, modules: Mapping[str, ast.Module]) -> None:
        nodes = [node for tree in modules.values() for node in ast.walk(tree)]
        self.attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        self.names = {
            alias.name
            for node in nodes
            if isinstance(node, ast.ImportFrom) and node.module == "omni2_engine._core"
            for alias in node.names
        } | {
            node.attr
            for node in nodes
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_core"
        }


@dataclass
class Binding:
    """A function or class of the extension, as its stub declares it: the names it mentions, and a class's members."""

    mentions: set[str]
    members: set[str]


def bindings(stub: str) -> dict[str, Binding]:
    """By name. Members whose names begin with two underscores belong to their class."""
    found = {}
    for node in ast.parse(stub).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        parts = node.body if isinstance(node, ast.ClassDef) else []
        members = {part.name for part in parts if isinstance(part, ast.FunctionDef)}
        mentions = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        found[node.name] = Binding(mentions, {name for name in members if not name.startswith("__")})
    return found


def unreached(declared: Mapping[str, Binding], uses: Uses) -> list[str]:
    """What the modules do not use: bindings, and members of the classes that they do use.

    A binding is used if it is named, or if one that is used mentions it. An error is used if its base is: it is caught
    as that.
    """
    used: set[str] = set()
    waiting = uses.names & set(declared)
    while waiting:
        name = waiting.pop()
        used.add(name)
        derived = {other for other in declared if other.endswith("Error") and name in declared[other].mentions}
        waiting |= (declared[name].mentions & set(declared) | derived) - used
    bindings_left = set(declared) - used
    members_left = {f"{name}.{member}" for name in used for member in declared[name].members - uses.attributes}
    return sorted(bindings_left | members_left)


@pytest.fixture(scope="module")
def product(repository: Path) -> dict[str, ast.Module]:
    return walk(repository, PRODUCT)


@pytest.fixture(scope="module")
def stub(repository: Path) -> str:
    return (repository / "engine" / "omni2_engine" / "_core.pyi").read_text(encoding="utf-8")


def test_the_product_uses_every_binding(product: dict[str, ast.Module], stub: str) -> None:
    apart = set(LABORATORY) | FOR_TESTS
    left = unreached(bindings(stub), Uses(product))
    assert [name for name in left if name not in apart and name.partition(".")[0] not in LABORATORY] == []
    still = {name for name in apart if any(other == name or other.startswith(f"{name}.") for other in left)}
    assert apart == still  # the exceptions are still exceptions


@pytest.mark.parametrize(("name", "user"), LABORATORY.items())
def test_the_laboratory_uses_what_is_there_for_it(repository: Path, stub: str, name: str, user: str) -> None:
    uses = Uses(walk(repository, [user]))
    assert name in uses.names
    missing = bindings(stub)[name].members - uses.attributes - bindings(stub)["Scheduler"].members
    assert missing == set()


def test_an_unused_binding_is_noticed(product: dict[str, ast.Module], stub: str) -> None:
    more = stub + "\ndef forgotten() -> None: ...\nclass Forgotten:\n    def call(self) -> None: ...\n"
    more = more.replace("class CudaGraph:", "class CudaGraph:\n    def forgotten_too(self) -> None: ...\n", 1)
    found = set(unreached(bindings(more), Uses(product))) - set(unreached(bindings(stub), Uses(product)))
    assert found == {"forgotten", "Forgotten", "CudaGraph.forgotten_too"}


def test_the_product_reaches_every_module_of_the_kernels(repository: Path, product: dict[str, ast.Module]) -> None:
    files = (repository / "kernels" / "omni2_kernels").rglob("*.py")
    modules = {".".join(file.relative_to(repository / "kernels").with_suffix("").parts) for file in files}
    modules = {module.removesuffix(".__init__") for module in modules}
    assert modules - set(product) - {"omni2_kernels"} == SCRIPTS


def test_the_product_launches_every_kernel(product: dict[str, ast.Module]) -> None:
    engine = (tree for module, tree in product.items() if module.startswith("omni2_engine"))
    constants = {node.value for tree in engine for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert set(KERNELS) - constants == set()


INCLUDE = re.compile(r'^\s*#include "([^"]+)"', re.MULTILINE)


def reached_sources(cpp: Path, kernels: Path) -> set[Path]:
    """Files that the extension's module or a registered kernel includes; a header brings the source of its name."""
    reached: set[Path] = set()
    waiting = [cpp / "bindings" / "module.cpp", *(kernels / source for source in SOURCES)]
    while waiting:
        path = waiting.pop()
        if path in reached or not path.is_file():
            continue
        reached.add(path)
        if path == cpp / "bindings" / "bindings.h":  # declares what the other sources of its folder define
            waiting += path.parent.glob("*.cpp")
        elif path.suffix == ".h":
            waiting.append(path.with_suffix(".cpp"))
        for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
            waiting += [cpp / name, kernels / name]
    return reached


def test_every_source_is_reached(repository: Path) -> None:
    cpp, kernels = repository / "cpp", repository / "kernels" / "omni2_kernels" / "cuda"
    files = {path for folder in (cpp, kernels) for path in folder.rglob("*") if path.is_file()}
    assert sorted(files - reached_sources(cpp, kernels)) == []


def test_a_source_that_nothing_includes_is_noticed(tmp_path: Path) -> None:
    cpp = tmp_path / "cpp"
    for name, text in {"bindings/module.cpp": '#include "a/used.h"\n', "a/used.h": "", "a/used.cpp": ""}.items():
        (cpp / name).parent.mkdir(parents=True, exist_ok=True)
        (cpp / name).write_text(text, encoding="utf-8")
    (cpp / "a" / "unused.cpp").write_text('#include "a/used.h"\n', encoding="utf-8")
    assert {path.name for path in reached_sources(cpp, tmp_path)} == {"module.cpp", "used.h", "used.cpp"}
