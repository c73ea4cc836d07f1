"""How much memory building a plan takes, from builds that were measured (docs/tensorrt.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from omni2_engine.errors import Omni2Error
from omni2_engine.memory import available_memory

FIXED = 0.6e9  # bytes TensorRT takes for any plan
TIMES = 4.0  # what it takes for each byte of weights
CLEARLY = 1.25  # so many times what there is cannot be meant


def building_memory(weights: int) -> int:
    """Bytes of memory that building a plan takes at most, about.

    Args:
        weights: bytes of the plan.
    """
    return int(FIXED + TIMES * weights)


def check_memory(needs: Mapping[str, int], force: bool, say: Callable[[str], None]) -> None:
    """Say what building plans one after the other takes of memory, and refuse what cannot fit.

    Args:
        needs: bytes per plan.
        force: only say it.
        say: told the sentence.

    Raises:
        Omni2Error: it clearly does not fit.
    """
    if not needs:
        return
    largest = max(needs, key=lambda name: needs[name])
    needed, free = needs[largest], available_memory()
    sentence = f"building {largest} needs about {needed / 1e9:.1f} GB of memory, you have {free / 1e9:.1f}"
    if needed > CLEARLY * free and not force:
        raise Omni2Error(
            sentence,
            "build on a larger machine (it needs no GPU), store fewer bits (--precision fast), or try with --force",
        )
    say(sentence)
