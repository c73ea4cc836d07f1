"""Days, months and the clock."""

from __future__ import annotations

import random
from functools import partial

from omni2_training.domain.item import Item, Kind, Turn, asked, sentence
from omni2_training.domain.numbers import words

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
NUMBERS = [words(number) for number in range(100)]
LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
MINUTES = {0: "", 5: "five past ", 10: "ten past ", 15: "a quarter past ", 20: "twenty past ", 30: "half past "}

NEIGHBOUR_CORES = {
    1: (
        "what {unit} comes after {name}",
        "which {unit} is after {name}",
        "what is the {unit} after {name}",
        "which {unit} follows {name}",
    ),
    -1: ("what {unit} comes before {name}", "which {unit} is before {name}", "what is the {unit} before {name}"),
}
AGAIN = {1: ("and after that", "and the next one", "what comes then"), -1: ("and before that", "and the one before")}
AHEAD_CORES = (
    "what time is it {hours} after {time}",
    "it is {time}, what time will it be in {hours}",
    "{hours} after {time} is what time",
)
LENGTH_CORES = (
    "how many days are in {month}",
    "how many days does {month} have",
    "how long is {month}",
    "how many days are there in {month}",
)
NUMBER_CORES = ("which month of the year is {month}", "what number is {month} in the year")
WEEK_CORES = ("what day is it {days} after {name}", "today is {name}, what day is it in {days}")


def _neighbour(rng: random.Random) -> tuple[str, str, str, int]:
    """Unit, name, its neighbour and the direction."""
    unit, names = rng.choice((("day", DAYS), ("month", MONTHS)))
    step, index = rng.choice((1, -1)), rng.randrange(len(names))
    return unit, names[index], names[(index + step) % len(names)], step


def _neighbour_answer(name: str, other: str, step: int) -> str:
    return f"{'After' if step > 0 else 'Before'} {name} comes {other}."


def draw_neighbour(rng: random.Random) -> Item:
    """The day or month before or after another."""
    unit, name, other, step = _neighbour(rng)
    core = rng.choice(NEIGHBOUR_CORES[step])
    question, prefix = asked(rng, core.format(unit=unit, name=name))
    turn = Turn(question, _neighbour_answer(name, other, step))
    return Item("dates", (f"{name} {step}",), f"{prefix}{core} {unit}", (turn,))


def draw_neighbour_again(rng: random.Random) -> Item:
    """Likewise, and then the one after that."""
    first = draw_neighbour(rng)
    name, step = first.combinations[0].split()
    names = DAYS if name in DAYS else MONTHS
    other, third = (names[(names.index(name) + k * int(step)) % len(names)] for k in (1, 2))
    core = rng.choice(AGAIN[int(step)])
    again = Turn(sentence(core) + "?", _neighbour_answer(other, third, int(step)))
    return Item("dates again", (f"{name} {step} again",), core, (*first.turns, again))


def clock(hour: int, minute: int) -> str:
    """ "half past seven", "seven o'clock"; hours 1 to 12."""
    return f"{MINUTES[minute]}{words(hour)}" if minute else f"{words(hour)} o'clock"


def draw_other_again(rng: random.Random) -> Item:
    """The same questions of numbers, of which there are more; or of days and months, once forth and once back.

    Either way the second answer follows from the first, and not from what is known by heart of the first question.
    """
    unit, names = rng.choice((("day", DAYS), ("month", MONTHS), ("number", NUMBERS)))
    step = rng.choice((1, -1))
    back = rng.choice((step, -step)) if unit == "number" else -step
    index = rng.randrange(2, len(names) - 2) if unit == "number" else rng.randrange(len(names))
    name, other = names[index], names[(index + step) % len(names)]
    third = names[(index + step + back) % len(names)]
    core, again = rng.choice(NEIGHBOUR_CORES[step]), rng.choice(AGAIN[back])
    question, _ = asked(rng, core.format(unit=unit, name=name))
    turns = (
        Turn(question, _neighbour_answer(name, other, step)),
        Turn(sentence(again) + "?", _neighbour_answer(other, third, back)),
    )
    return Item("dates again", (f"{name} {step} {back} again",), again, turns)


def draw_clock(rng: random.Random, most: int = 6) -> Item:
    """The time some hours after another."""
    hour, minute, ahead = rng.randint(1, 12), rng.choice(tuple(MINUTES)), rng.randint(1, most)
    core, time = rng.choice(AHEAD_CORES), clock(hour, minute)
    hours = f"{words(ahead)} hour{'s' if ahead > 1 else ''}"
    later = clock((hour + ahead - 1) % 12 + 1, minute)
    question, prefix = asked(rng, core.format(hours=hours, time=time))
    answer = sentence(f"{hours} after {time} it is {later}.")
    return Item("clock", (f"{hour}:{minute}+{ahead}",), prefix + core, (Turn(question, answer),))


def draw_month(rng: random.Random) -> Item:
    """How long a month is, or which of the year."""
    index = rng.randrange(12)
    month = MONTHS[index]
    if rng.random() < 0.6:
        core, answer = rng.choice(LENGTH_CORES), f"{month} has {words(LENGTHS[index])} days."
    else:
        core, answer = rng.choice(NUMBER_CORES), f"{month} is month number {words(index + 1)}."
    question, prefix = asked(rng, core.format(month=month))
    return Item("months", (month,), prefix + core, (Turn(question, answer),))


def draw_week(rng: random.Random, most: int = 6) -> Item:
    """The day some days after another."""
    index, ahead = rng.randrange(7), rng.randint(2, most)
    core, name = rng.choice(WEEK_CORES), DAYS[index]
    question, prefix = asked(rng, core.format(days=f"{words(ahead)} days", name=name))
    answer = sentence(f"{words(ahead)} days after {name} it is {DAYS[(index + ahead) % 7]}.")
    return Item("week", (f"{name}+{ahead}",), prefix + core, (Turn(question, answer),))


KINDS = (
    Kind("dates", draw_neighbour, open=False),
    Kind("dates again", draw_neighbour_again, open=True, practise=draw_other_again, emphasis=4),
    Kind("clock", draw_clock, open=True, practise=partial(draw_clock, most=11), emphasis=2),
    Kind("months", draw_month, open=False),
    Kind("week", draw_week, open=True, practise=partial(draw_week, most=20), emphasis=3),
)
