"""A stage's graph on TensorRT, on stand-ins for TensorRT and CUDA: binding, order, recorded calls, errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from omni2_engine.backends.base.graph import CallBefore, run_one_by_one
from omni2_engine.backends.cuda.state import DeviceState
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.tensorrt.graph import TensorRTGraph
from omni2_engine.backends.tensorrt.plan import TensorRTPlan
from omni2_engine.errors import BackendError, CapacityError

from ...stand_ins.cuda import LAUNCH_FAILURE
from ..conftest import CAPACITY, write_stage

Make = Callable[..., TensorRTGraph]
SLOTS = 3
START_AGAIN = r"cudaErrorLaunchFailure .* — start the process again"


class Reference:
    """What the stage computes, in NumPy, for all slots."""

    def __init__(self) -> None:
        self.keys = np.zeros((SLOTS, 2, CAPACITY, 4), np.float32)
        self.contexts = np.zeros((1, 4), np.float32)

    def run(self, first: int, stop: int, x: np.ndarray, write: np.ndarray) -> dict[str, np.ndarray]:
        for row, place in enumerate(write):
            self.keys[first + row, :, place : place + x.shape[2]] = x[row]
        self.contexts = self.contexts / 2 + x.sum((0, 1, 2))
        return {"doubled": 2 * x, "logits": self.keys[first:stop].sum((1, 2))}


class Stage:
    """The stage with state for some slots, as `SlotCache` has it."""

    def __init__(self, graph: TensorRTGraph) -> None:
        self.graph = graph
        self.state: DeviceState = graph.state({"keys_0": (SLOTS, 2, CAPACITY, 4), "contexts": (1, 4)})
        self.logits = graph.results({"logits": (SLOTS, 4)})["logits"]
        graph.stream.cuda.synchronize()

    def bind(self, first: int, stop: int, repeats: bool = False) -> Any:
        arrays = self.state.arrays
        state = {"keys_0": arrays["keys_0"][first:stop], "contexts": arrays["contexts"]}
        return self.graph.bind(state, {"logits": self.logits[first:stop]}, repeats)


def inputs(rng: np.random.Generator, rows: int, length: int) -> dict[str, np.ndarray]:
    x = rng.standard_normal((rows, 2, length, 4)).astype(np.float32)
    return {"x": x, "write": rng.integers(0, CAPACITY - length, rows)}


def write_negative(path: Path, name: str = "a") -> Path:
    """A graph without state: `name` (B, 2, S, 4) float32 → its `negative`, and its magnitude, which nothing reads."""
    value = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT, shape=["B", 2, "S", 4])
    nodes = [helper.make_node("Neg", [name], ["negative"]), helper.make_node("Abs", [name], ["unread"])]
    graph = helper.make_graph(nodes, "negative", [value(name)], [value("negative"), value("unread")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10), path)
    return path


def what(log: list[str]) -> list[str]:
    return [line.split(" ", 1)[1] for line in log]


def test_calls_compute_what_the_graph_says_with_state_where_it_is(fake_cuda: Any, make_graph: Make) -> None:
    stage, reference, rng = Stage(make_graph()), Reference(), np.random.default_rng(0)
    bound = {span: stage.bind(*span) for span in ((0, 3), (1, 3), (2, 3))}
    for span in ((0, 3), (2, 3), (1, 3), (0, 3), (1, 3)):
        given = inputs(rng, span[1] - span[0], int(rng.integers(1, 5)))
        expected = reference.run(*span, **given)
        result = bound[span].run(given)
        assert set(result) == {"doubled", "logits"}
        np.testing.assert_array_equal(result["doubled"], expected["doubled"])
        np.testing.assert_allclose(result["logits"], expected["logits"], rtol=1e-5)
        assert np.shares_memory(result["logits"], stage.logits)
    keys, contexts = stage.state.arrays["keys_0"], stage.state.arrays["contexts"]
    np.testing.assert_array_equal(fake_cuda.contents(keys.address, keys.shape, keys.dtype), reference.keys)
    there = fake_cuda.contents(contexts.address, contexts.shape, contexts.dtype)
    np.testing.assert_allclose(there, reference.contexts, rtol=1e-5)


def test_results_stay_when_the_next_call_is_made(make_graph: Make) -> None:
    stage, rng = Stage(make_graph()), np.random.default_rng(1)
    bound, given = stage.bind(0, 3), inputs(rng, 3, 2)
    first = bound.run(given)["doubled"]
    bound.run(inputs(rng, 3, 2))
    np.testing.assert_array_equal(first, 2 * given["x"])


def test_a_call_is_one_copy_there_the_plan_and_the_way_back(fake_cuda: Any, make_graph: Make) -> None:
    bound = Stage(make_graph()).bind(0, 2)
    given = inputs(np.random.default_rng(2), 2, 1)
    bound.run(given)
    fake_cuda.log_begin()
    bound.run(given)
    assert what(fake_cuda.log()) == [
        "copy host to device 512",  # x and write, 256 bytes each with what lies between
        "host function",  # the plan
        "copy device to device 16",  # contexts
        "copy device to host 32",  # logits, to where they are wanted
        "copy device to host 256",  # doubled
    ]


def test_runs_in_a_row_are_one_copy_there_the_plans_and_one_copy_back(fake_cuda: Any, make_graph: Make) -> None:
    graph, rng = make_graph(), np.random.default_rng(15)
    stages = [Stage(graph) for _ in range(4)]
    bound = [stage.graph.bind({name: a[:1] for name, a in stage.state.arrays.items()}) for stage in stages]
    x = rng.standard_normal((1, 2, 3, 4)).astype(np.float32)
    each = [{"write": np.array([place])} for place in (0, 2, 5, 9)]
    chained = graph.run_chain(bound, {"x": x}, each, {"doubled": "x"})
    fake_cuda.log_begin()
    np.testing.assert_array_equal(graph.run_chain(bound, {"x": x}, each, {"doubled": "x"})["doubled"], 16 * x)
    assert what(fake_cuda.log()) == [
        "graph",
        f"copy host to device {256 * (1 + len(each))}",
        *["host function", "copy device to device 16"] * 4,
        "copy device to host 512",  # doubled and logits of the last
    ]
    references = [Reference() for _ in stages]
    given = x
    for reference, own in zip(references, each, strict=True):
        expected = reference.run(0, 1, given, own["write"])
        reference.run(0, 1, given, own["write"])
        given = expected["doubled"]
    np.testing.assert_array_equal(chained["doubled"], expected["doubled"])
    np.testing.assert_allclose(chained["logits"], expected["logits"], rtol=1e-5)
    for stage, reference in zip(stages, references, strict=True):
        keys, contexts = stage.state.arrays["keys_0"], stage.state.arrays["contexts"]
        np.testing.assert_array_equal(fake_cuda.contents(keys.address, keys.shape, keys.dtype), reference.keys)
        there = fake_cuda.contents(contexts.address, contexts.shape, contexts.dtype)
        np.testing.assert_allclose(there, reference.contexts, rtol=1e-5)


def test_runs_in_a_row_give_what_runs_one_by_one_do(make_graph: Make) -> None:
    graph, rng = make_graph(), np.random.default_rng(16)
    each = [{"write": np.array([place, 3])} for place in (0, 7)]
    for length in (3, 1, 5):
        x = rng.standard_normal((2, 2, length, 4)).astype(np.float32)
        results = []
        for run in (graph.run_chain, run_one_by_one):
            stages = [Stage(graph) for _ in each]
            bound = [
                stage.graph.bind({"keys_0": s["keys_0"][:2], "contexts": s["contexts"]})
                for stage in stages
                for s in [stage.state.arrays]
            ]
            results.append(run(bound, {"x": x}, each, {"doubled": "x"}))
        assert set(results[0]) == set(results[1]) == {"doubled", "logits"}
        for name in results[0]:
            np.testing.assert_array_equal(results[0][name], results[1][name])


@pytest.mark.parametrize("name", ["a", "write"])  # which is int64 in the graph behind
def test_a_call_before_runs_in_a_row_hands_its_result_on_within_the_device(
    name: str, fake_cuda: Any, make_graph: Make, open_plan: Callable[..., TensorRTPlan], tmp_path: Path
) -> None:
    graph, rng = make_graph(), np.random.default_rng(17)
    other = TensorRTGraph(open_plan(write_negative(tmp_path / "b.onnx", name)), graph.stream, True)
    each = [{"write": np.array([place])} for place in (0, 7)]
    before = [
        CallBefore(other, {name: rng.standard_normal((1, 2, 3, 4)).astype(np.float32)}, {"negative": "x"})
        for _ in range(3)
    ]
    for run in (graph.run_chain, run_one_by_one):
        stages = [Stage(graph) for _ in each]
        bound = [stage.graph.bind({name: a[:1] for name, a in stage.state.arrays.items()}) for stage in stages]
        for call in before:  # the first runs as it is, the second is recorded, the third launched
            fake_cuda.log_begin()
            found = run(bound, {}, each, {}, call)
            np.testing.assert_array_equal(found["doubled"], -2 * call.inputs[name])
        if run == graph.run_chain:
            copies = [line for line in what(fake_cuda.log()) if "copy" in line and "to device 16" not in line]
            assert [line.rpartition(" ")[0] for line in copies] == ["copy host to device", "copy device to host"]


def test_calls_in_expected_shapes_are_recorded_and_others_are_not(
    fake_cuda: Any, stage_stream: StageStream, open_plan: Callable[..., TensorRTPlan], tmp_path: Path
) -> None:
    graph, rng = (
        TensorRTGraph(open_plan(write_negative(tmp_path / "b.onnx")), stage_stream, True),
        np.random.default_rng(18),
    )
    graph.expect({"a": (1, 2, 3, 4)})
    graph.expect({"a": (2, 2, 3, 4)})
    recorded = []
    for rows in (1, 2, 3, 1, 2, 3, 2, 1, 3):
        given = rng.standard_normal((rows, 2, 3, 4)).astype(np.float32)
        fake_cuda.log_begin()
        np.testing.assert_array_equal(graph.run({"a": given})["negative"], -given)
        recorded.append("graph" in what(fake_cuda.log()))
    assert recorded == [False, False, False, True, True, False, True, True, False]


def test_a_graph_without_state_runs_with_all_inputs(make_graph: Make) -> None:
    graph, rng = make_graph(), np.random.default_rng(3)
    given = inputs(rng, 2, 3) | {
        "keys_0": rng.standard_normal((2, 2, CAPACITY, 4)).astype(np.float32),
        "contexts": np.ones((1, 4), np.float32),
    }
    assert graph.inputs == {"x": (None, 2, None, 4), "write": (None,), "contexts": (1, 4), "keys_0": (None, 2, 16, 4)}
    bound = graph.bind({"keys_0": graph.state({"keys_0": (2, 2, CAPACITY, 4)}).arrays["keys_0"]})
    del given["keys_0"]
    result = bound.run(given)
    np.testing.assert_allclose(result["new_contexts"], 0.5 + given["x"].sum((0, 1, 2))[None], rtol=1e-5)
    np.testing.assert_array_equal(result["doubled"], 2 * given["x"])


def test_calls_that_repeat_themselves_are_recorded_in_the_second(
    fake_cuda: Any, fake_tensorrt: Any, make_graph: Make
) -> None:
    stage, reference, rng = Stage(make_graph()), Reference(), np.random.default_rng(4)
    bound = stage.bind(1, 3, repeats=True)
    for number in range(4):
        given = inputs(rng, 2, 1)
        fake_cuda.log_begin()
        result = bound.run(given)
        expected = reference.run(1, 3, **given)
        np.testing.assert_array_equal(result["doubled"], expected["doubled"])
        np.testing.assert_allclose(result["logits"], expected["logits"], rtol=1e-5)
        assert (what(fake_cuda.log())[0] == "graph") is (number > 0)
        assert len(fake_cuda.log()) == 5 + (number > 0)
    assert fake_tensorrt.calls == [("stage", False), ("stage", True)]
    stage.bind(0, 3).run(inputs(rng, 3, 4))  # other calls of the graph have a context of their own
    np.testing.assert_array_equal(bound.run(given)["doubled"], expected["doubled"])


def test_a_recorded_call_with_another_shape_names_it_and_the_switch(make_graph: Make) -> None:
    bound, rng = Stage(make_graph()).bind(0, 2, repeats=True), np.random.default_rng(5)
    bound.run(inputs(rng, 2, 1))
    with pytest.raises(BackendError, match=r"x of \(2, 2, 1, 4\), and now it is \(2, 2, 3, 4\) — .*--no-cuda-graphs"):
        bound.run(inputs(rng, 2, 3))
    bound.run(inputs(rng, 2, 1))


def test_without_cuda_graphs_shapes_may_change(fake_cuda: Any, fake_tensorrt: Any, make_graph: Make) -> None:
    bound, rng = Stage(make_graph(cuda_graphs=False)).bind(0, 2, repeats=True), np.random.default_rng(6)
    for length in (1, 1, 3):
        given = inputs(rng, 2, length)
        np.testing.assert_array_equal(bound.run(given)["doubled"], 2 * given["x"])
    assert fake_tensorrt.calls == [("stage", False)] * 3
    assert fake_cuda.live()["graphs"] == 0


def test_a_call_that_cannot_be_recorded_names_the_stage_and_the_switch(fake_cuda: Any, make_graph: Make) -> None:
    bound, given = Stage(make_graph()).bind(0, 2, repeats=True), inputs(np.random.default_rng(7), 2, 1)
    bound.run(given)
    fake_cuda.refuse("fake_cuda_call", 900)
    with pytest.raises(BackendError, match=r"the stage stage cannot become a CUDA graph: TensorRT .*cuda_graphs=False"):
        bound.run(given)
    np.testing.assert_array_equal(bound.run(given)["doubled"], 2 * given["x"])


def test_memory_cannot_move_from_under_a_recorded_call(make_graph: Make) -> None:
    stage, given = Stage(make_graph()), inputs(np.random.default_rng(8), 2, 1)
    bound = stage.bind(0, 2, repeats=True)
    bound.run(given)
    bound.run(given)
    with pytest.raises(BackendError, match="has moved from under its CUDA graph"):
        bound.move({"keys_0": stage.state.arrays["keys_0"][1:3]})


def test_state_may_be_bound_elsewhere(fake_cuda: Any, make_graph: Make) -> None:
    stage, given = Stage(make_graph()), inputs(np.random.default_rng(9), 1, 2)
    bound, keys = stage.bind(0, 1), stage.state.arrays["keys_0"]
    bound.move({"keys_0": keys[2:3]})
    bound.run(given)
    contents = fake_cuda.contents(keys.address, keys.shape, keys.dtype)
    assert not contents[:2].any() and contents[2].any()
    with pytest.raises(ValueError, match="one piece"):
        bound.move({"keys_0": keys[:1, :, :4]})


def test_a_shape_beyond_the_profile_says_what_the_plan_takes(make_graph: Make) -> None:
    bound = Stage(make_graph()).bind(0, 2)
    with pytest.raises(
        BackendError, match=r"stage takes x of \(1, 2, 1, 4\) to \(4, 2, 8, 4\), not \(2, 2, 9, 4\) — .*--target"
    ):
        bound.run(inputs(np.random.default_rng(10), 2, 9))


def test_what_tensorrt_refuses_is_said_in_its_words(fake_tensorrt: Any, make_graph: Make) -> None:
    bound, given = Stage(make_graph()).bind(0, 2), inputs(np.random.default_rng(11), 2, 1)
    fake_tensorrt.fail_next = "the tactic needs another driver"
    with pytest.raises(BackendError, match="TensorRT cannot run stage: the tactic needs another driver"):
        bound.run(given)
    np.testing.assert_array_equal(bound.run(given)["doubled"], 2 * given["x"])


def test_a_device_that_fails_in_a_call_stays_failed(
    fake_cuda: Any, stage_stream: StageStream, make_graph: Make
) -> None:
    bound, given = Stage(make_graph()).bind(0, 2), inputs(np.random.default_rng(12), 2, 1)
    bound.run(given)
    fake_cuda.launch(stage_stream.cuda.handle, lambda: 1 / 0)
    for _ in range(2):
        with pytest.raises(BackendError, match=START_AGAIN):
            bound.run(given)


def test_a_device_that_fails_while_a_call_is_enqueued_is_no_fault_of_tensorrt(
    fake_cuda: Any, make_graph: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound, given = Stage(make_graph()).bind(0, 2), inputs(np.random.default_rng(12), 2, 1)
    bound.run(given)
    launch = fake_cuda.launch

    def lost(*arguments: Any) -> int:
        fake_cuda.lose(LAUNCH_FAILURE)
        return int(launch(*arguments))

    monkeypatch.setattr(fake_cuda, "launch", lost)
    with pytest.raises(BackendError, match=START_AGAIN):
        bound.run(given)


def test_an_array_of_another_dtype_is_not_converted_silently(make_graph: Make) -> None:
    bound, given = Stage(make_graph()).bind(0, 2), inputs(np.random.default_rng(13), 2, 1)
    with pytest.raises(ValueError, match="write is int32 and should be int64"):
        bound.run(given | {"write": given["write"].astype(np.int32)})


def test_a_cache_that_is_not_updated_in_place_is_refused(
    open_plan: Callable[[Path], TensorRTPlan], tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match="does not update the cache keys_0 in place — build the plans again"):
        open_plan(write_stage(tmp_path / "copying.onnx", in_place=False))


def test_lack_of_device_memory_is_an_error_of_capacity(fake_cuda: Any, make_graph: Make) -> None:
    graph = make_graph()
    fake_cuda.set_memory(1 << 20)
    with pytest.raises(CapacityError, match="left in one piece"):
        graph.state({"keys_0": (4096, 2, CAPACITY, 4)})
    Stage(graph).bind(0, 2).run(inputs(np.random.default_rng(14), 2, 1))
