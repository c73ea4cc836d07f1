"""Prefill of a language model on the device; the host does not wait for it.

Calls have few shapes, so that TensorRT-RTX can compile kernels for each: positions are padded. What is fed beyond the
last one is written behind it in the cache, where no mask shows it before it is overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.cuda.array import DeviceArray
from omni2_engine.backends.cuda.staging import StagingBuffer
from omni2_engine.backends.tensorrt.graph import TensorRTGraph
from omni2_engine.settings.tuning import DECODE

Floats = NDArray[np.float32]
FEWEST = (4, 16, 64)  # positions of short calls; a pair of groups for the speech LM, a typed question
GRANULE = 32  # longer calls are a multiple of this number of positions


class DevicePrefill:
    """Prefill of one model, for one thread at a time.

    Args:
        graph: the model.

    Attributes:
        most: positions of one call.
    """

    def __init__(self, graph: TensorRTGraph) -> None:
        device = graph.stream.device
        self._stream, self._stage = graph.stream, graph.plan.stage
        self._execution = graph.plan.execution(graph.stream, few_shapes=True)
        self._sent = StagingBuffer(device)
        self._done = device.event()
        self.most = graph.most("embeds", 1) or 1

    def run(self, caches: Mapping[str, DeviceArray], start: int, embeds: Floats, logits: int, hidden: int) -> None:
        """Feed positions.

        Args:
            caches: of one slot, (1, …).
            start: positions that the caches hold already.
            embeds: (n, hidden) float32, n ≤ most.
            logits, hidden: addresses for (vocab,) and (hidden,) float32 of the last position.

        Raises:
            BackendError: TensorRT refuses.
            CapacityError: the device has no room for the inputs.
        """
        execution, capacity = self._execution, min(cache.shape[2] for cache in caches.values())
        fed, visible = call_size(len(embeds), start, self.most, capacity)
        positions = np.arange(start, start + fed)
        inputs: dict[str, NDArray[Any]] = {
            "embeds": np.pad(embeds, ((0, fed - len(embeds)), (0, 0)))[None],
            "positions": positions[None],
            "write": np.array([start], np.int64),
            "last": np.array([[len(embeds) - 1]], np.int64),
            "mask": (np.arange(visible)[None, :] <= positions[:, None])[None, None],
        }
        self._done.synchronize()  # the staging buffer is used again; there is rarely anything to wait for
        self._sent.lay_out({name: (array.shape, array.dtype) for name, array in inputs.items()})
        for name, array in inputs.items():
            self._sent.arrays[name][...] = array
            execution.set(name, self._sent.addresses[name], array.shape)
        for name, cache in caches.items():
            execution.set(name, cache.address, cache.shape)
            execution.set(f"new_{name}", cache.address)
        execution.set("logits", logits)
        execution.set("hidden", hidden)
        with self._stream.timed(self._stage):
            self._sent.send(self._stream.cuda)
            execution.enqueue()
        self._stream.cuda.record(self._done)


def padded_positions(count: int) -> int:
    """Positions of a padded call."""
    return next((few for few in FEWEST if count <= few), -(-count // GRANULE) * GRANULE)


def call_size(count: int, start: int, most: int, capacity: int) -> tuple[int, int]:
    """Positions that a call feeds and positions that it shows, for `count` that follow `start`.

    Args:
        count: positions there are to feed, ≤ most.
        start: positions held already.
        most: positions of one call.
        capacity: of the cache.
    """
    rounded = padded_positions(count)
    fed = rounded if rounded <= min(most, capacity - start) else count
    visible = DECODE.least_visible
    while visible < start + fed:
        visible *= 2
    return fed, min(visible, capacity)
