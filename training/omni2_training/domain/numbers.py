"""Numbers in words."""

from __future__ import annotations

SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINALS = [
    "zeroth",
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
]


def words(number: int) -> str:
    """A whole number of at most three digits: "forty two", "one hundred and five", "minus three"."""
    if number < 0:
        return f"minus {words(-number)}"
    if number < 20:
        return SMALL[number]
    if number < 100:
        return TENS[number // 10] + (f" {SMALL[number % 10]}" if number % 10 else "")
    if number < 1000:
        rest = f" and {words(number % 100)}" if number % 100 else ""
        return f"{SMALL[number // 100]} hundred{rest}"
    raise ValueError(f"{number} has more than three digits")


def ordinal(number: int) -> str:
    """The day of a month: "third", "twenty first"."""
    if number < 20:
        return ORDINALS[number]
    if number % 10 == 0:
        return {20: "twentieth", 30: "thirtieth"}[number]
    return f"{TENS[number // 10]} {ORDINALS[number % 10]}"
