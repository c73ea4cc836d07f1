"""One spelling for what was said and what was heard: what sounds alike is written alike.

A word for every digit of a number, signs of arithmetic and contractions as words, spelled letters joined, no marks.
Digits stand alone because a judge writes a count as it likes: "15, 14", "1514" or "6'7"".
"""

from __future__ import annotations

import re

SIGNS = {"+": " plus ", "=": " is ", "×": " times ", "*": " times ", "−": " minus ", "&": " and ", "%": " percent "}
SPELLINGS = {
    "colour": "color", "grey": "gray", "neighbour": "neighbor", "ok": "okay", "oclock": "o'clock", "o clock": "o'clock",
    "goodbye": "good bye", "equals": "is", "passed": "past",
}  # fmt: skip
CONTRACTIONS = {
    "can't": "can not", "cannot": "can not", "won't": "will not", "n't": " not",
    "'s": " is", "'m": " am", "'re": " are", "'ll": " will", "'ve": " have",
}  # fmt: skip
SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
VALUES = {word: str(value) for value, word in enumerate(SMALL.split())}
VALUES |= {word: f"{value}0" for value, word in enumerate(TENS.split(), 2)}
NUMBER_WORD = re.compile(rf"\b({'|'.join(VALUES)})\b")
TENS_AND_UNIT = re.compile(r"\b([2-9]0) ([1-9])\b")
HUNDREDS_AND_REST = re.compile(r"\b(\d*[1-9]00)(?: and)? (\d{1,2})\b")


def plain(text: str) -> list[str]:
    """The words of a text or transcript in one spelling."""
    text = text.lower().replace("-", " ")
    text = re.sub(r"(?<=\d)\s*x\s*(?=\d)", " times ", text)
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    text = re.sub(r"(\d+):00\b", r"\1", text)
    text = re.sub(r"[^a-z0-9' ]+", " ", text.replace("’", "'"))
    for short, whole in CONTRACTIONS.items():
        text = re.sub(rf"{short}\b", whole, text)
    text = f" {' '.join(text.split())} "
    for theirs, ours in SPELLINGS.items():
        text = text.replace(f" {theirs} ", f" {ours} ")
    words = _letters(_numbers(text.replace("'", "")).split())
    return [part for word in words for part in (word if word.isdigit() else [word])]


def _numbers(text: str) -> str:
    """Number words as digits: "forty two" → "42", "one hundred and five" → "105"."""
    text = NUMBER_WORD.sub(lambda found: VALUES[found[0]], text)
    text = TENS_AND_UNIT.sub(_sum, text)
    text = re.sub(r"(?<=\d) hundred\b", "00", text)
    return HUNDREDS_AND_REST.sub(_sum, text)


def _sum(found: re.Match[str]) -> str:
    return str(int(found[1]) + int(found[2]))


def _letters(words: list[str]) -> list[str]:
    """Runs of single letters as one word: "c a t" → "cat"."""
    out: list[str] = []
    joined = False
    for word in words:
        single = len(word) == 1 and word.isalpha()
        if single and joined:
            out[-1] += word
        else:
            out.append(word)
        joined = single
    return out
