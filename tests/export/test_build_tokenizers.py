"""Added tokens through `build`: the declared ids hold in any order, and contradictions are refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_engine.text import TextTokenizer

from .conftest import TOKENIZERS, Copy, change, write_tokenizer_json


def shuffled(items: Any, seed: int = 5) -> Any:
    """A list, or a table, in another order."""
    listed = list(items.items()) if isinstance(items, dict) else list(items)
    random.Random(seed).shuffle(listed)
    return dict(listed) if isinstance(items, dict) else listed


def declared(directory: Path) -> dict[str, int]:
    """Token → id by `added_tokens.json`."""
    return json.loads((directory / "added_tokens.json").read_text(encoding="utf-8"))


PLACES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "added_tokens.json": ("added_tokens.json", shuffled),
    "added_tokens_decoder": (
        "tokenizer_config.json",
        lambda config: config.update(added_tokens_decoder=shuffled(config["added_tokens_decoder"])),
    ),
    "tokenizer.json": ("tokenizer.json", lambda whole: whole.update(added_tokens=shuffled(whole["added_tokens"]))),
}


@pytest.mark.parametrize("place", PLACES)
def test_declared_ids_hold_in_any_order(copy: Copy, place: str) -> None:
    """Each file alone declares the added tokens, in an order that is not that of the ids."""
    wanted = {name: declared(copy.root / name) for name in TOKENIZERS}
    for name in TOKENIZERS:
        directory = copy.root / name
        if place == "tokenizer.json":
            write_tokenizer_json(directory)
        if place != "added_tokens.json":
            (directory / "added_tokens.json").unlink()
        if place != "added_tokens_decoder":
            change(directory / "tokenizer_config.json", lambda config: config.pop("added_tokens_decoder") and None)
        file, edit = PLACES[place]
        change(directory / file, edit)
    assert copy.build() == 0
    for name, folder in zip(TOKENIZERS, ("text", "speech"), strict=True):
        tokenizer = TextTokenizer.load(copy.engine / folder / "tokenizer.json")
        for content, token_id in wanted[name].items():
            assert tokenizer.token_id(content) == token_id
            assert tokenizer.encode(f"a{content}b")[1:-1] == [token_id]
    units = np.load(copy.engine / "speech" / "units.npy")
    for content, token_id in wanted["omni2/tts_tokenizer"].items():
        if content[1:-1].isdecimal():
            assert units[token_id] == int(content[1:-1])


def swap(entries: list[dict[str, Any]]) -> None:
    entries[-1]["id"], entries[-2]["id"] = entries[-2]["id"], entries[-1]["id"]


def swap_older(content: dict[str, int]) -> None:
    *_, a, b = content
    content[a], content[b] = content[b], content[a]


def swap_decoder(config: dict[str, Any]) -> None:
    tokens = config["added_tokens_decoder"]
    *_, a, b = tokens
    tokens[a], tokens[b] = tokens[b], tokens[a]


def one_id_for_two(config: dict[str, Any]) -> None:
    tokens = config["added_tokens_decoder"]
    tokens[str(int([*tokens][-1]) + 1)] = tokens[[*tokens][-1]]


def rename_last(content: dict[str, int]) -> None:
    content["<a>"] = content.pop([*content][-1])


CONTRADICTIONS: list[tuple[str, Callable[[Any], Any], tuple[str, ...]]] = [
    ("tokenizer.json", lambda whole: swap(whole["added_tokens"]), ("tokenizer.json", "added_tokens.json")),
    ("added_tokens.json", swap_older, ("added_tokens.json", "tokenizer.json")),
    ("tokenizer_config.json", swap_decoder, ("tokenizer_config.json", "added_tokens.json")),
    ("tokenizer_config.json", one_id_for_two, ("tokenizer_config.json",)),
    ("added_tokens.json", rename_last, ("two tokens", "`<a>`")),
    ("added_tokens.json", lambda content: content.update({"<new>": 3}), ("two tokens", "vocabulary", "<new>")),
]


@pytest.mark.parametrize("directory", TOKENIZERS)
@pytest.mark.parametrize(("file", "edit", "named"), CONTRADICTIONS)
def test_ids_that_contradict_each_other_are_refused(
    copy: Copy,
    refused: Callable[..., str],
    directory: str,
    file: str,
    edit: Callable[[Any], Any],
    named: tuple[str, ...],
) -> None:
    write_tokenizer_json(copy.root / directory)
    change(copy.root / directory / file, edit)
    message = refused()
    assert all(word in message for word in (directory, *named)), message
