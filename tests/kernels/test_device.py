"""A captured step on a stand-in for CUDA: modules that NVRTC made, launched again and again with nothing changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from omni2_engine import _core
from omni2_kernels.compile import compile_kernels
from omni2_kernels.decoding import BATCH, CANDIDATE, CONTEST, NO_ID, REPORT, State, Stop, element_type, new_rows
from omni2_kernels.registry import KERNELS

from ..engine.stand_ins.cuda import FakeCuda, build_fake_cudart

ROWS, VOCAB, WIDTH, VISIBLE, TOKENS = 3, 700, 24, 48, 12


class Device:
    """Arrays in device memory, and kernels of compiled modules.

    Args:
        library: the stand-in libcudart.
        cache: for the modules.
    """

    def __init__(self, library: str, cache: Path) -> None:
        self.device = _core.CudaDevice(library)
        self.stream = self.device.stream()
        images = {name: self.device.load(module.cubin) for name, module in compile_kernels("sm_89", cache).items()}
        self.kernels = {name: images[kernel.source].kernel(name) for name, kernel in KERNELS.items()}
        self._memory: list[Any] = []

    def put(self, array: NDArray[Any]) -> int:
        """A copy of the array on the device; its address."""
        memory = self.device.allocate(array.nbytes)
        self._memory.append(memory)
        self.stream.upload(memory.address, array)
        return memory.address

    def map(self, shape: tuple[int, ...], dtype: Any) -> tuple[int, NDArray[Any]]:
        """Zeros that both sides see."""
        memory = self.device.pin(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        memory.array[...] = 0
        self._memory.append(memory)
        return memory.device_address, memory.array.view(dtype).reshape(shape)

    def launch(self, kernel: str, *arguments: object) -> None:
        launch = KERNELS[kernel].launch({"rows": ROWS, "vocab": VOCAB}, *arguments)
        self.stream.launch(self.kernels[kernel], launch.grid, launch.block, launch.arguments)


def host_tokens(logits: NDArray[np.float32], settings: Any) -> list[int]:
    """What the host chooses from the same logits, again and again, with the penalty of what it has."""
    ids: list[int] = []
    for step in range(TOKENS):
        penalty, temperature, top_k = (settings[name].item() for name in ("penalty", "temperature", "top_k"))
        key = (int(settings["seed"]), int(settings["stream"]), int(settings["turn"]), step)
        ids.append(_core.sample(logits, np.array(ids, np.int64), penalty, temperature, top_k, 1.0, *key))
    return ids


def test_a_captured_step_is_launched_for_every_token(kernel_library: Path, tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="needs NVRTC; pip install '.[tensorrt]' to run this test")
    fake = FakeCuda(build_fake_cudart())
    fake.reset()
    assert fake.emulate(kernel_library) == len(KERNELS)
    gpu = Device(fake.path, tmp_path)
    random = np.random.default_rng(6)
    shapes = (ROWS, VOCAB), (ROWS, WIDTH), (VOCAB, WIDTH)
    logits, hidden, table = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    rows = new_rows(ROWS)
    rows["state"], rows["until"], rows["spare"] = State.PREFILLED, TOKENS, VISIBLE - 1
    rows["temperature"], rows["top_k"], rows["penalty"] = [0, 1, 0.8], [0, 50, 0], [1.3, 1, 1.1]
    rows["seed"], rows["length"] = [2**40, 7, 8], [5, 1, 9]
    mask = np.zeros((ROWS, VISIBLE), np.uint8)
    embeds = gpu.put(np.zeros((ROWS, WIDTH), np.float16))
    batch = np.zeros((), BATCH)
    batch["vocab"], batch["table_rows"], batch["width"], batch["visible"] = VOCAB, VOCAB, WIDTH, VISIBLE
    batch["logits_stride"], batch["hidden_stride"] = VOCAB, WIDTH
    batch["generated_capacity"] = batch["token_ring_size"] = batch["hidden_ring_size"] = TOKENS
    batch["table_type"], batch["embeds_type"] = element_type(np.float32), element_type(np.float16)
    batch["embeds"] = embeds
    for name, array in {
        "rows": rows,
        "logits": logits,
        "hidden": hidden,
        "table": table,
        "mask": mask,
        "chosen": np.zeros(ROWS, np.int32),
        "contests": np.zeros(ROWS, CONTEST),
        "candidates": np.zeros((ROWS, VOCAB), CANDIDATE),
        "generated": np.full((ROWS, TOKENS), NO_ID, np.int32),
        "hidden_ring": np.zeros((ROWS, TOKENS, WIDTH), np.float32),
        "positions": np.zeros(ROWS, np.int64),
        "write": np.zeros(ROWS, np.int64),
    }.items():
        batch[name] = gpu.put(array)
    batch["tokens"], tokens = gpu.map((ROWS, TOKENS), np.int32)
    batch["reports"], reports = gpu.map((ROWS,), REPORT)

    def step(serve: State) -> None:
        for kernel in ("rank_logits", "draw_token", "sample_and_embed"):
            gpu.launch(kernel, batch, serve)

    step(State.PREFILLED)
    gpu.stream.begin_capture()
    step(State.RUNNING)
    graph = gpu.stream.end_capture()
    for _ in range(TOKENS + 2):  # two more than there are tokens to choose
        gpu.stream.launch_graph(graph)
    gpu.stream.synchronize()

    assert reports["step"].tolist() == [TOKENS] * ROWS and (reports["stop"] == Stop.UNTIL).all()
    wanted = [host_tokens(logits[row], rows[row]) for row in range(ROWS)]
    assert tokens.tolist() == wanted
    assert fake.contents(int(batch["write"]), (ROWS,), np.int64).tolist() == [VISIBLE - 1] * ROWS
    seen = fake.contents(int(batch["mask"]), (ROWS, VISIBLE), np.uint8)
    assert np.array_equal(seen, np.arange(VISIBLE) < (rows["length"] + TOKENS - 1)[:, None])
    last = table[[ids[-2] for ids in wanted]].astype(np.float16)  # the last token is not fed
    assert np.array_equal(fake.contents(embeds, (ROWS, WIDTH), np.float16), last)
