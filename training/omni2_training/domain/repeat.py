"""Sentences to say after somebody: where the sounds of English come from that the other kinds lack."""

from __future__ import annotations

import random

from omni2_training.domain.item import Item, Kind, Turn

ADJECTIVES = [
    "old",
    "young",
    "small",
    "large",
    "quick",
    "quiet",
    "happy",
    "clever",
    "gentle",
    "brave",
    "yellow",
    "green",
    "purple",
    "orange",
    "golden",
    "silver",
    "strange",
    "gray",
    "heavy",
    "shiny",
    "curious",
    "sleepy",
    "noisy",
    "lucky",
    "funny",
    "rough",
    "smooth",
    "bright",
    "huge",
]
BEINGS = [
    "boy",
    "girl",
    "fox",
    "wolf",
    "bear",
    "mouse",
    "teacher",
    "farmer",
    "doctor",
    "sailor",
    "king",
    "queen",
    "driver",
    "baker",
    "judge",
    "child",
    "shepherd",
    "uncle",
    "cousin",
    "neighbor",
    "dragon",
    "rabbit",
    "giraffe",
    "pigeon",
    "turtle",
    "zebra",
    "monkey",
    "tiger",
    "painter",
    "engineer",
]
VERBS = [
    "watches",
    "finds",
    "carries",
    "paints",
    "follows",
    "catches",
    "chooses",
    "washes",
    "pushes",
    "pulls",
    "brings",
    "sells",
    "buys",
    "draws",
    "touches",
    "measures",
    "opens",
    "loves",
    "throws",
    "hides",
    "joins",
    "fixes",
    "visits",
    "enjoys",
    "shows",
    "uses",
    "hears",
    "remembers",
]
THINGS = [
    "box",
    "ship",
    "garden",
    "bridge",
    "treasure",
    "picture",
    "orange",
    "flower",
    "church",
    "jar",
    "watch",
    "wheel",
    "boat",
    "chair",
    "shadow",
    "feather",
    "pencil",
    "basket",
    "bottle",
    "kettle",
    "hammer",
    "guitar",
    "fire",
    "cookie",
    "blanket",
    "machine",
    "village",
    "mirror",
    "vegetable",
    "oyster",
    "zipper",
    "jewel",
]
PLACES = [
    "under the bridge",
    "near the river",
    "in the garden",
    "behind the house",
    "on the beach",
    "at the station",
    "above the clouds",
    "through the forest",
    "beside the church",
    "in the village",
    "around the corner",
    "over the hill",
    "by the fire",
    "in the kitchen",
    "across the street",
    "between the trees",
    "at the zoo",
    "on the mountain",
    "without a sound",
    "before breakfast",
    "after the storm",
    "with great pleasure",
    "every morning",
    "once a year",
    "this evening",
    "all the time",
]
CORES = (
    "repeat after me: {text}",
    "please repeat: {text}",
    "say after me: {text}",
    "say this sentence: {text}",
    "can you say this: {text}",
    "repeat this sentence: {text}",
)


def plain_sentence(rng: random.Random) -> str:
    """One of a few million sentences of six to nine words, without a capital or a full stop."""
    being, thing, verb = rng.choice(BEINGS), rng.choice(THINGS), rng.choice(VERBS)
    adjective, other = rng.sample(ADJECTIVES, 2)
    place = rng.choice(PLACES)
    return rng.choice(
        (
            f"the {adjective} {being} {verb} the {thing} {place}",
            f"the {being} {verb} the {adjective} {thing} {place}",
            f"the {adjective} {being} {verb} the {other} {thing}",
        )
    )


def draw(rng: random.Random) -> Item:
    """A sentence to be repeated."""
    text = plain_sentence(rng)
    core = rng.choice(CORES)
    question = core.format(text=text)
    return Item("repeat", (text,), core, (Turn(question[:1].upper() + question[1:] + ".", f"T{text[1:]}."),))


KINDS = (Kind("repeat", draw, open=True),)
