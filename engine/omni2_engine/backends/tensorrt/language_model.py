"""A language model on the device, which decodes several steps at once where its samplers can choose the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.decode_request import DecodeRequest, Enough, Tokens
from omni2_engine.backends.base.host_language_model import HostLanguageModel, check_room
from omni2_engine.backends.base.kv_cache import DecoderState, SlotCache
from omni2_engine.backends.cuda.kernels import DeviceKernels
from omni2_engine.backends.cuda.table import DeviceTable
from omni2_engine.backends.tensorrt.decode_batch import DecodeBatch
from omni2_engine.backends.tensorrt.decode_loop import DecodeLoop, serves, visible_sizes
from omni2_engine.backends.tensorrt.decode_step import KERNELS_OF_A_STEP
from omni2_engine.backends.tensorrt.graph import TensorRTGraph
from omni2_engine.backends.tensorrt.prefill import FEWEST, MOST_RECORDED, DevicePrefill
from omni2_engine.errors import CapacityError
from omni2_engine.model.config import DecoderConfig
from omni2_engine.model.tables import EmbeddingTable
from omni2_engine.sampling import Choose
from omni2_engine.settings.tuning import DECODE

Floats = NDArray[np.float32]


class DeviceLanguageModel(HostLanguageModel):
    """See `LanguageModel`. Logits and hidden states stay on the device unless the host needs them.

    Args:
        graph: an `llm` or `speech_lm` plan.
        config: its dimensions.
        table: its token embeddings, copied to the device.
        prefill: another plan of the model over the same caches, which all positions are fed by that are not decoded;
            `graph` if None.

    Raises:
        BackendError: the device's kernels cannot be compiled.
        EngineDirectoryError: the two plans have different caches.
        CapacityError: the device has no room for the table.
    """

    def __init__(
        self, graph: TensorRTGraph, config: DecoderConfig, table: EmbeddingTable, prefill: TensorRTGraph | None = None
    ) -> None:
        super().__init__(graph, config, table, prefill=prefill)
        self._plan, self._stream, self._recorded = graph.plan, graph.stream, graph.cuda_graphs
        self._kernels = DeviceKernels(graph.stream.device, KERNELS_OF_A_STEP)
        self._device_table = DeviceTable(graph.stream.device, graph.stream.cuda, table)
        self._prefill = DevicePrefill(prefill or graph)
        self._loops: WeakKeyDictionary[SlotCache, DecodeLoop] = WeakKeyDictionary()

    def nbytes(self, slots: int, capacity: int) -> int:
        """Bytes of the device's memory, those of decoding included; see `LanguageModel.nbytes`."""
        batch = DecodeBatch.bytes_for(slots, capacity, self.config.vocab, self.config.hidden)
        return super().nbytes(slots, capacity) + batch

    def new_cache(self, slots: int, capacity: int) -> SlotCache:
        """KV caches, and the memory of their decoding steps; see `LanguageModel.new_cache`."""
        cache = super().new_cache(slots, capacity)
        self._loops[cache] = DecodeLoop(
            self._plan, self._stream, cache, self._device_table, self._kernels, self._recorded
        )
        return cache

    @property
    def held(self) -> int:
        """Bytes of the device's memory beside the plan's; see `LanguageModel.held`."""
        return self._device_table.nbytes

    def on_host(self) -> HostLanguageModel:
        """The same plans, called step by step; see `LanguageModel.on_host`."""
        return HostLanguageModel(self._graph, self.config, self.table, prefill=self._prefill_graph)

    def longest(self, choose: Choose) -> int:
        """As many as the token ring holds; see `LanguageModel.longest`."""
        return DECODE.token_ring if serves(choose) else super().longest(choose)

    def extend(self, state: DecoderState, embeds: Floats) -> None:
        """Feed positions to one state without waiting; see `LanguageModel.extend`. `state.logits` and `state.hidden`
        are not updated."""
        check_room([state], len(embeds))
        batch, slot = self._loops[state.cache].batch, state.index
        caches = {name: cache[slot : slot + 1] for name, cache in state.cache.caches.items()}
        with self._stream.lock:
            for first in range(0, len(embeds), self._prefill.most):
                piece = embeds[first : first + self._prefill.most]
                self._prefill.run(caches, state.length, piece, batch.fed_logits[slot], batch.fed_hidden[slot])
                state.length += len(piece)

    def decode_many(self, requests: Sequence[DecodeRequest], enough: Enough | None = None) -> list[Tokens]:
        """Decode several tokens; see `LanguageModel.decode_many`. Where the device cannot choose, the host does, from
        logits that are copied for every token."""
        for request in requests:
            check_room([request.state], request.tokens - (request.feed is None))
        ours = [request for request in requests if serves(request.choose)]
        others = [request for request in requests if not serves(request.choose)]
        self._fetch([request.state for request in others if request.feed is None])
        found = iter(self._loops[ours[0].state.cache].decode_many(ours, enough) if ours else [])
        chosen = iter(super().decode_many(others, enough) if others else [])
        return [next(found if serves(request.choose) else chosen) for request in requests]

    def warm_up(self, cache: SlotCache, in_groups: bool = False) -> None:
        """Record every step that a conversation may take, and what groups are fed by, at every length; see
        `LanguageModel.warm_up`. TensorRT-RTX compiles kernels for each, which takes seconds: in the midst of a turn all
        other sessions would wait for it. Prompts may have any length, and kernels for theirs are compiled as they
        come."""
        self._loops[cache].warm_up()
        if cache.slots > 1:
            self._warm_up_alone(cache.capacity)
        if in_groups:
            states = [cache.acquire() for _ in range(cache.free)]
            self._warm_up_groups(states, visible_sizes(cache.positions))
            for state in states:
                state.release()

    def _warm_up_alone(self, capacity: int) -> None:
        """Have kernels compiled for conversations that find no slot and decode in a cache of their own."""
        with suppress(CapacityError):  # where there is no room for such a cache, none is let in
            cache = super().new_cache(1, capacity)
            DecodeLoop(self._plan, self._stream, cache, self._device_table, self._kernels, recorded=False).warm_up()

    def _warm_up_groups(self, states: Sequence[DecoderState], sizes: Sequence[int]) -> None:
        """Feed groups to empty states, at every length: for one state all are prepared, for others as many as are
        recorded."""
        separated, group = FEWEST[1], FEWEST[0]  # the last group, which a separator follows, and others
        for size in sizes:
            self._feed_zeros(states[0], size, separated)
        calls = [(states[0], size) for size in sizes] + [(state, size) for size in sizes for state in states[1:]]
        for state, size in calls[:MOST_RECORDED]:
            for _ in range(2):  # the second call is recorded
                self._feed_zeros(state, size, group)

    def _feed_zeros(self, state: DecoderState, until: int, count: int) -> None:
        """Feed the last `count` of `until` positions."""
        state.length = min(until, state.capacity) - count
        self.extend(state, np.zeros((count, self.config.hidden), np.float32))

    def _fetch(self, states: Sequence[DecoderState]) -> None:
        """Copy prefill's outputs of these states to the host."""
        if not states:
            return
        cuda = self._stream.cuda
        with self._stream.lock:
            for state in states:
                batch = self._loops[state.cache].batch
                cuda.download(state.logits, batch.fed_logits[state.index])
                cuda.download(state.hidden, batch.fed_hidden[state.index])
        cuda.synchronize()
