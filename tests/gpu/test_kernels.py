"""The kernels on the device: the ids of the host's samplers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omni2_engine import _core
from omni2_engine._core import CudaDevice, CudaStream
from omni2_engine.backends.cuda.kernels import DeviceKernels
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.cuda.table import DeviceTable
from omni2_engine.backends.tensorrt.decode_batch import DecodeBatch
from omni2_engine.model.tables import EmbeddingTable
from omni2_engine.sampling import Stream
from omni2_kernels.decoding import State
from omni2_kernels.registry import KERNELS

from .rig import Rig

SLOTS, POSITIONS, GENERATED = 6, 256, 39


@pytest.fixture
def device(rig: Rig) -> CudaDevice:
    return rig.open_device()


@pytest.fixture
def stage_stream(device: CudaDevice) -> StageStream:
    return StageStream(device)


@pytest.fixture
def stream(stage_stream: StageStream) -> CudaStream:
    return stage_stream.cuda


@pytest.fixture
def kernels(device: CudaDevice) -> DeviceKernels:
    return DeviceKernels(device, [*KERNELS])


class Memory:
    """Arrays on the device."""

    def __init__(self, device: CudaDevice, stream: CudaStream) -> None:
        self._device, self._stream, self._kept = device, stream, list[Any]()

    def put(self, array: np.ndarray) -> int:
        self._kept.append(self._device.allocate(max(array.nbytes, 1)))
        self._stream.upload(self._kept[-1].address, np.ascontiguousarray(array))
        return int(self._kept[-1].address)

    def get(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = np.empty(shape, dtype)
        self._stream.download(array, address)
        self._stream.synchronize()
        return array


@pytest.fixture
def memory(device: CudaDevice, stream: CudaStream) -> Memory:
    return Memory(device, stream)


@pytest.mark.parametrize("vocab", [1, 4097, 151_936])
def test_tokens_are_the_hosts(
    vocab: int, rig: Rig, device: CudaDevice, stage_stream: StageStream, kernels: DeviceKernels, memory: Memory
) -> None:
    """Greedy, penalised and drawn rows, some with ties, infinities and what is no number."""
    random = np.random.default_rng(vocab)
    stream = stage_stream.cuda
    table = DeviceTable(device, stream, EmbeddingTable(rig.engine / "tables" / "llm_embed.npy"))
    batch = DecodeBatch(stage_stream, SLOTS, POSITIONS, vocab, table)
    logits = (3 * random.normal(size=(SLOTS, vocab))).astype(np.float32)
    logits[4] = np.round(logits[4])
    logits[5, random.integers(vocab, size=vocab // 3)] = np.nan
    generated = random.integers(vocab, size=(SLOTS, GENERATED))
    rows = batch.rows
    rows["state"], rows["step"], rows["seed"] = State.RUNNING, GENERATED, 2**63 + np.arange(SLOTS).astype(np.uint64)
    rows["stream"], rows["turn"] = Stream.SPEECH, 7
    rows["temperature"] = [0, 0, 1, 0.7, 1, 1]
    rows["top_k"] = [0, 50, 50, 50, 50, 0]
    rows["penalty"] = [1, 1.2, 1, 1.05, 1, 1.1]
    stream.upload(batch.addresses["logits"], logits)
    for slot in range(SLOTS):
        batch.send_ids(stream, "generated", slot, generated[slot].tolist())
    batch.send_rows(stream)
    sizes, record = {"rows": SLOTS, "vocab": vocab}, batch.record(POSITIONS)
    for name in ("rank_logits", "draw_token"):
        kernels.enqueue(stream, KERNELS[name].launch(sizes, record, int(State.RUNNING)))
    chosen = memory.get(batch.addresses["chosen"], (SLOTS,), np.int32)
    assert chosen.tolist() == [_on_host(logits[slot], rows[slot], generated[slot]) for slot in range(SLOTS)]


def _on_host(logits: np.ndarray, row: Any, generated: np.ndarray) -> int:
    penalty, temperature = float(row["penalty"]), float(row["temperature"])
    key = (int(row[name]) for name in ("seed", "stream", "turn", "step"))
    return int(_core.sample(logits, generated, penalty, temperature, int(row["top_k"]), 1.0, *key))
