"""`_core.pyi` says what the extension has: stubtest compares the names, the docstrings of pybind11 the parameters."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from omni2_engine import _core

STUB = Path("engine/omni2_engine/_core.pyi")


def stub_functions(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, list[str]]]:
    """(dotted name, parameters) of every function of the stub but properties and `__exit__`, built as `*args`."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from stub_functions(node.body, f"{owner}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.decorator_list and node.name != "__exit__":
            yield f"{owner}{node.name}", [argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]]


def built_parameters(name: str) -> list[str]:
    """The parameters that pybind11 writes into a function's docstring."""
    value = _core
    for part in name.split("."):
        value = getattr(value, part)
    signature = re.match(r"\w+\((.*)\) -> ", value.__doc__ or "")
    assert signature, f"{name} has no signature"
    arguments = ast.parse(f"def f({re.sub(r'<[^>]*>', '...', signature[1])}): ...").body[0].args  # type: ignore[attr-defined]
    return [argument.arg for argument in [*arguments.args, *arguments.kwonlyargs]]


def test_the_stub_has_the_names_of_the_extension(repository: Path) -> None:
    options = ("--mypy-config-file=pyproject.toml", "--allowlist=tests/engine/stubtest_allowlist.txt")
    command = [sys.executable, "-m", "mypy.stubtest", *options, "omni2_engine._core"]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_stub_has_the_parameters_of_the_extension(repository: Path) -> None:
    functions = dict(stub_functions(ast.parse((repository / STUB).read_text(encoding="utf-8")).body))
    assert {"sample", "Scheduler.submit"} <= functions.keys()
    assert functions == {name: built_parameters(name) for name in functions}
