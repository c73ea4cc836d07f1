"""How much memory building a plan takes, from builds that were measured (docs/tensorrt.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from omni2_engine.errors import Omni2Error
from omni2_engine.system.resources import available_memory

FIXED = 0.55e9  # bytes that Python and TensorRT take for any plan
PER_ATTENTION = 15e6  # for each attention and what stands around it
# For each byte of weights: the graph's own file, which the system may drop again, the copy that becomes the plan, and
# what is being rearranged of it. Weights of 4 bits are taken apart for that.
TIMES, TIMES_PACKED = 2.3, 2.8
MAPPED = 1.0  # of those, the graph's file


def building_memory(weights: int, attentions: int, packed: bool) -> int:
    """Bytes of memory that building a plan takes at most, about.

    Args:
        weights: bytes of the plan's weights.
        attentions: its attention layers.
        packed: whether two weights share a byte.
    """
    return int(FIXED + PER_ATTENTION * attentions + (TIMES_PACKED if packed else TIMES) * weights)


def check_memory(needs: Mapping[str, tuple[int, int]], force: bool, say: Callable[[str], None]) -> None:
    """Say what building plans one after the other takes of memory, and refuse what cannot fit.

    Args:
        needs: per plan the bytes it takes (`building_memory`), and how many of them are its weights' file.
        force: only say it.
        say: told the sentence.

    Raises:
        Omni2Error: it does not fit, even if the file has to be read again and again.
    """
    if not needs:
        return
    largest = max(needs, key=lambda name: needs[name])
    (needed, weights), free = needs[largest], available_memory()
    sentence = f"building {largest} needs about {needed / 1e9:.1f} GB of memory, you have {free / 1e9:.1f}"
    if needed - MAPPED * weights > free and not force:
        raise Omni2Error(
            sentence,
            "build on a larger machine (it needs no GPU), store fewer bits (--precision fast), or try with --force",
        )
    say(sentence)
