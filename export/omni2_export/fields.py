"""Configuration values out of JSON or YAML data, each checked where it is read, and named if it is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path

from omni2_engine.errors import CheckpointError
from omni2_engine.system.file_content import read_text
from omni2_export.input_files import require_content

LARGEST = 2**31 - 1  # no dimension, id or rate comes near it
MOST_LAYERS = 512  # a flipped digit in a layer count must not make a table of a billion names


class Fields:
    """One table of a configuration file.

    Args:
        values: the parsed data.
        where: file and section, for error messages.

    Raises:
        CheckpointError: from the constructor, if `values` is no table; from every getter, if the value is missing
            without a default, or is of another kind. `null` counts as missing.
    """

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise CheckpointError(f"{where} is not a table", "take the file from the original model")
        self.values = values
        self.where = where

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(key) is not None

    def wrong(self, key: str, expected: str) -> CheckpointError:
        """The error that says what a key should be."""
        if not self.has(key):
            return CheckpointError(f"{self.where}: `{key}` is missing", f"it should be {expected}")
        return CheckpointError(f"{self.where}: `{key}` is {self.values[key]!r:.80}", f"it should be {expected}")

    def integer(self, key: str, default: int | None = None, *, least: int = 1, most: int = LARGEST) -> int:
        """An integer in [least, most]."""
        if default is not None and not self.has(key):
            return default
        number = _as_integer(self.values.get(key))
        if number is None or not least <= number <= most:
            raise self.wrong(key, f"an integer from {least}" + (f" to {most}" if most < LARGEST else ""))
        return number

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number; text such as `1e-6`, which YAML 1.1 takes for a string, will do."""
        value = self.values.get(key)
        if default is not None and value is None:
            return default
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                if math.isfinite(number := float(value)):
                    return number
            except (ValueError, OverflowError):
                pass
        raise self.wrong(key, "a number")

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self.values.get(key, default)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.wrong(key, "text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """A truth value."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of positive integers, not empty."""
        value = self.values.get(key)
        numbers = [_as_integer(item) for item in value] if isinstance(value, list) else []
        if not numbers or not all(number is not None and 1 <= number <= LARGEST for number in numbers):
            raise self.wrong(key, "a list of positive integers")
        return tuple(number for number in numbers if number is not None)

    def integer_lists(self, key: str) -> tuple[tuple[int, ...], ...]:
        """A list of lists of positive integers."""
        value = self.values.get(key)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, "a list of lists of positive integers")
        return tuple(Fields({key: item}, self.where).integers(key) for item in value)

    def section(self, key: str) -> Fields:
        """A table inside this one."""
        if not isinstance(self.values.get(key), dict):
            raise self.wrong(key, "a table")
        return Fields(self.values[key], f"{self.where}: {key}")

    def require(self, key: str, supported: Collection[object]) -> None:
        """Refuse a value that stands for mathematics we do not have; a missing one is the supported one."""
        if self.has(key) and self.values[key] not in supported:
            raise CheckpointError(
                f"{self.where}: `{key}` is {self.values[key]!r:.80}, which is not supported",
                f"use a checkpoint with {' or '.join(repr(value) for value in supported)}",
            )


def _as_integer(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_json(path: Path) -> Fields:
    """A JSON file that holds a table, with or without a byte-order mark.

    Raises:
        CheckpointError: missing, no JSON, or no table.
    """
    require_content(path, text=True)
    try:
        values = json.loads(read_text(path))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}", "download the whole model directory"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}", "download the file again") from error
    return Fields(values, str(path))
