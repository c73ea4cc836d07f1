"""Golden files: read whole, and every known array's type and shape checked against the model before anything is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine.errors import Omni2Error
from omni2_engine.model.config import ModelConfig
from omni2_engine.system.file_content import is_apple_double, placeholder
from omni2_export.verify.schema import ExpectedArray, Kind, kind_of, schema

FIT = "verify with goldens of the checkpoint the engine was built from"
REMAKE = "make the file again, or copy it again from where it was made"
DTYPES = {"f": "f", "i": "iu", "U": "U"}
NAMES = {"f": "floats", "i": "integers", "U": "text"}


class GoldenError(Omni2Error):
    """A golden file cannot be read or does not fit the engine."""


class Golden:
    """One file's arrays; looking one up marks it as used.

    Args:
        path: the file.
        kind: what it is of.
        arrays: by name.
    """

    def __init__(self, path: Path, kind: Kind, arrays: dict[str, NDArray[Any]]) -> None:
        self.path = path
        self.kind = kind
        self.name = path.stem
        self._arrays = arrays
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        """An array.

        Raises:
            GoldenError: the file does not have it.
        """
        if name not in self._arrays:
            raise GoldenError(f"{self.path} has no array {name}", REMAKE)
        self._used.add(name)
        return self._arrays[name]

    def text(self, name: str) -> str:
        """A string array's text."""
        return str(self[name])

    def ids(self, name: str) -> list[int]:
        """An integer array as a list."""
        return [int(value) for value in self[name].reshape(-1)]

    def matches(self, pattern: str) -> list[str]:
        """The first group of every array name that matches, in the file's order."""
        found = (re.fullmatch(pattern, name) for name in self._arrays)
        return [match.group(1) for match in found if match]

    @property
    def unused(self) -> list[str]:
        """Names never looked up."""
        return [name for name in self._arrays if name not in self._used]


def read_goldens(directory: Path, config: ModelConfig) -> tuple[list[Golden], list[str]]:
    """Read every `.npz` of a directory that is named as a known kind.

    Returns:
        The files, and the names of those of no known kind.

    Raises:
        GoldenError: there is no such directory, or a file is damaged or does not fit the model.
    """
    if not directory.is_dir():
        raise GoldenError(f"{directory} is not a directory", "give the directory of golden .npz files with --goldens")
    paths = sorted(path for path in directory.glob("*.npz") if not is_apple_double(path))
    known = [(path, kind) for path in paths if (kind := kind_of(path.stem)) is not None]
    strangers = [path.stem for path in paths if kind_of(path.stem) is None]
    return [_read(path, kind, config) for path, kind in known], strangers


def _read(path: Path, kind: Kind, config: ModelConfig) -> Golden:
    if found := placeholder(path, text=False):
        raise GoldenError(*found)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged archive fails in zipfile, zlib, NumPy's header parser or the file system
        reason = " ".join(str(error).split())[:200]
        raise GoldenError(f"{path} is not a readable .npz file: {reason}", REMAKE) from error
    _conform(path, arrays, schema(kind, config))
    return Golden(path, kind, arrays)


def _conform(path: Path, arrays: dict[str, NDArray[Any]], rules: dict[str, ExpectedArray]) -> None:
    """Check types and shapes and bring arrays into form; dimensions of one symbol must agree within the file."""
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        found = [(rule, match) for pattern, rule in rules.items() if (match := re.fullmatch(pattern, name))]
        if not found:
            continue
        rule, match = found[0]
        if array.dtype.kind not in DTYPES[rule.dtype]:
            raise GoldenError(f"{path}: {name} holds {array.dtype}, not {NAMES[rule.dtype]}", REMAKE)
        if rule.dtype == "f":
            if not np.isfinite(array).all():
                raise GoldenError(f"{path}: {name} holds values that are not finite", REMAKE)
            array = array.astype(np.float32, copy=False)
        if rule.below is not None and array.size and not 0 <= array.min() <= array.max() < rule.below:
            raise GoldenError(f"{path}: {name} holds ids outside 0 … {rule.below - 1}", FIT)
        if not array.size and not name.endswith("wav"):  # a call's sound may be all held back
            raise GoldenError(f"{path}: {name} is empty", REMAKE)
        array = _aligned(array, len(rule.shape))
        symbols = [match.expand(size) if isinstance(size, str) else size for size in rule.shape]
        wanted = [sizes.get(size, size) if isinstance(size, str) else size for size in symbols]
        fits = len(wanted) == array.ndim and all(
            isinstance(want, str) or want == have for want, have in zip(wanted, array.shape, strict=True)
        )
        if not fits:
            wish = ", ".join("any" if isinstance(want, str) else str(want) for want in wanted)
            raise GoldenError(
                f"{path}: {name} has shape {array.shape}; model and other arrays ask for ({wish})",
                FIT,
            )
        sizes |= {symbol: have for symbol, have in zip(symbols, array.shape, strict=True) if isinstance(symbol, str)}
        arrays[name] = array


def _aligned(array: NDArray[Any], dimensions: int) -> NDArray[Any]:
    """Leading axes of length one dropped or added: some writers keep the batch axis, some do not."""
    while array.ndim > dimensions and array.shape[0] == 1:
        array = array[0]
    return array.reshape((1,) * (dimensions - array.ndim) + array.shape) if array.ndim < dimensions else array
