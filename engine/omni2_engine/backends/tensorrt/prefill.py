"""Prefill of a language model on the device; the host does not wait for it.

Calls have few shapes, so that TensorRT-RTX can compile kernels for each: positions are padded. What is fed beyond the
last one is written behind it in the cache, where no mask shows it before it is overwritten. The shortest calls, those
of a pair of groups to the speech LM, are recorded as CUDA graphs, one for each slot and each number of visible
positions, until there are enough; further ones are made as longer calls are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import CudaGraph
from omni2_engine.backends.base.graph import Arrays
from omni2_engine.backends.cuda.array import DeviceArray
from omni2_engine.backends.cuda.staging import StagingBuffer
from omni2_engine.backends.tensorrt.graph import TensorRTGraph
from omni2_engine.settings.tuning import DECODE

Floats = NDArray[np.float32]
FEWEST = (4, 16, 64)  # positions of short calls; a pair of groups for the speech LM, a typed question
MOST_RECORDED = 64  # short calls: each has a context and a graph of its own
GRANULE = 32  # longer calls are a multiple of this number of positions


class DevicePrefill:
    """Prefill of one model, for one thread at a time.

    Args:
        graph: the model.

    Attributes:
        most: positions of one call.
    """

    def __init__(self, graph: TensorRTGraph) -> None:
        self._graph = graph
        self._unrecorded = PrefillCall(graph, recorded=False)
        self._shortest: dict[tuple[int, ...], PrefillCall] = {}  # by what a recording relies on
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
        capacity = min(cache.shape[2] for cache in caches.values())
        fed, visible = call_size(len(embeds), start, self.most, capacity)
        positions = np.arange(start, start + fed)
        inputs: dict[str, NDArray[Any]] = {
            "embeds": np.pad(embeds, ((0, fed - len(embeds)), (0, 0)))[None],
            "positions": positions[None],
            "write": np.array([start], np.int64),
            "last": np.array([[len(embeds) - 1]], np.int64),
            "mask": (np.arange(visible)[None, :] <= positions[:, None])[None, None],
        }
        self._call(fed, visible, caches, logits, hidden).run(inputs, caches, logits, hidden)

    def _call(self, fed: int, visible: int, caches: Mapping[str, DeviceArray], logits: int, hidden: int) -> PrefillCall:
        """What calls of this shape with this memory are made by."""
        if fed != FEWEST[0] or not self._graph.cuda_graphs:
            return self._unrecorded
        key = (visible, logits, hidden, *(cache.address for cache in caches.values()))
        if key not in self._shortest and len(self._shortest) < MOST_RECORDED:
            self._shortest[key] = PrefillCall(self._graph, recorded=True)
        return self._shortest.get(key, self._unrecorded)


class PrefillCall:
    """A call of the model that the host does not wait for.

    Args:
        graph: the model.
        recorded: launch it as a CUDA graph from the second call on: all have one shape and one memory then.
    """

    def __init__(self, graph: TensorRTGraph, recorded: bool) -> None:
        device = graph.stream.device
        self._stream, self._stage = graph.stream, graph.plan.stage
        # a context of its own: no other call may change what a recorded one relies on
        self._execution = graph.plan.execution(graph.stream, few_shapes=True)
        self._sent = StagingBuffer(device)
        self._done = device.event()
        self._recorded, self._ran = recorded, False
        self._launched: CudaGraph | None = None

    def run(self, inputs: Arrays, caches: Mapping[str, DeviceArray], logits: int, hidden: int) -> None:
        """Make the call.

        Args:
            inputs: that are not state.
            caches, logits, hidden: as of `DevicePrefill.run`.
        """
        self._done.synchronize()  # the staging buffer is used again; there is rarely anything to wait for
        if not (self._recorded and self._ran):
            self._set(inputs, caches, logits, hidden)
        self._sent.fill(inputs)
        if self._recorded and self._ran:
            launched = self._launched or self._record()
            with self._stream.timed(self._stage):
                self._stream.cuda.launch_graph(launched)
        else:
            with self._stream.timed(self._stage):
                self._enqueue()
            self._ran = True
        self._stream.cuda.record(self._done)

    def _set(self, inputs: Arrays, caches: Mapping[str, DeviceArray], logits: int, hidden: int) -> None:
        """Set all shapes and addresses."""
        execution = self._execution
        self._sent.lay_out({name: (array.shape, array.dtype) for name, array in inputs.items()})
        for name, array in inputs.items():
            execution.set(name, self._sent.addresses[name], array.shape)
        execution.set_state(caches)
        execution.set("logits", logits)
        execution.set("hidden", hidden)

    def _record(self) -> CudaGraph:
        with self._execution.recording(f"a short prefill of {self._stage}") as recording:
            self._enqueue()
        self._launched = recording.graph
        return self._launched

    def _enqueue(self) -> None:
        self._sent.send(self._stream.cuda)
        self._execution.enqueue()


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
