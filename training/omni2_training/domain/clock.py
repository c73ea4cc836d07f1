"""The time some hours, half an hour or some minutes after another."""

from __future__ import annotations

import random
from functools import partial

from omni2_training.domain.grammar import worded
from omni2_training.domain.item import Item, Kind, Turn, sentence
from omni2_training.domain.numbers import words

PAST = {0: "", 5: "five past ", 10: "ten past ", 15: "a quarter past ", 20: "twenty past ", 30: "half past "}
TO = {45: "a quarter to ", 50: "ten to ", 55: "five to "}
HOUR = 60
STEPS = {30: "half an hour", 15: "a quarter of an hour", 5: "five minutes", 10: "ten minutes", 20: "twenty minutes"}
SHARE = 0.65  # of the questions ahead in whole hours
PLAIN = 0.3  # share of the times that are asked in numbers only: "three thirty"


def clock(minutes: int) -> str:
    """Minutes since noon or midnight: "half past seven", "seven o'clock", "a quarter to eight"."""
    hour, minute = divmod(minutes, HOUR)
    if minute in TO:
        return f"{TO[minute]}{words(hour % 12 + 1)}"
    name = words((hour - 1) % 12 + 1)
    return f"{PAST[minute]}{name}" if minute else f"{name} o'clock"


def asked_time(rng: random.Random, minutes: int) -> str:
    """The time as it may be asked: "half past seven", "seven thirty", "seven"."""
    if rng.random() >= PLAIN:
        return clock(minutes)
    hour, minute = divmod(minutes, HOUR)
    name = words((hour - 1) % 12 + 1)
    if minute == 0:
        return name
    return f"{name} {'oh ' if minute < 10 else ''}{words(minute)}"


def draw_clock(rng: random.Random, most: int = 6) -> Item:
    """The time up to `most` hours after another, half an hour or some minutes after it; or before it."""
    step = rng.choice((1, 1, 1, -1))
    if rng.random() < SHARE:
        ahead = rng.randint(1, most)
        span, change = f"{words(ahead)} hour{'s' if ahead > 1 else ''}", HOUR * ahead
        asked_span = "an hour" if ahead == 1 and rng.random() < 0.5 else span
        start = HOUR * rng.randint(1, 12) + rng.choice((0, 0, *PAST))
    else:
        change = rng.choice((30, 30, 15, 5, 10, 20))
        span = asked_span = STEPS[change]
        start = HOUR * rng.randint(1, 12) + rng.choice((0, 0, 30) if change == 30 else (0,))
        if change == 20:
            step = 1  # no time that is said needs twenty minutes to the hour
    later = (start + step * change) % (12 * HOUR)
    intent = "hours after" if step > 0 else "hours before"
    asked = worded(rng, intent, hours=asked_span, time=asked_time(rng, start))
    direction, verb = ("after", "is") if step > 0 else ("before", "was")
    answer = sentence(f"{span} {direction} {clock(start)} it {verb} {clock(later)}.")
    return Item("clock", (f"{start}{step * change:+d}",), asked.phrasing, asked.held, (Turn(asked.text, answer),))


KINDS = (Kind("clock", draw_clock, open=True, practise=partial(draw_clock, most=11), emphasis=2),)
