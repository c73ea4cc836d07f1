"""Wordings: what may be asked in which words, from the YAML files beside this one.

A wording is one line of a text. `(a|b|)` stands for one of its alternatives, `{name}` for what is filled in. A line
that begins with `~` is held out: training never sees it, in any of its alternatives. Texts are kept by form, which
decides the frames that a wording may stand in:

- `question`: a whole question, "how many days are in {month}";
- `phrase`: what a question is about, "the capital of {country}";
- `order`: "count to {last}";
- `said`: anything else, which hardly takes a frame.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from omni2_training.domain.item import sentence

FOLDER = Path(__file__).parent
CHOICE = re.compile(r"\(([^()]*)\)")
BEFORE_VOWEL, BEFORE_OTHER = re.compile(r"\b(a) (?=[aeiou])"), re.compile(r"\b(a)n (?=[^aeiouAEIOUhH])")
SPACES = re.compile(r"\s+(?=[\s,.?!])|^\s+|\s+$")
HELD = "~"
QUESTION, PHRASE, ORDER, SAID = "question", "phrase", "order", "said"
MARKS = {QUESTION: "?", PHRASE: "?", ORDER: ".", SAID: "."}
BARE = {QUESTION: 0.45, PHRASE: 0.1, ORDER: 0.4, SAID: 0.85}  # share that stands in no frame
CALLED = 0.12  # share with a call in front
SHORTENED = 0.4  # share of the places where "what is" becomes "what's"
SHORT = {
    "what is": "what's", "who is": "who's", "where is": "where's", "how is": "how's", "that is": "that's",
    "it is": "it's", "I am": "I'm", "I would": "I'd", "do not": "don't", "does not": "doesn't",
    "did not": "didn't", "cannot": "can't", "you are": "you're", "let us": "let's", "is not": "isn't",
}  # fmt: skip
LONG = re.compile(rf"\b({'|'.join(SHORT)})\b(?! (of|not)\b)", re.IGNORECASE)


@dataclass(frozen=True)
class Wording:
    """One line: its pattern, its form, and whether training may not see it."""

    pattern: str
    form: str
    held: bool


@dataclass(frozen=True)
class Worded:
    """A question in words: its text with a mark at the end, and the lines it was made from.

    Args:
        text: what is said.
        phrasing: the lines, without what was filled in.
        held: whether one of the lines is held out.
    """

    text: str
    phrasing: str
    held: bool


@cache
def read(name: str) -> Any:
    """What `NAME.yaml` holds."""
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def lines(text: str, form: str) -> tuple[Wording, ...]:
    """The wordings of a text, one a line."""
    return tuple(Wording(line.removeprefix(HELD).strip(), form, line.startswith(HELD)) for line in text.splitlines())


def forms(texts: dict[str, str]) -> tuple[Wording, ...]:
    """The wordings of several texts, each under its form."""
    return tuple(wording for form, text in texts.items() for wording in lines(text, form))


@cache
def intent(name: str) -> tuple[Wording, ...]:
    """The wordings of an intent in `wordings.yaml`."""
    return forms(read("wordings")[name])


@cache
def _frames(form: str) -> tuple[Wording, ...]:
    return lines(read("frames")[form], form)


def chosen(rng: random.Random, pattern: str) -> str:
    """The pattern with one alternative of every choice; the innermost are chosen first."""
    while "(" in pattern:
        pattern = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), pattern)
    return pattern


def filled(rng: random.Random, wording: Wording, fields: Mapping[str, str]) -> str:
    """A line's words, not framed and without a mark."""
    return tidy(chosen(rng, wording.pattern).format_map(fields))


def worded(
    rng: random.Random,
    wordings: tuple[Wording, ...] | str,
    *,
    plain: bool = False,
    filling: Mapping[str, str] | None = None,
    **fields: str,
) -> Worded:
    """Draw one of the wordings, fill it, and put it into a frame.

    Args:
        wordings: from which, or the name of an intent in `wordings.yaml`.
        plain: without frame and call.
        filling, fields: what stands for the `{names}`, given either way.
    """
    wording = rng.choice(intent(wordings) if isinstance(wordings, str) else wordings)
    text = filled(rng, wording, fields if filling is None else filling)
    used = [wording]
    mark = text[-1] if text[-1] in ".?!" else MARKS[wording.form]
    text = text.rstrip(".?!")
    if not plain and rng.random() >= BARE[wording.form]:
        frame = rng.choice(_frames(wording.form))
        used.append(frame)
        text = filled(rng, frame, {"core": text})
    text = sentence(shortened(rng, text) + mark)
    if not plain and rng.random() < CALLED:
        call = rng.choice(_frames("calls"))
        used.append(call)
        text = f"{sentence(filled(rng, call, {}))} {text}"
    return Worded(text, " / ".join(w.pattern for w in used), any(w.held for w in used))


def tidy(text: str) -> str:
    """Without the spaces that empty alternatives leave, and with "an" where it belongs and only there."""
    return BEFORE_OTHER.sub(r"\1 ", BEFORE_VOWEL.sub(r"\1n ", SPACES.sub("", text)))


def shortened(rng: random.Random, text: str) -> str:
    """Some of its verbs contracted, as they are in speech; none at the end of a clause ("what May is")."""

    def one(match: re.Match[str]) -> str:
        whole = match[1]
        at_end = text[match.end() : match.end() + 1] in ("", ",", ".", "?", "!")
        if at_end or rng.random() >= SHORTENED:
            return whole
        short = SHORT.get(whole) or SHORT[whole[:1].lower() + whole[1:]]
        return whole[:1] + short[1:]

    return LONG.sub(one, text)
