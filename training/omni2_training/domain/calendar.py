"""Days and months: their neighbours, their numbers, and those some time ahead."""

from __future__ import annotations

import random
from functools import partial

from omni2_training.domain.grammar import Worded, worded
from omni2_training.domain.item import Item, Kind, Turn, sentence
from omni2_training.domain.numbers import ordinal, words

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
SEASONS = ["spring", "summer", "autumn", "winter"]
NAMES = {"day": DAYS, "month": MONTHS}
NEIGHBOURS = {"day": DAYS, "month": MONTHS, "season": SEASONS}
WHOLE = {"day": "week", "month": "year"}
LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
NUMBERS = [words(number) for number in range(100)]
SAID = {
    ("day", 1): ("after", "after", "follows", "tomorrow", "tomorrow"),
    ("day", -1): ("before", "before", "yesterday", "yesterday"),
    ("month", 1): ("after", "after", "follows", "this month next"),
    ("month", -1): ("before", "before", "this month last"),
}


def _neighbour_turn(asked: Worded, name: str, other: str, step: int) -> Turn:
    return Turn(asked.text, f"{'After' if step > 0 else 'Before'} {name} comes {other}.")


def _asked_neighbour(rng: random.Random, unit: str, name: str, step: int) -> Worded:
    intent = rng.choice(SAID.get((unit, step), ("after" if step > 0 else "before",)))
    return worded(rng, intent, unit=unit, name=name, direction="after" if step > 0 else "before")


def draw_neighbour(rng: random.Random) -> Item:
    """The day, month or season before or after another."""
    unit, step = rng.choice(("day", "day", "day", "month", "month", "month", "season")), rng.choice((1, -1))
    names = NEIGHBOURS[unit]
    index = rng.randrange(len(names))
    if step > 0 and rng.random() < 0.08:
        asked = worded(rng, "between", unit=unit, name=names[index], third=names[(index + 2) % len(names)])
    else:
        asked = _asked_neighbour(rng, unit, names[index], step)
    turn = _neighbour_turn(asked, names[index], names[(index + step) % len(names)], step)
    return Item("dates", (f"{names[index]} {step}",), asked.phrasing, asked.held, (turn,))


def draw_neighbour_again(rng: random.Random, numbers: bool = False) -> Item:
    """Likewise, and then the next one that way or the other way.

    Args:
        numbers: of numbers too, of which there are more, so that the second answer follows from the first.
    """
    unit, names = rng.choice((*NAMES.items(), *([("number", NUMBERS)] if numbers else [])))
    step, back = rng.choice((1, -1)), rng.choice((1, 1, -1))
    index = rng.randrange(2, len(names) - 2) if unit == "number" else rng.randrange(len(names))
    asked = _asked_neighbour(rng, unit, names[index], step)
    again = worded(rng, "and after" if step * back > 0 else "and before", plain=True)
    second = (index + step) % len(names)
    third = (second + step * back) % len(names)
    turns = (
        _neighbour_turn(asked, names[index], names[second], step),
        _neighbour_turn(again, names[second], names[third], step * back),
    )
    phrasing = f"{asked.phrasing} > {again.phrasing}"
    return Item("dates again", (f"{names[index]} {step} {back} again",), phrasing, asked.held or again.held, turns)


def draw_month(rng: random.Random) -> Item:
    """How long a month is, or which of the year."""
    index = rng.randrange(12)
    month = MONTHS[index]
    if rng.random() < 0.7:
        asked, answer = worded(rng, "month length", month=month), f"{month} has {words(LENGTHS[index])} days."
    else:
        asked, answer = worded(rng, "month number", month=month), f"{month} is month number {words(index + 1)}."
    return Item("months", (month,), asked.phrasing, asked.held, (Turn(asked.text, answer),))


def draw_place(rng: random.Random) -> Item:
    """The first, last or another day of the week or month of the year, or all of them."""
    unit = rng.choice(("day", "month"))
    names, whole = NAMES[unit], WHOLE[unit]
    if rng.random() < 0.1:
        asked = worded(rng, f"{unit}s of")
        place, answer = "all", ", ".join(names) + "."
    else:
        index = rng.choice((0, len(names) - 1, rng.randrange(len(names))))
        place = "last" if index == len(names) - 1 else ordinal(index + 1)
        if place in ("first", "last") and rng.random() < 0.15:
            begin = "start" if place == "first" else "end"
            asked = worded(rng, "ends of", unit=unit, whole=whole, begin=begin, begins=f"{begin}s")
        else:
            asked = worded(rng, "nth of", unit=unit, whole=whole, nth=place)
        answer = f"The {place} {unit} of the {whole} is {names[index]}."
    return Item("places", (f"{place} {unit}",), asked.phrasing, asked.held, (Turn(asked.text, answer),))


def draw_ahead(rng: random.Random, most: int = 6) -> Item:
    """The day or month some days or months after another, or before it."""
    unit = rng.choice(("day", "day", "month"))
    names, ahead, step = NAMES[unit], rng.randint(2, most), rng.choice((1, 1, 1, -1))
    index = rng.randrange(len(names))
    name, other = names[index], names[(index + step * ahead) % len(names)]
    count, units = words(ahead), f"{unit}s"
    if unit == "day" and step > 0 and ahead == 2 and rng.random() < 0.4:
        asked = worded(rng, "after tomorrow", name=name)
    else:
        asked = worded(rng, "ahead" if step > 0 else "back", unit=unit, units=units, count=count, name=name)
    direction, verb = ("after", "is") if step > 0 else ("before", "was")
    answer = sentence(f"{count} {units} {direction} {name} it {verb} {other}.")
    return Item("week", (f"{name}{step * ahead:+d}",), asked.phrasing, asked.held, (Turn(asked.text, answer),))


KINDS = (
    Kind("dates", draw_neighbour, open=False, emphasis=1.5),
    Kind(
        "dates again",
        draw_neighbour_again,
        open=True,
        practise=partial(draw_neighbour_again, numbers=True),
        emphasis=2,
        turns=2,
    ),
    Kind("months", draw_month, open=False),
    Kind("places", draw_place, open=False),
    Kind("week", draw_ahead, open=True, practise=partial(draw_ahead, most=12), emphasis=2),
)
