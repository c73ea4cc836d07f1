"""The checks of `make test-gpu-kernels`, on the stand-in device or, with `--gpu`, on the GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest

from omni2_engine._core import CudaDevice
from omni2_engine.backends.cuda.library import open_device
from omni2_engine.backends.cuda.stream import StageStream
from omni2_kernels.compile import CompileError, compile_text

from . import alone


@pytest.fixture
def device(found_gpu: Any, on_device: None, request: pytest.FixtureRequest) -> CudaDevice:
    return open_device() if found_gpu else CudaDevice(request.getfixturevalue("fake_cudart").path)


@pytest.fixture
def make_network(found_gpu: Any, request: pytest.FixtureRequest) -> alone.MakeNetwork:
    """The stand-in network where the device runs kernels of ours alone: in Python, in order on the stream."""
    if found_gpu:
        return alone.compiled_network
    cuda = request.getfixturevalue("fake_cudart")

    def make(device: CudaDevice) -> alone.Enqueue:
        def enqueue(lane: StageStream, addresses: dict[str, int], slots: int, vocab: int) -> None:
            def compute() -> None:
                embeds = cuda.contents(addresses["embeds"], (slots, alone.WIDTH), np.dtype(np.float32))
                positions = cuda.contents(addresses["positions"], (slots,), np.dtype(np.int64))
                logits = cuda.contents(addresses["logits"], (slots, vocab), np.dtype(np.float32))
                for slot in range(slots):
                    logits[slot] = alone.network_on_host(embeds[slot], int(positions[slot]), vocab)
                hidden = cuda.contents(addresses["hidden"], embeds.shape, embeds.dtype)
                hidden[...] = embeds

            assert cuda.launch(lane.cuda.handle, compute) == 0

        return enqueue

    return make


def test_the_device_layer(device: CudaDevice) -> None:
    assert "three copies" in alone.check_device_layer(device)


@pytest.mark.parametrize("vocab", [1, 4097, 151_936])
def test_tokens_are_the_hosts(vocab: int, device: CudaDevice, tmp_path: Path) -> None:
    alone.check_samplers(device, vocab, alone.table_of(vocab, tmp_path))


@pytest.mark.parametrize("recorded", [False, True])
def test_the_decode_loop_over_a_stand_in_network(
    device: CudaDevice, make_network: alone.MakeNetwork, tmp_path: Path, recorded: bool
) -> None:
    alone.check_decode_loop(device, make_network, 257, alone.table_of(257, tmp_path), recorded)


def test_without_a_gpu_it_says_so_in_one_line(repository: Path) -> None:
    """And loads nothing that is large."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import os; os.environ['OMNI2_CUDART'] = '/nowhere/libcudart.so'\n"
        "from tests.gpu import alone; code = alone.main()\n"
        "assert not {'onnxruntime', 'torch', 'onnx', 'tensorrt_rtx'} & set(sys.modules); sys.exit(code)"
    )
    done = run([sys.executable, "-c", script, str(repository)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("skipped: no GPU can be used:") and done.stdout.count("\n") == 1


@pytest.mark.parametrize("target", ["sm_89", "sm_90"])
def test_the_stand_in_network_compiles(target: str) -> None:
    """NVRTC needs no GPU."""
    try:
        module = compile_text("stand_in.cu", target, {"stand_in.cu": alone.NETWORK.encode()})
    except CompileError as error:
        pytest.skip(str(error)) if "install" in error.remedy else pytest.fail(str(error))
    assert b"stand_in_network" in module.cubin
