"""Settings as users hand them in → plain numbers and words, or an error at once.

A number may be of any type that is one: Python's, NumPy's (scalars and arrays without dimensions), decimals,
fractions. A whole one does for an integer, `64.0` for 64. Truth values and texts are refused.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from omni2_engine.errors import SettingError

MOST_DIGITS = 400  # of a decimal, before or behind the point: floats have fewer


def real(name: str, value: Any, use: str, *, none: float | None = None) -> float:
    """A number as a float.

    Args:
        name: of the setting, for the message.
        value: as handed in.
        use: what to use instead, for the message: "a number of seconds".
        none: what None stands for; None is refused without it.

    Raises:
        SettingError: it is not a number; NaN is none.
    """
    number = none if value is None else _number(value)
    try:
        result = math.nan if number is None else float(number)
    except OverflowError:  # beyond every float
        result = math.nan
    if math.isnan(result):
        raise SettingError(f"{name} is {shown(value)}", f"use {use}")
    return result


def integer(
    name: str, value: Any, use: str, *, least: int | None = None, most: int | None = None, none: int | None = None
) -> int:
    """A whole number as an int.

    Args:
        name, value, use, none: as of `real`.
        least, most: its range, both included.

    Raises:
        SettingError: it is not a whole number, or outside the range.
    """
    number = none if value is None else _number(value)
    if number is not None and number not in (math.inf, -math.inf):
        whole = int(number)
        if whole == number and (least is None or whole >= least) and (most is None or whole <= most):
            return whole
    raise SettingError(f"{name} is {shown(value)}", f"use {use}")


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """One of several words.

    Raises:
        SettingError: it is none of them.
    """
    words = list(choices)
    if not isinstance(value, str) or value not in words:
        raise SettingError(f"{name} is {shown(value)}", f"use one of {', '.join(words)}")
    return value


def shown(value: Any) -> str:
    """A value for a message: one short line."""
    return reprlib.repr(value).replace("\n", " ")


def _number(value: Any) -> int | float | Fraction | None:
    """The value as a number of Python's; None if it is no number, or NaN."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # NumPy's, and other libraries' arrays
        value = value.item()
    if isinstance(value, np.longdouble):  # whose item is itself
        value = float(value)
    if isinstance(value, Decimal):
        if value.is_nan():
            return None
        exact = value.is_finite() and abs(value.adjusted()) <= MOST_DIGITS
        value = Fraction(value) if exact else float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
        return None
    return None if isinstance(value, float) and math.isnan(value) else value
