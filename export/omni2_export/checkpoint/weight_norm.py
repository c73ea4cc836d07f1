"""Weight normalisation undone while reading: w = g·v/‖v‖, the norm over every axis but the first (spec §1.4)."""

from __future__ import annotations

import numpy as np

from omni2_engine.errors import CheckpointError
from omni2_export.checkpoint.tensors import Float32, Tensors, finite, to_float32

SPELLINGS = (  # suffixes of magnitude g and direction v: the old hook's and the new parametrization's
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


class WithoutWeightNorm:
    """A module's tensors with every weight-normed pair, in either spelling, as the plain `X.weight` it stands for.

    Raises:
        CheckpointError: a pair's shapes do not belong together, or a weight is there twice.
    """

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        names = dict.fromkeys(tensors.names())
        self._pairs: dict[str, tuple[str, str]] = {}
        for g_suffix, v_suffix in SPELLINGS:
            for g in [name for name in names if name.endswith("." + g_suffix)]:
                stem = g.removesuffix(g_suffix)
                v = stem + v_suffix
                if v in names:
                    self._add(stem + "weight", g, v)
                    del names[g], names[v]
        self._plain = list(names)
        if twice := next((name for name in self._plain if name in self._pairs), None):
            raise CheckpointError(f"`{twice}` is there both plain and weight-normed", "keep one of the two")

    def _add(self, name: str, g: str, v: str) -> None:
        shape = self._tensors.shape(v)
        if not shape or self._tensors.shape(g) != (shape[0],) + (1,) * (len(shape) - 1):
            raise CheckpointError(
                f"`{g}` {self._tensors.shape(g)} is no magnitude for `{v}` {shape}", "download the file again"
            )
        if name in self._pairs:
            raise CheckpointError(f"`{name}` is weight-normed in two spellings", "keep one of the two")
        self._pairs[name] = (g, v)

    def names(self) -> list[str]:
        return [*self._plain, *self._pairs]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors.shape(self._direction(name))

    def dtype(self, name: str) -> np.dtype[np.generic]:
        return self._tensors.dtype(self._direction(name))

    def read(self, name: str) -> Float32:
        if name not in self._pairs:
            return self._tensors.read(name)
        return self.rows(name, 0, self.shape(name)[0])

    def rows(self, name: str, start: int, stop: int) -> Float32:
        if name not in self._pairs:
            return self._tensors.rows(name, start, stop)
        g, v = (self._tensors.rows(part, start, stop) for part in self._pairs[name])
        flat = v.reshape(len(v), -1)
        norm = np.sqrt(np.einsum("ij,ij->i", flat, flat, dtype=np.float64)).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a direction of zeros has none
            weight = to_float32(v * (g / norm.reshape(g.shape)))
        return finite(weight, f"`{name}`, made of {' and '.join(f'`{part}`' for part in self._pairs[name])},")

    def _direction(self, name: str) -> str:
        return self._pairs[name][1] if name in self._pairs else name
