"""The kernels a plan launches, as TensorRT's builder lists them, and what is wrong with them.

The parsed network says what is computed; which kernels do it is decided while the plan is built. With detailed
profiling the builder logs that list (`Messages.listing`), on a machine without a GPU too. Seen with TensorRT-RTX 1.7.1:
a product with int4 weights in blocks, or with int8 weights per channel, is one kernel. Int8 weights in blocks are
written out in 16 bits to working memory in every call, by a kernel of their own. A product whose factors are both fp8
reads them as such if the scales are constants; otherwise both are widened to 16 bits.
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
FP8 = "Datatype: FP8"
LARGE = 1 << 20  # elements of a matrix that is worth a word: 2 MB in 16 bits


@dataclass(frozen=True)
class Lowered:
    """The kernels of one call.

    Args:
        kinds: kernels by the builder's kind: "kgen" (generated), "gemm", "runtime_fusion", "copy" …
        moves: of them, those that only move what another has made.
        cache_copies: of the moves, those that copy what is visible of a cache.
        expanded: names of kernels that depend on weights alone and write as many numbers in every call.
        attentions: kernels that are an attention.
        fp8: products that read both of their factors in fp8.
    """

    kinds: dict[str, int]
    moves: int = 0
    cache_copies: int = 0
    expanded: tuple[str, ...] = ()
    attentions: int = 0
    fp8: int = 0

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
    moves = cache_copies = attentions = fp8 = 0
    expanded = []
    for line in listing.splitlines():
        layer = LAYER.match(line)
        if not layer or layer["kind"] in HOST:
            continue
        kinds[layer["kind"]] += 1
        attentions += "_mha_" in layer["name"]
        found = OPERATIONS.match(layer["name"])
        operations = set(re.findall("[A-Z][a-z]*", found["operations"])) if found else set()
        if operations and operations <= MOVES:
            moves += 1
            cache_copies += bool(CACHE.search(layer["inputs"]))
        constants = CONSTANTS.search(line)
        fp8 += FP8 in layer["inputs"] and constants is not None and FP8 in constants[1]
        if not layer["inputs"].strip() and constants and max(_sizes(constants[1]), default=0) >= LARGE:
            expanded.append(layer["name"])
    return Lowered(dict(kinds), moves, cache_copies, tuple(expanded), attentions, fp8)


def require_lean(lowered: Lowered, name: str, fp8: int) -> None:
    """Refuse a plan that writes its weights out in every call, or widens factors of fp8.

    Args:
        lowered: its kernels.
        name: of the plan, for the error.
        fp8: products that its graph wants in fp8.

    Raises:
        Omni2Error: it does.
    """
    if lowered.expanded:
        raise Omni2Error(
            f"{name} would write {len(lowered.expanded)} matrices of weights to working memory in every call "
            f"({lowered.expanded[0]} the first)",
            "store these weights in another format (--precision), and report this",
        )
    if lowered.fp8 < fp8:
        raise Omni2Error(
            f"{name} would compute {fp8 - lowered.fp8} of its {fp8} products of fp8 in another type",
            "store these weights in another format (--precision), and report this",
        )


def require_fused(lowered: Lowered, attentions: int, name: str) -> None:
    """Refuse a plan whose attentions, written as products, have not become one kernel each.

    Raises:
        Omni2Error: one has not.
    """
    if lowered.kernels and lowered.attentions != attentions:
        raise Omni2Error(
            f"{name} would have {lowered.attentions} fused attentions where the model has {attentions}",
            "report this with TensorRT's version; build with --target cpu until it is mended",
        )


def _sizes(tensors: str) -> Iterator[int]:
    """Elements of every tensor of a list whose dimensions are all numbers."""
    for dimensions in DIMENSIONS.findall(tensors):
        sizes = [int(size) for size in dimensions.split(",") if size]
        if sizes and min(sizes) > 0:
            yield math.prod(sizes)
