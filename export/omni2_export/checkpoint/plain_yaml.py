"""HyperPyYAML files as plain data: `!new:…`, `!name:…`, `!apply:…` construct nothing, `!ref` is resolved.

A tagged table keeps its tag under the key `TAG`, so that a reader can see which class was meant.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from omni2_engine.errors import CheckpointError
from omni2_engine.system.file_content import read_text
from omni2_export.input_files import require_content

TAG = "!tag"
REFERENCE = re.compile(r"<([^<>\[\]\s]+)((?:\[[^<>\[\]\s]+\])*)>")
LONGEST_EXPRESSION = 200
OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True)
class _Reference:
    expression: str  # e.g. "<sample_rate>" or "<chunk_size> * <token_mel_ratio>"


class _PlainLoader(yaml.SafeLoader):
    """A safe loader that takes local tags for plain data instead of refusing them; `!!python/…` stays refused."""


def _plain(loader: _PlainLoader, suffix: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return {TAG: suffix, **loader.construct_mapping(node, deep=True)}
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    text = str(node.value)
    return _Reference(text) if suffix in ("ref", "copy") else text


_PlainLoader.add_multi_constructor("!", _plain)


def read_yaml(path: Path) -> object:
    """A HyperPyYAML file's data: tables, lists, strings, numbers, truth values and null only.

    Raises:
        CheckpointError: missing, no YAML, or a reference to nothing or to itself.
    """
    require_content(path, text=True)
    try:
        root = yaml.load(read_text(path), Loader=_PlainLoader)
        return _Resolver(root, path).resolve(root)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}", "download the whole directory") from error
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        RecursionError,
        ArithmeticError,
    ) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is not valid YAML: {reason}", "download the file again") from error


class _Resolver:
    """Replaces references by what they name."""

    def __init__(self, root: object, path: Path) -> None:
        self._root = root
        self._path = path
        self._open: set[str] = set()  # references being resolved: meeting one again is a circle
        self._done: dict[int, object] = {}  # shared nodes stay shared, however often an alias names them

    def resolve(self, node: object) -> object:
        if isinstance(node, _Reference):
            return self._value(node.expression)
        if not isinstance(node, (dict, list)):
            return node
        if id(node) not in self._done:
            if isinstance(node, dict):
                self._done[id(node)] = {key: self.resolve(value) for key, value in node.items()}
            else:
                self._done[id(node)] = [self.resolve(value) for value in node]
        return self._done[id(node)]

    def _value(self, expression: str) -> object:
        if expression in self._open:
            raise CheckpointError(f"{self._path}: `!ref {expression}` refers to itself", "take the original file")
        self._open.add(expression)
        try:
            whole = REFERENCE.fullmatch(expression.strip())
            if whole:
                return self._named(whole)
            return _calculated(REFERENCE.sub(lambda found: str(self._named(found)), expression))
        finally:
            self._open.remove(expression)

    def _named(self, found: re.Match[str]) -> object:
        node = self._root
        for key in (found[1], *re.findall(r"\[([^\]]+)\]", found[2])):
            if isinstance(node, _Reference):
                node = self.resolve(node)
            if not isinstance(node, dict) or key not in node:
                raise CheckpointError(
                    f"{self._path}: `!ref {found[0]}` names nothing in the file", "take the original file"
                )
            node = node[key]
        return self.resolve(node)


def _calculated(text: str) -> object:
    """The number an arithmetic expression stands for; any other text as it is."""
    try:
        return _number(ast.parse(text.strip(), mode="eval").body) if len(text) <= LONGEST_EXPRESSION else text
    except (SyntaxError, ValueError):
        return text


def _number(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS:
            return OPERATORS[type(sign)](_number(left), _number(right))
    raise ValueError("no arithmetic")
