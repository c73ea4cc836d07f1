"""State, staging buffers and streams, on the stand-in device."""

from __future__ import annotations

import gc
import itertools
import threading
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from omni2_engine._core import CudaDevice
from omni2_engine.backends.cuda.staging import ALIGNMENT, StagingBuffer, pinned_arrays
from omni2_engine.backends.cuda.state import DeviceState
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.errors import BackendError, CapacityError

from ....waiting import SOON, let_others_run

F32, BITS16 = np.dtype(np.float32), np.dtype(np.uint16)


def test_state_is_zero_aligned_and_apart(fake_cuda: Any, stage_stream: StageStream) -> None:
    state = DeviceState(stage_stream, {"keys": ((2, 3, 5), F32), "values": ((7,), BITS16), "empty": ((0, 4), F32)})
    stage_stream.cuda.synchronize()
    spans = sorted((array.address, array.address + array.nbytes) for array in state.arrays.values())
    assert all(stop <= begin for (_, stop), (begin, _) in itertools.pairwise(spans))
    for array in state.arrays.values():
        assert array.address % ALIGNMENT == 0
        if array.nbytes:
            assert not fake_cuda.contents(array.address, array.shape, array.dtype).any()


def test_memory_of_state_is_used_again_without_waiting_for_the_device(
    fake_cuda: Any, stage_stream: StageStream
) -> None:
    first = DeviceState(stage_stream, {"a": ((100,), F32)})
    address, view = first.arrays["a"].address, first.arrays["a"][10:]
    del first
    second = DeviceState(stage_stream, {"a": ((100,), F32)})
    assert second.arrays["a"].address != address  # a view of the first still lives
    fake_cuda.delay(stage_stream.cuda.handle, 20_000)
    stage_stream.cuda.fill(view.address, 7, view.nbytes)
    del view
    third = DeviceState(stage_stream, {"a": ((100,), F32)})
    assert third.arrays["a"].address == address
    stage_stream.cuda.synchronize()
    assert not fake_cuda.contents(address, (100,), F32).any()  # cleared behind what was still to be written
    assert fake_cuda.live()["allocations"] == 2


def test_idle_memory_makes_room_for_other_sizes(fake_cuda: Any, stage_stream: StageStream) -> None:
    fake_cuda.set_memory(1 << 20)
    large = DeviceState(stage_stream, {"a": ((200_000,), F32)})
    with pytest.raises(CapacityError, match="left in one piece"):
        DeviceState(stage_stream, {"a": ((100_000,), F32)})
    del large
    assert DeviceState(stage_stream, {"a": ((100_000,), F32)}).arrays["a"].nbytes == 400_000


def test_a_prefix_is_copied_between_caches_of_other_lengths(fake_cuda: Any, stage_stream: StageStream) -> None:
    long = DeviceState(stage_stream, {"keys": ((3, 2, 16, 4), BITS16)})
    short = DeviceState(stage_stream, {"keys": ((1, 2, 8, 4), BITS16)})
    stage_stream.cuda.synchronize()
    source = fake_cuda.contents(short.arrays["keys"].address, (1, 2, 8, 4), BITS16)
    source[...] = np.arange(64).reshape(source.shape)
    long.copy(long.arrays["keys"][1][:, :5], short.arrays["keys"][0][:, :5])
    stage_stream.cuda.synchronize()
    target = fake_cuda.contents(long.arrays["keys"].address, (3, 2, 16, 4), BITS16)
    np.testing.assert_array_equal(target[1, :, :5], source[0, :, :5])
    target[1, :, :5] = 0
    assert not target.any()
    target[...] = 9
    long.clear(long.arrays["keys"][1])
    stage_stream.cuda.synchronize()
    assert not target[1].any() and target[0].all() and target[2].all()
    with pytest.raises(ValueError, match="contiguous"):
        long.clear(long.arrays["keys"][:, :, :5])


def test_a_staging_buffer_carries_all_arrays_in_one_copy_each_way(fake_cuda: Any, stage_stream: StageStream) -> None:
    staging = StagingBuffer(stage_stream.device)
    staging.lay_out({"a": ((3,), F32), "b": ((2, 2), np.dtype(np.int64))})
    staging.arrays["a"][:] = [1, 2, 3]
    staging.arrays["b"][:] = [[4, 5], [6, 7]]
    fake_cuda.log_begin()
    staging.send(stage_stream.cuda)
    staging.fetch(stage_stream.cuda)
    stage_stream.cuda.synchronize()
    assert [line.split(" ", 1)[1] for line in fake_cuda.log()] == [
        f"copy host to device {2 * ALIGNMENT}",
        f"copy device to host {2 * ALIGNMENT}",
    ]
    assert fake_cuda.contents(staging.addresses["b"], (2, 2), np.int64).tolist() == [[4, 5], [6, 7]]


def test_a_staging_buffer_keeps_its_memory_until_it_is_too_small(stage_stream: StageStream) -> None:
    staging = StagingBuffer(stage_stream.device)
    staging.lay_out({"a": ((100,), F32)})
    first = staging.address
    staging.lay_out({"b": ((4000,), F32), "c": ((5,), F32)})
    assert staging.address == first and set(staging.addresses) == {"b", "c"}
    staging.lay_out({"b": ((400_000,), F32)})
    assert staging.address != first
    staging.lay_out({})
    assert staging.used == 0


