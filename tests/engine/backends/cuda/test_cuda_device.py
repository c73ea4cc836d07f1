"""A CUDA device from Python, on the stand-in libcudart: memory, copies, recording, kernels, errors."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_engine._core import CudaDevice, CudaStream
from omni2_engine.errors import BackendError, CapacityError

from ....waiting import SOON, let_others_run

LAUNCH = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_uint), ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p)
)


def test_a_device_says_what_it_is(fake_cuda: Any, device: CudaDevice) -> None:
    fake_cuda.set_capability(9, 0)
    assert (device.library, device.name) == (fake_cuda.path, "a device that is none")
    assert device.capability == (9, 0)
    assert device.driver_version == device.runtime_version == (13, 0)
    free, total = device.memory()
    assert 0 < free <= total


def test_it_is_not_mistaken_for_another_libcudart_of_the_process(fake_cuda: Any, tmp_path: Path) -> None:
    """Of the stand-in: a real libcudart that was loaded for all libraries before it must not answer for it."""
    source, other = tmp_path / "other.c", tmp_path / "libother.so"
    source.write_text("int cudaDriverGetVersion(int* version) { *version = 1; return 0; }\n", encoding="utf-8")
    subprocess.run([os.environ.get("CXX", "g++"), "-x", "c", "-shared", "-fPIC", "-o", other, source], check=True)
    script = (
        "import ctypes, sys; from omni2_engine._core import CudaDevice; ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL);"
        "print(CudaDevice(sys.argv[2]).runtime_version)"
    )
    said = subprocess.run([sys.executable, "-c", script, other, fake_cuda.path], capture_output=True, text=True)
    assert said.stdout == "(13, 0)\n", said.stderr


def test_no_device_is_an_error_with_a_remedy(fake_cuda: Any) -> None:
    fake_cuda.set_devices(0)
    with pytest.raises(BackendError, match=r"no CUDA device — .*CUDA_VISIBLE_DEVICES"):
        CudaDevice(fake_cuda.path)
    with pytest.raises(BackendError, match=r"/nowhere/libcudart\.so.*OMNI2_CUDART"):
        CudaDevice("/nowhere/libcudart.so")


def test_the_environment_names_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI2_CUDART", "/elsewhere/libcudart.so")
    with pytest.raises(BackendError, match="/elsewhere/libcudart"):
        CudaDevice()


def test_arrays_go_there_and_back(device: CudaDevice, stream: CudaStream) -> None:
    memory, pinned = device.allocate(80), device.pin(80)
    values = pinned.array.view(np.float32)
    values[:] = np.arange(20)
    stream.upload(memory.address, values)
    back = np.empty((4, 5), np.float32)
    stream.download(back, memory.address)  # not pinned: waited for
    np.testing.assert_array_equal(back, values.reshape(4, 5))
    stream.copy(memory.address + 40, memory.address, 40)
    stream.fill(memory.address, 0, 20)
    stream.copy_rows(memory.address, 8, memory.address + 40, 16, 4, 2)
    stream.download(values, memory.address)
    stream.synchronize()
    expected = np.concatenate([[0, 0, 4, 0, 0], np.arange(5, 10), np.arange(10)])
    np.testing.assert_array_equal(values, expected)


def test_memory_given_back_is_there_for_what_still_runs_on_it(
    fake_cuda: Any, device: CudaDevice, stream: CudaStream
) -> None:
    """Of the stand-in, also when the device is lost meanwhile: a driver waits for what runs before it takes memory."""
    memory, pinned = device.allocate(1 << 20), device.pin(1 << 20)
    begun, given_back = threading.Event(), threading.Event()
    address, host = memory.address, pinned.array.ctypes.data

    def write() -> None:
        begun.set()
        given_back.wait()
        fake_cuda.contents(address, (1 << 20,), np.uint8)[:] = 1
        ctypes.memset(host, 1, 1 << 20)

    assert fake_cuda.launch(stream.handle, write) == 0
    begun.wait()
    fake_cuda.lose()
    del memory, pinned
    gc.collect()
    given_back.set()
    fake_cuda.settle()
    assert not fake_cuda.raised and fake_cuda.live()["allocations"] == fake_cuda.live()["pinned"] == 0


def test_pageable_sources_may_be_used_again_at_once(fake_cuda: Any, device: CudaDevice, stream: CudaStream) -> None:
    memory, source = device.allocate(8), np.array([1, 2], np.float32)
    fake_cuda.delay(stream.handle, 20_000)
    stream.upload(memory.address, source)
    source[:] = 7
    stream.synchronize()
    assert fake_cuda.contents(memory.address, (2,), np.float32).tolist() == [1, 2]


def test_arrays_must_lie_in_one_piece(device: CudaDevice, stream: CudaStream) -> None:
    memory, array = device.allocate(64), np.zeros((4, 4), np.float32)
    with pytest.raises(ValueError, match="C-contiguous"):
        stream.upload(memory.address, array.T[:, :2])
    with pytest.raises(ValueError, match="C-contiguous"):
        stream.download(array[:, 1:], memory.address)
    array.flags.writeable = False
    with pytest.raises((BufferError, ValueError), match="read-only"):
        stream.download(array, memory.address)


def test_the_host_cannot_get_at_what_was_freed(fake_cuda: Any, device: CudaDevice, stream: CudaStream) -> None:
    memory = device.allocate(16)
    address = memory.address
    del memory
    with pytest.raises(IndexError):
        fake_cuda.contents(address, (4,), np.float32)
    with pytest.raises(BackendError, match="cudaErrorInvalidValue"):
        stream.upload(address, np.zeros(4, np.float32))


def test_pinned_memory_lives_as_long_as_a_view_of_it(fake_cuda: Any, device: CudaDevice) -> None:
    view = device.pin(64).array.view(np.float32)[3:]
    gc.collect()
    assert fake_cuda.live()["pinned"] == 1
    view[:] = 1
    del view
    assert fake_cuda.live()["pinned"] == 0


def test_lack_of_memory_is_an_error_of_capacity(fake_cuda: Any, device: CudaDevice) -> None:
    fake_cuda.set_memory(1 << 30)
    with pytest.raises(CapacityError, match=r"2\.00 GiB left in one piece: 1\.00 GiB of .* — .*fewer sessions"):
        device.allocate(2 << 30)
    assert device.allocate(16).nbytes == 16


def test_what_is_recorded_runs_when_it_is_launched(fake_cuda: Any, device: CudaDevice, stream: CudaStream) -> None:
    memory, pinned = device.allocate(16), device.pin(16)
    values = pinned.array.view(np.int32)
    stream.begin_capture()
    stream.upload(memory.address, values)
    stream.fill(memory.address, 0, 4)
    graph = stream.end_capture()
    for first in (1, 5):
        values[:] = np.arange(first, first + 4)
        stream.launch_graph(graph)
        stream.synchronize()
        assert fake_cuda.contents(memory.address, (4,), np.int32).tolist() == [0, first + 1, first + 2, first + 3]


def test_garbage_may_be_collected_during_a_recording(fake_cuda: Any, device: CudaDevice, stream: CudaStream) -> None:
    memory, rubbish = device.allocate(16), [device.allocate(16), device.pin(16)]
    rubbish.append(rubbish)  # a cycle, which only the collector finds
    stream.begin_capture()
    stream.fill(memory.address, 1, 16)
    del rubbish
    gc.collect()
    assert fake_cuda.live()["allocations"] == 2
    stream.launch_graph(stream.end_capture())
    stream.synchronize()
    assert fake_cuda.live()["allocations"] == 1


def test_kernels_get_their_arguments_by_value(fake_cuda: Any, device: CudaDevice, stream: CudaStream) -> None:
    pair = np.dtype([("where", np.uint64), ("count", np.int32)], align=True)
    seen = []

    @LAUNCH
    def scale(grid: Any, block: Any, shared: int, arguments: Any) -> None:
        there = ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_uint64))[0]
        count = ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_int32))[2]
        factor = ctypes.cast(arguments[1], ctypes.POINTER(ctypes.c_float))[0]
        values = np.frombuffer((ctypes.c_float * count).from_address(there), np.float32)
        values *= factor
        seen.append((tuple(grid[:3]), tuple(block[:3]), shared))

    sizes = (ctypes.c_size_t * 2)(16, 4)
    fake_cuda.function("fake_cuda_add_kernel")(b"scale", scale, sizes, 2)
    memory = device.allocate(12)
    stream.upload(memory.address, np.array([1, 2, 3], np.float32))
    kernel = device.load(b"\x7fELF and so on").kernel("scale", shared_memory=1 << 10)
    record = np.zeros((), pair)
    record["where"], record["count"] = memory.address, 2
    stream.launch(kernel, (2, 1, 1), (32, 1, 1), [record, np.float32(3)], 1 << 10)
    record["count"] = 3  # too late for the launch before
    stream.launch(kernel, (1, 1, 1), (64, 1, 1), [record.tobytes(), np.float32(10)])
    stream.synchronize()
    assert fake_cuda.contents(memory.address, (3,), np.float32).tolist() == [30, 60, 30]
    assert seen == [((2, 1, 1), (32, 1, 1), 1 << 10), ((1, 1, 1), (64, 1, 1), 0)]
    with pytest.raises(TypeError, match="numpy scalar"):
        stream.launch(kernel, (1, 1, 1), (1, 1, 1), [1.5, None])
    with pytest.raises(BackendError, match="no kernel another"):
        device.load(b"\x7fELF").kernel("another")


def test_streams_run_beside_each_other(fake_cuda: Any, device: CudaDevice, stream: CudaStream) -> None:
    """The second one fills while the first is held; only then may the first go on. Priorities are clamped."""
    other, event, memory = device.stream(-100), device.event(), device.allocate(8)
    filled = threading.Event()
    fake_cuda.launch(stream.handle, lambda: None if filled.wait(SOON) else pytest.fail("nothing ran beside it"))
    stream.fill(memory.address, 1, 4)
    other.fill(memory.address + 4, 2, 4)
    other.record(event)
    event.synchronize()
    assert fake_cuda.contents(memory.address + 4, (4,), np.uint8).tolist() == [2] * 4
    filled.set()
    stream.synchronize()
    assert fake_cuda.contents(memory.address, (8,), np.uint8).tolist() == [1] * 4 + [2] * 4


def test_timed_events_measure(fake_cuda: Any, device: CudaDevice, stream: CudaStream) -> None:
    start, stop = device.event(timed=True), device.event(timed=True)
    stream.record(start)
    fake_cuda.delay(stream.handle, 30_000)
    stream.record(stop)
    stop.synchronize()
    assert stop.since(start) == pytest.approx(0.03)


def test_waiting_leaves_the_processor_to_others(fake_cuda: Any, device: CudaDevice, stream: CudaStream) -> None:
    for event in (device.event(), device.event(timed=True)):
        stream.record(event)
        event.synchronize()
    stream.synchronize()
    assert fake_cuda.spinning_waits() == 0


def test_a_driver_that_is_too_old_is_told_which_it_takes(fake_cuda: Any, repository: Path) -> None:
    """The same number as in the documentation, where it stands before what is to be downloaded."""
    fake_cuda.refuse("cudaGetDeviceCount", 35)
    with pytest.raises(BackendError, match="an NVIDIA driver from 580 on"):
        CudaDevice(fake_cuda.path)
    for page, download in (("README.md", "pip install '.[export,tensorrt]'"), ("docs/gpu.md", "    make test-gpu ")):
        text = (repository / page).read_text(encoding="utf-8")
        assert 0 < text.index("driver must be 580 or newer") < text.index(download), page


def test_a_lost_device_is_reported_by_everything(fake_cuda: Any, device: CudaDevice, stream: CudaStream) -> None:
    memory = device.allocate(16)
    fake_cuda.lose()
    for use in (
        stream.synchronize,
        lambda: stream.fill(memory.address, 0, 16),
        lambda: device.allocate(16),
        lambda: device.pin(16),
        device.stream,
        device.memory,
        stream.begin_capture,
    ):
        with pytest.raises(BackendError, match=r"cudaErrorIllegalAddress .* — start the process again"):
            use()


def test_other_threads_go_on_while_one_waits(fake_cuda: Any, device: CudaDevice, stream: CudaStream) -> None:
    """Which takes the interpreter lock: what the stream waits for comes from a thread of Python's."""
    let_go, seen = threading.Event(), []
    assert fake_cuda.launch(stream.handle, lambda: seen.append(let_go.wait(SOON))) == 0
    waiting = threading.Thread(target=stream.synchronize)
    waiting.start()
    let_others_run()
    assert waiting.is_alive()
    let_go.set()
    waiting.join(SOON)
    assert seen == [True] and not waiting.is_alive()
