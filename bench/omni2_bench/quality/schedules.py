"""The same units rendered in other chunks: all at once, every W, or growing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine import Engine
from omni2_engine.errors import SettingError

Floats = NDArray[np.float32]
GROWTH = 4  # "growing" doubles its chunks up to this multiple of the first


@dataclass(frozen=True)
class Rendering:
    """Sound (n,) float32 and the samples at which its chunks begin, the first left out."""

    pcm: Floats
    edges: list[int]


def checked(schedule: str) -> str:
    """A schedule as it was given.

    Raises:
        SettingError: it is none.
    """
    if schedule not in ("offline", "growing") and not (schedule.isdigit() and int(schedule)):
        raise SettingError(f"unknown chunks {schedule!r}", "use offline, growing, or a number of units")
    return schedule


def chunk_sizes(schedule: str, units: int, write: int, fewest: int) -> list[int]:
    """How many units each call takes; they sum to `units`.

    Args:
        schedule: "offline", "growing", or a number of units.
        write: W, the first chunk of "growing".
        fewest: units that a call must have unless it is the last.
    """
    if schedule == "offline":
        return [units]
    size = write if schedule == "growing" else int(schedule)
    sizes: list[int] = []
    pending = 0
    while sum(sizes) + pending < units:
        pending = min(pending + size, units - sum(sizes))
        if pending >= fewest or sum(sizes) + pending == units:
            sizes.append(pending)
            pending = 0
            if schedule == "growing":
                size = min(2 * size, GROWTH * write)
    return sizes


def render(engine: Engine, units: list[int], schedule: str, seed: int = 0) -> Rendering:
    """Voice units with the engine's flow and vocoder, one voice, one seed."""
    decoder = engine.pipeline.decoder
    state = decoder.new_state(engine.voice_features())
    sizes = chunk_sizes(schedule, len(units), engine.config.write, decoder.fewest_units)
    pieces: list[Floats] = []
    start = 0
    for number, size in enumerate(sizes):
        final = number == len(sizes) - 1
        mel = decoder.run_flow(state, units[start : start + size], final)
        pieces.append(decoder.run_vocoder(state, mel, final, seed, 0))
        start += size
    lengths = np.cumsum([len(piece) for piece in pieces])[:-1]
    return Rendering(np.concatenate(pieces) if pieces else np.zeros(0, np.float32), [int(n) for n in lengths])
