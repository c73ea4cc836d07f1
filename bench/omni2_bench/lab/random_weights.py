"""Random weights that are on no disk: what plans are built of where their numbers do not matter."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from omni2_bench.random_checkpoint import Dimensions
from omni2_engine.model.config import ModelConfig, TokenConfig
from omni2_export.build.graphs import GraphSpec
from omni2_export.checkpoint.names import expected_shapes
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import GraphBuilder

POOL = 1 << 22  # random numbers that weights are cut from


class RandomTensors:
    """Tensors of random numbers in the size of real ones that take no room on a disk; see `Tensors`."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self._pool = np.random.default_rng(0).standard_normal(POOL, np.float32)

    def names(self) -> list[str]:
        """See `Tensors`."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Tensors`."""
        return self._shapes[name]

    def dtype(self, name: str) -> np.dtype:
        """See `Tensors`."""
        return np.dtype(np.float32)

    def read(self, name: str) -> np.ndarray:
        """See `Tensors`."""
        return self.rows(name, 0, self._shapes[name][0])

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """See `Tensors`."""
        width = int(np.prod(self._shapes[name][1:], dtype=np.int64))
        first = (zlib.crc32(name.encode()) + start * width) % POOL
        flat = np.take(self._pool, np.arange(first, first + (stop - start) * width), mode="wrap")
        return (flat / np.float32(np.sqrt(width))).reshape(stop - start, *self._shapes[name][1:])


def random_modules(dimensions: Dimensions) -> tuple[ModelConfig, dict[str, Tensors]]:
    """A model of these dimensions whose weights are random and nowhere on a disk."""
    no_tokens = TokenConfig(eos=(), repetition_penalty=1.0, speech=0, sep=0, speech_eos=0)
    config = dimensions.model_config(no_tokens)
    return config, {module: RandomTensors(shapes) for module, shapes in expected_shapes(config).items()}


class StandInBuilder(GraphBuilder):
    """Fills weight files with random numbers as they are stored, quantised ones too: nothing is computed for them.

    They differ from tensor to tensor, since TensorRT keeps equal weights once.
    """

    def stored(
        self, name: str, dtype: ir.DataType, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]
    ) -> ir.Value:
        """See `GraphBuilder.stored`."""
        generator = np.random.default_rng(zlib.crc32(name.encode()))

        def draw(view: np.ndarray) -> None:
            flat = view.reshape(-1)
            for start in range(0, len(flat), POOL):
                piece = flat[start : start + POOL]
                if np.issubdtype(view.dtype, np.integer):
                    piece.view(np.uint8)[...] = np.frombuffer(generator.bytes(piece.nbytes), np.uint8)
                else:
                    piece[...] = generator.uniform(0.001, 0.05, len(piece))  # as scales too these will do

        return super().stored(name, dtype, shape, draw)


class StandInGraph(GraphSpec):
    """A graph of random weights that were never numbers of a model."""

    builder = StandInBuilder
