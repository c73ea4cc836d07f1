"""What needs a driver, NVRTC and NumPy alone: our kernels, the device layer, the decode loop over a stand-in network.

`make test-gpu-kernels`, on any NVIDIA GPU. No model, no TensorRT, no ONNX Runtime, no test framework. `test_alone.py`
runs the same checks on the stand-in device.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from omni2_engine import _core
from omni2_engine._core import CudaDevice
from omni2_engine.backends.base.decode_request import DecodeRequest
from omni2_engine.backends.cuda.kernels import DeviceKernels
from omni2_engine.backends.cuda.library import open_device
from omni2_engine.backends.cuda.staging import StagingBuffer
from omni2_engine.backends.cuda.state import DeviceState
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.cuda.table import DeviceTable
from omni2_engine.backends.tensorrt.decode_batch import DecodeBatch
from omni2_engine.backends.tensorrt.decode_loop import DecodeLoop
from omni2_engine.backends.tensorrt.decode_step import KERNELS_OF_A_STEP
from omni2_engine.errors import BackendError, Omni2Error
from omni2_engine.model.tables import EmbeddingTable
from omni2_engine.sampling import Chooser, DrawKey, Sampling, Stream
from omni2_kernels.compile import architecture, compile_text
from omni2_kernels.decoding import State
from omni2_kernels.registry import KERNELS

WIDTH = 32  # of the stand-in network's embeddings and hidden states
SLOTS, POSITIONS, GENERATED = 6, 256, 39
TOKENS = 24  # of a decode loop's requests
SAMPLINGS = (Sampling(temperature=0), Sampling(temperature=1.0, top_k=50), Sampling(temperature=0.8, top_k=25))

# Logits that depend on every input of a step and come out alike on host and device: integers and exact divisions.
NETWORK = """
extern "C" __global__ void stand_in_network(const float* embeds, const long long* positions, float* logits,
                                            float* hidden, int width, int vocab) {
    const int row = blockIdx.y, id = blockIdx.x * blockDim.x + threadIdx.x;
    if (id >= vocab) return;
    unsigned h = __float_as_uint(embeds[row * width]) ^ (unsigned)positions[row] * 2654435761u ^ (unsigned)id * 40503u;
    h ^= h >> 13;
    h *= 1540483477u;
    h ^= h >> 15;
    logits[(long long)row * vocab + id] = (float)(h & 65535u) / 8192.0f - 4.0f;
    if (id < width) hidden[row * width + id] = embeds[row * width + id];
}
"""


def network_on_host(embed: np.ndarray, position: int, vocab: int) -> np.ndarray:
    """The same for one row: logits (vocab,) float32."""
    with np.errstate(over="ignore"):
        h = embed[:1].view(np.uint32) ^ np.uint32(position) * np.uint32(2654435761)
        h = h ^ np.arange(vocab, dtype=np.uint32) * np.uint32(40503)
        h ^= h >> np.uint32(13)
        h *= np.uint32(1540483477)
        h ^= h >> np.uint32(15)
    return (h & np.uint32(65535)).astype(np.float32) / np.float32(8192) - np.float32(4)


Enqueue = Callable[[StageStream, dict[str, int], int, int], None]  # lane, addresses, slots, vocab


class MakeNetwork(Protocol):
    """Makes what enqueues the stand-in network on a lane."""

    def __call__(self, device: CudaDevice) -> Enqueue: ...


def compiled_network(device: CudaDevice) -> Enqueue:
    """By NVRTC, on the device."""
    texts = {"stand_in.cu": NETWORK.encode()}
    module = device.load(compile_text("stand_in.cu", architecture(*device.capability), texts).cubin)
    kernel = module.kernel("stand_in_network")

    def enqueue(lane: StageStream, addresses: dict[str, int], slots: int, vocab: int) -> None:
        pointers = [np.uint64(addresses[name]).tobytes() for name in ("embeds", "positions", "logits", "hidden")]
        arguments = (*pointers, np.int32(WIDTH).tobytes(), np.int32(vocab).tobytes())
        lane.cuda.launch(kernel, (-(-vocab // 256), slots, 1), (256, 1, 1), arguments)

    return enqueue


class NetworkPlan:
    """A plan whose every call is the stand-in network; see `Plan` and `Execution`, which this is both of."""

    stage = "stand-in network"

    def __init__(self, enqueue: Enqueue, slots: int, vocab: int) -> None:
        self._enqueue, self._slots, self._vocab = enqueue, slots, vocab
        self._addresses: dict[str, int] = {}

    def execution(self, lane: StageStream, few_shapes: bool) -> NetworkPlan:
        made = NetworkPlan(self._enqueue, self._slots, self._vocab)
        made._lane = lane
        return made

    _lane: StageStream

    def set(self, name: str, address: int, shape: tuple[int, ...] | None = None) -> None:
        self._addresses[name] = address

    @contextmanager
    def recording(self, what: str) -> Iterator[Any]:
        with self._lane.recording(what) as recording:
            yield recording

    def enqueue(self) -> None:
        self._enqueue(self._lane, self._addresses, self._slots, self._vocab)


def table_of(vocab: int, folder: Path) -> EmbeddingTable:
    """Random token embeddings."""
    path = folder / f"table-{vocab}.npy"
    np.save(path, np.random.default_rng(vocab).standard_normal((vocab, WIDTH)).astype(np.float32))
    return EmbeddingTable(path)


def check_device_layer(device: CudaDevice) -> str:
    """Copies through staging, fills, rows, memory that is used again, events, and a capture that is launched twice."""
    lane, rng = StageStream(device), np.random.default_rng(0)
    sent, values = StagingBuffer(device), rng.standard_normal((5, 8)).astype(np.float32)
    sent.lay_out({"values": (values.shape, values.dtype)})
    state = DeviceState(lane, {"keys": ((4, 5, 8), np.dtype(np.float32))})
    keys = state.arrays["keys"]
    start, stop = device.event(timed=True), device.event(timed=True)
    sent.fill({"values": values})

    def enqueue() -> None:
        sent.send(lane.cuda)
        lane.cuda.copy(keys[2].address, sent.addresses["values"], values.nbytes)
        state.copy(keys[0], keys[2])

    lane.cuda.record(start)
    enqueue()
    lane.cuda.record(stop)
    with lane.recording("copies") as recording:
        enqueue()
    for factor in (1, 2):
        sent.fill({"values": factor * values})
        lane.cuda.launch_graph(recording.graph)
        found = np.empty(keys.shape, np.float32)
        lane.cuda.download(found, keys.address)
        lane.cuda.synchronize()
        np.testing.assert_array_equal(found[[0, 2]], np.stack([factor * values] * 2))
        assert not found[[1, 3]].any()
    assert stop.since(start) >= 0
    lease = lane.pool.take(4096)
    address = lease.address
    del lease
    assert lane.pool.take(4096).address == address, "memory that was given back is not used again"
    return f"{1e6 * stop.since(start):.0f} µs for three copies"


def check_samplers(device: CudaDevice, vocab: int, table: EmbeddingTable) -> str:
    """Greedy, penalised and drawn rows, some with ties, infinities and what is no number: the ids of the host."""
    random, lane = np.random.default_rng(vocab), StageStream(device)
    stream, kernels = lane.cuda, DeviceKernels(device, [*KERNELS])
    batch = DecodeBatch(lane, SLOTS, POSITIONS, vocab, DeviceTable(device, stream, table))
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
    chosen = np.empty(SLOTS, np.int32)
    stream.download(chosen, batch.addresses["chosen"])
    stream.synchronize()
    expected = []
    for slot in range(SLOTS):
        row = rows[slot]
        key = (int(row[name]) for name in ("seed", "stream", "turn", "step"))
        penalty, temperature, top_k = float(row["penalty"]), float(row["temperature"]), int(row["top_k"])
        expected.append(int(_core.sample(logits[slot], generated[slot], penalty, temperature, top_k, 1.0, *key)))
    assert chosen.tolist() == expected
    return f"{SLOTS} rows of {vocab} logits"


def check_decode_loop(device: CudaDevice, make: MakeNetwork, vocab: int, table: EmbeddingTable, recorded: bool) -> str:
    """Bursts of several conversations: the tokens and hidden states of a loop on the host."""
    lane = StageStream(device)
    kernels, slots = DeviceKernels(device, KERNELS_OF_A_STEP), len(SAMPLINGS)
    cache: Any = SimpleNamespace(caches={}, positions=POSITIONS, logits=np.zeros((slots, vocab), np.float32))
    plan: Any = NetworkPlan(make(device), slots, vocab)
    loop = DecodeLoop(plan, lane, cache, DeviceTable(device, lane.cuda, table), kernels, recorded)
    first = np.random.default_rng(1).standard_normal((slots, vocab)).astype(np.float32)
    for slot in range(slots):
        lane.cuda.upload(loop.batch.fed_logits[slot], first[slot])
    states = [SimpleNamespace(index=slot, length=7 + 5 * slot) for slot in range(slots)]
    choosers = [Chooser(sampling, DrawKey(slot, Stream.SPEECH, 3)) for slot, sampling in enumerate(SAMPLINGS)]
    began, ids = time.perf_counter(), [list[int]() for _ in range(slots)]
    for burst in range(3):  # a step is recorded in the second and launched from then on
        requests = []
        for slot, state in enumerate(states):
            given: Any = state
            feed = ids[slot][-1] if burst else None
            requests.append(DecodeRequest(given, feed, choosers[slot], list(ids[slot]), TOKENS, (), hidden=True))
        for slot, found in enumerate(loop.decode_many(requests)):
            found.check()
            ids[slot] += found.ids
    took = time.perf_counter() - began
    for slot, sampling in enumerate(SAMPLINGS):
        assert ids[slot] == on_host(first[slot], 7 + 5 * slot, len(ids[slot]), sampling, slot, table), f"slot {slot}"
    return f"{1e6 * took / (3 * TOKENS):.0f} µs a step of {slots} conversations, {'recorded' if recorded else 'plain'}"


def on_host(
    logits: np.ndarray, position: int, count: int, sampling: Sampling, seed: int, table: EmbeddingTable
) -> list[int]:
    """The same tokens by a loop on the host."""
    ids: list[int] = []
    for step in range(count):
        settings = (sampling.repetition_penalty, sampling.temperature, sampling.top_k or 0, 1.0)
        generated = np.asarray(ids, np.int64)
        ids.append(int(_core.sample(logits, generated, *settings, seed, int(Stream.SPEECH), 3, step)))
        logits = network_on_host(np.asarray(table.stored[ids[-1]]), position + step, len(logits))
    return ids


def main() -> int:
    """Run everything, print a line for each check and a JSON line to send back; the exit status is 1 if one failed."""
    try:
        device = open_device()
    except BackendError as error:
        print(f"skipped: no GPU can be used: {error}")
        return 0
    about = {
        "gpu": device.name,
        "capability": device.capability,
        "driver's CUDA": device.driver_version,
        "CUDA runtime": device.runtime_version,
    }
    print(about)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checks: dict[str, Callable[[], str]] = {"device layer": lambda: check_device_layer(device)}
        for vocab in (1, 4097, 151_936):
            table = table_of(vocab, folder)
            checks[f"samplers, {vocab}"] = lambda vocab=vocab, table=table: check_samplers(device, vocab, table)  # type: ignore[misc]
        table = table_of(6561, folder)
        for recorded in (False, True):
            checks[f"decode loop, recorded={recorded}"] = lambda recorded=recorded: check_decode_loop(  # type: ignore[misc]
                device, compiled_network, 6561, table, recorded
            )
        outcomes = {}
        for check, run in checks.items():
            try:
                outcomes[check] = f"ok: {run()}"
            except (AssertionError, Omni2Error, RuntimeError) as error:
                traceback.print_exc()
                outcomes[check] = f"FAILED: {type(error).__name__}: {str(error)[:300]}"
            print(f"{check}: {outcomes[check]}", flush=True)
    print(json.dumps({**about, "outcomes": outcomes}))
    return int(any(outcome.startswith("FAILED") for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