def test_pinned_arrays_are_zero_and_keep_their_memory(device: CudaDevice) -> None:
    logits = pinned_arrays(device, {"logits": ((2, 5), F32), "hidden": ((2, 3), F32)})["logits"]
    assert logits.shape == (2, 5) and not logits.any()
    logits[1] = 1


def test_scratch_is_shared_until_a_call_needs_more(stage_stream: StageStream) -> None:
    small = stage_stream.scratch(1000)
    assert stage_stream.scratch(10) is small
    large = stage_stream.scratch(5000)
    assert large.nbytes >= 5000 and stage_stream.scratch(1000) is large


def test_what_cannot_be_recorded_names_itself_and_the_switch(stage_stream: StageStream) -> None:
    refused = pytest.raises(BackendError, match=r"the stage llm cannot become a CUDA graph: .* — .*--no-cuda-graphs")
    with refused, stage_stream.recording("the stage llm"):
        stage_stream.device.allocate(16)
    with pytest.raises(ZeroDivisionError), stage_stream.recording("the stage llm"):
        _ = 1 / 0
    with stage_stream.recording("the stage llm") as recording:  # the stream is as good as before
        pass
    stage_stream.cuda.launch_graph(recording.graph)
    stage_stream.cuda.synchronize()


def test_states_made_while_a_stream_records_stay_out_of_it(fake_cuda: Any, stage_stream: StageStream) -> None:
    made: list[DeviceState] = []
    other = threading.Thread(target=lambda: made.append(DeviceState(stage_stream, {"a": ((4,), F32)})))
    with stage_stream.recording("a stage") as recording:
        other.start()
        let_others_run()
        assert other.is_alive()
    other.join()
    stage_stream.cuda.synchronize()
    fake_cuda.log_begin()
    stage_stream.cuda.launch_graph(recording.graph)
    stage_stream.cuda.synchronize()
    assert [line.split(" ", 1)[1] for line in fake_cuda.log()] == ["graph"]
    assert not fake_cuda.contents(made[0].arrays["a"].address, (4,), F32).any()


def test_a_state_made_while_a_stream_records_finds_room_behind_it(fake_cuda: Any, stage_stream: StageStream) -> None:
    """Idle memory of another size has to be freed for it, and nothing is while a thread records."""
    fake_cuda.set_memory(1 << 20)
    idle = DeviceState(stage_stream, {"a": ((200_000,), F32)})
    del idle
    made: list[Any] = []

    def make() -> None:
        try:
            made.append(DeviceState(stage_stream, {"a": ((100_000,), F32)}))
        except Exception as error:
            made.append(error)

    other = threading.Thread(target=make)
    with stage_stream.recording("a stage"):
        other.start()
        let_others_run()
        assert not made
    other.join(SOON)
    assert isinstance(made[0], DeviceState)


def test_nothing_is_collected_until_the_last_stream_has_recorded(device: CudaDevice) -> None:
    first, last = StageStream(device), StageStream(device)
    assert gc.isenabled()
    with ExitStack() as recording:
        with first.recording("a stage"):
            recording.enter_context(last.recording("another"))
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_stream_s_pinned_memory_is_given_back_when_the_stream_has_passed(
    fake_cuda: Any, stage_stream: StageStream
) -> None:
    pinned, there, count = stage_stream.pin(64), stage_stream.pool.take(64), fake_cuda.live()["pinned"]
    dropping, still_there = threading.Event(), []

    def keep_busy() -> None:
        assert dropping.wait(SOON)
        let_others_run()
        still_there.append(fake_cuda.live()["pinned"] == count)

    assert fake_cuda.launch(stage_stream.cuda.handle, keep_busy) == 0
    stage_stream.cuda.upload(there.address, pinned.memory.array)
    dropping.set()
    del pinned
    assert fake_cuda.live()["pinned"] == count - 1 and still_there == [True]
    stage_stream.cuda.synchronize()


def test_memory_dropped_while_its_thread_records_stays_until_that_is_over(
    fake_cuda: Any, stage_stream: StageStream
) -> None:
    pinned, there = stage_stream.pin(64), stage_stream.pool.take(64)
    count = fake_cuda.live()["pinned"]
    with stage_stream.recording("a fill") as recording:
        stage_stream.cuda.fill(there.address, 0, 64)
        del pinned
        assert fake_cuda.live()["pinned"] == count
    assert fake_cuda.live()["pinned"] == count - 1
    stage_stream.cuda.launch_graph(recording.graph)
    stage_stream.cuda.synchronize()


def test_pinned_memory_that_another_thread_drops_while_one_records(
    fake_cuda: Any, stage_stream: StageStream, recwarn: pytest.WarningsRecorder
) -> None:
    """Nothing can be waited for in a capture: it is freed behind it, and no finaliser fails."""
    pinned, count = [stage_stream.pin(64)], fake_cuda.live()["pinned"]
    collecting = gc.isenabled()
    with stage_stream.recording("a stage") as recording:
        assert not gc.isenabled()  # what is collected might free memory of the device
        dropping = threading.Thread(target=pinned.clear)
        dropping.start()
        dropping.join()
        assert fake_cuda.live()["pinned"] == count
    assert recording.graph and fake_cuda.live()["pinned"] == count - 1 and gc.isenabled() == collecting
    assert not [str(warning.message) for warning in recwarn.list]
