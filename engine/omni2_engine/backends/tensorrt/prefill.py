"""Prefill of a language model on the device; the host does not wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.cuda.array import DeviceArray
from omni2_engine.backends.cuda.staging import StagingBuffer
from omni2_engine.backends.tensorrt.graph import TensorRTGraph

Floats = NDArray[np.float32]


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
        self._execution = graph.execution
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
        stop, execution = start + len(embeds), self._execution
        inputs: dict[str, NDArray[Any]] = {
            "embeds": embeds[None],
            "positions": np.arange(start, stop, dtype=np.int64)[None],
            "write": np.array([start], np.int64),
            "last": np.array([[len(embeds) - 1]], np.int64),
            "mask": (np.arange(stop)[None, :] <= np.arange(start, stop)[:, None])[None, None],
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
