"""The kernels a plan launches, as TensorRT's builder lists them, and what is wrong with them.

The parsed network says what is computed; which kernels do it is decided while the plan is built. With detailed
profiling the builder logs that list (`Messages.listing`), on a machine without a GPU too. Seen with TensorRT-RTX 1.7.1:
a product with int4 weights in blocks, or with int8 weights per channel, is one kernel. Int8 weights in blocks are
written out in 16 bits to working memory in every call, by a kernel of their own.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omni2_engine.errors import Omni2Error

LAYER = re.compile(r"^Name: (?P<name>.+?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], Constants: \[")
CONSTANTS = re.compile(r"Constants: \[(.*?)\], Outputs: \[")
DIMENSIONS = re.compile(r"Dimensions: \[([-\d,]*)\]")
OPERATIONS = re.compile(r"__my\w_(?P<operations>[A-Z][A-Za-z]*)_myl")  # of a generated kernel, four letters for each
HOST = frozenset({"shape_call", "reshape", "cast", "signal", "wait"})  # arithmetic on shapes; no kernel is launched
MOVES = frozenset({"Tran", "Slic", "Move", "Resh", "Conc", "Repl", "Spli"})  # operations that change no number
CACHE = re.compile(r"Name: (new_)?\w*(keys|values)_\d")
LARGE = 1 << 20  # elements of a matrix that is worth a word: 2 MB in 16 bits


@dataclass(frozen=True)
class Lowered:
    """The kernels of one call.

    Args:
        kinds: kernels by the builder's kind: "kgen" (generated), "gemm", "runtime_fusion", "copy" …
        moves: of them, those that only move what another has made.
        cache_copies: of the moves, those that copy what is visible of a cache.
        expanded: names of kernels that depend on weights alone and write as many numbers in every call.
    """

    kinds: dict[str, int]
    moves: int = 0
    cache_copies: int = 0
    expanded: tuple[str, ...] = ()

    @property
    def kernels(self) -> int:
        """All of them."""
        return sum(self.kinds.values())

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Lowered:
        """From `asdict` of one, as JSON keeps it."""
        return cls(**{**data, "expanded": tuple(data["expanded"])})


def read_listing(listing: str) -> Lowered:
    """What a builder's list of layers says.

    Args:
        listing: lines that begin with "Name: ", others are passed over.
    """
    kinds: Counter[str] = Counter()
    moves = cache_copies = 0
    expanded = []
    for line in listing.splitlines():
        layer = LAYER.match(line)
        if not layer or layer["kind"] in HOST:
            continue
        kinds[layer["kind"]] += 1
        found = OPERATIONS.match(layer["name"])
        operations = set(re.findall("[A-Z][a-z]*", found["operations"])) if found else set()
        if operations and operations <= MOVES:
            moves += 1
            cache_copies += bool(CACHE.search(layer["inputs"]))
        constants = CONSTANTS.search(line)
        if not layer["inputs"].strip() and constants and max(_sizes(constants[1]), default=0) >= LARGE:
            expanded.append(layer["name"])
    return Lowered(dict(kinds), moves, cache_copies, tuple(expanded))


def require_lean(lowered: Lowered, name: str) -> None:
    """Refuse a plan that writes its weights out in every call.

    Raises:
        Omni2Error: it does.
    """
    if lowered.expanded:
        raise Omni2Error(
            f"{name} would write {len(lowered.expanded)} matrices of weights to working memory in every call "
            f"({lowered.expanded[0]} the first)",
            "store these weights in another format (--precision), and report this",
        )


def _sizes(tensors: str) -> Iterator[int]:
    """Elements of every tensor of a list whose dimensions are all numbers."""
    for dimensions in DIMENSIONS.findall(tensors):
        sizes = [int(size) for size in dimensions.split(",") if size]
        if sizes and min(sizes) > 0:
            yield math.prod(sizes)
