"""A language model on the device, which decodes several steps at once wherever its samplers can choose the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.decode_request import DecodeRequest, Enough, Tokens
from omni2_engine.backends.base.host_language_model import HostLanguageModel, check_room
from omni2_engine.backends.base.kv_cache import DecoderState, SlotCache
from omni2_engine.backends.cuda.kernels import DeviceKernels
from omni2_engine.backends.cuda.table import DeviceTable
from omni2_engine.backends.tensorrt.decode_batch import DecodeBatch
from omni2_engine.backends.tensorrt.decode_loop import DecodeLoop, serves
from omni2_engine.backends.tensorrt.decode_step import KERNELS_OF_A_STEP
from omni2_engine.backends.tensorrt.graph import TensorRTGraph
from omni2_engine.backends.tensorrt.prefill import FEWEST, DevicePrefill
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

    def warm_up(self, cache: SlotCache) -> None:
        """Record every step that a conversation may take, and the shortest prefill of every free slot; see
        `LanguageModel.warm_up`. TensorRT-RTX compiles kernels for each, which takes seconds: in the midst of a turn all
        other sessions would wait for it."""
        self._loops[cache].warm_up()
        states = [cache.acquire() for _ in range(cache.free)]
        for state in states:
            for _ in range(2):  # the second call is recorded
                self.extend(state, np.zeros((FEWEST[0], self.config.hidden), np.float32))
                state.truncate(0)
        for state in states:
            state.release()

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
