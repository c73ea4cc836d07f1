"""Numbers in words."""

from __future__ import annotations

import re

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


BELOW = r"(?:(?:{tens})(?: (?:{ones}))?|{small})".format(
    tens="|".join(TENS[2:]), ones="|".join(SMALL[1:10]), small="|".join(sorted(SMALL[2:], key=len, reverse=True))
)
RUN = re.compile(rf"\b(?:(?:{'|'.join(SMALL[1:10])}) hundred(?: and (?:one|{BELOW}))?|{BELOW})\b")


def in_digits(text: str) -> str:
    """The text with its lower-case numbers from two to 999 in digits, as they may be typed: "twenty one" → "21"."""
    return RUN.sub(lambda match: str(value(match[0])), text)


def value(text: str) -> int:
    """A number in lower-case words as `words` writes it, read back."""
    total = 0
    for word in text.replace(" and ", " ").split():
        if word == "hundred":
            total *= 100
        else:
            total += SMALL.index(word) if word in SMALL else 10 * TENS.index(word)
    return total
