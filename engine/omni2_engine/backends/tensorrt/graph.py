"""A TensorRT plan as a stage's graph: state stays on the device, other arrays are copied once each way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from omni2_engine._core import CudaGraph
from omni2_engine.backends.base.graph import Array, Arrays, CallBefore, Shape, is_context
from omni2_engine.backends.cuda.array import DeviceArray
from omni2_engine.backends.cuda.staging import DeviceBuffer, StagingBuffer, pinned_arrays
from omni2_engine.backends.cuda.state import DeviceState
from omni2_engine.backends.cuda.stream import GRAPHS_OFF, StageStream
from omni2_engine.backends.tensorrt.chain import Chain, keep_contexts
from omni2_engine.backends.tensorrt.plan import Execution, TensorRTPlan
from omni2_engine.errors import BackendError


class TensorRTGraph:
    """See `Graph`.

    Args:
        plan: what it runs.
        stream: of its stage.
        cuda_graphs: record calls that repeat.
    """

    def __init__(self, plan: TensorRTPlan, stream: StageStream, cuda_graphs: bool) -> None:
        self.plan = plan
        self.stream = stream
        self.inputs: Mapping[str, Shape] = plan.inputs
        self.outputs: Mapping[str, Shape] = plan.outputs
        self.dtypes: Mapping[str, np.dtype[Any]] = plan.dtypes
        self.cuda_graphs = cuda_graphs
        self._expected: set[frozenset[tuple[str, tuple[int, ...]]]] = set()  # names and shapes of inputs
        # every call of a graph with fixed shapes is alike
        self._stateless = self.bind({}, repeats=None not in chain(*plan.inputs.values()))

    @cached_property
    def execution(self) -> Execution:
        """The context of all calls that are not recorded."""
        return self.plan.execution(self.stream, few_shapes=False)

    def most(self, name: str, axis: int) -> int | None:
        """What the plan's profile has; see `Graph.most`."""
        return self.plan.range_of(name)[1][axis]

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with all inputs given; see `Graph.run`."""
        if frozenset((name, array.shape) for name, array in inputs.items()) in self._expected:
            return self._chain.run([{}], inputs, [{}], {})
        return self._stateless.run(inputs)

    def expect(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Record calls in these shapes; see `Graph.expect`."""
        self._expected.add(frozenset((name, tuple(shape)) for name, shape in shapes.items()))

    def expect_chains(self, count: int) -> None:
        """Keep as many recordings; see `Graph.expect_chains`."""
        self._chain.most = max(self._chain.most, count)

    def run_chain(
        self,
        bound: Sequence[Any],
        inputs: Arrays,
        each: Sequence[Arrays],
        carried: Mapping[str, str],
        before: CallBefore | None = None,
    ) -> dict[str, Array]:
        """Run several times in a row; see `Graph.run_chain`."""
        plan_before = None
        if before is not None:
            assert isinstance(before.graph, TensorRTGraph) and before.graph.stream is self.stream
            plan_before = before.graph.plan
        return self._chain.run([graph.state for graph in bound], inputs, each, carried, before, plan_before)

    @cached_property
    def _chain(self) -> Chain:
        return Chain(self.plan, self.stream, self.cuda_graphs)

    def state(self, shapes: Mapping[str, Sequence[int]]) -> DeviceState:
        """Memory for state; see `Graph.state`."""
        return DeviceState(self.stream, {name: (shape, self.dtypes[name]) for name, shape in shapes.items()})

    def results(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
        """Arrays for outputs, pinned; see `Graph.results`."""
        return pinned_arrays(self.stream.device, {name: (shape, self.dtypes[name]) for name, shape in shapes.items()})

    def bind(
        self, state: Mapping[str, DeviceArray], fixed: Arrays | None = None, repeats: bool = False
    ) -> BoundTensorRTGraph | RecordedTensorRTGraph:
        """Bind memory once; see `Graph.bind`.

        Args:
            state, fixed: as there.
            repeats: every call has the shapes of the first, so that it can be recorded.
        """
        if repeats and self.cuda_graphs:
            return RecordedTensorRTGraph(self, state, fixed or {})
        return BoundTensorRTGraph(self, state, fixed or {})


class BoundTensorRTGraph:
    """See `BoundGraph`. All graphs bound from one share its context."""

    def __init__(self, graph: TensorRTGraph, state: Mapping[str, DeviceArray], fixed: Arrays) -> None:
        self._stream = graph.stream
        self._stage = graph.plan.stage
        self._call = GraphCall(graph, graph.execution, state, fixed)

    @property
    def state(self) -> Mapping[str, DeviceArray]:
        """The state that is bound."""
        return self._call.state

    def move(self, state: Mapping[str, DeviceArray]) -> None:
        """Bind other memory for state; see `BoundGraph.move`."""
        self._call.move(state)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with the remaining inputs; see `BoundGraph.run`."""
        with self._stream.lock:
            self._call.lay_out(inputs)
            self._call.fill(inputs)
            with self._stream.timed(self._stage):
                self._call.enqueue()
            self._stream.cuda.synchronize()
            return self._call.outputs()


class RecordedTensorRTGraph:
    """See `BoundGraph`. Every call has the same shapes and addresses.

    The first is not recorded, since TensorRT prepares in it what cannot be recorded. The second is recorded, and
    launched as a CUDA graph from then on.
    """

    def __init__(self, graph: TensorRTGraph, state: Mapping[str, DeviceArray], fixed: Arrays) -> None:
        self._stream = graph.stream
        self._stage = graph.plan.stage
        # a context of its own: no other call may change what the recorded one relies on
        self._execution = graph.plan.execution(graph.stream, few_shapes=True)
        self._call = GraphCall(graph, self._execution, state, fixed)
        self._shapes: dict[str, tuple[int, ...]] | None = None  # of every call
        self._recorded: CudaGraph | None = None

    def move(self, state: Mapping[str, DeviceArray]) -> None:
        """Bind other memory for state, before the second run; see `BoundGraph.move`."""
        if self._recorded is not None:
            raise BackendError(f"memory of the stage {self._stage} has moved from under its CUDA graph", GRAPHS_OFF)
        self._call.move(state)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with the remaining inputs; see `BoundGraph.run`.

        Raises:
            BackendError: also where an input has another shape than before, or the call cannot be recorded.
        """
        with self._stream.lock:
            self._check_shapes(inputs)
            if self._shapes is None:
                self._call.lay_out(inputs)
            self._call.fill(inputs)
            if self._shapes is None:
                with self._stream.timed(self._stage):
                    self._call.enqueue()
                self._shapes = {name: array.shape for name, array in inputs.items()}
            else:
                graph = self._graph()
                with self._stream.timed(self._stage):
                    self._stream.cuda.launch_graph(graph)
            self._stream.cuda.synchronize()
            return self._call.outputs()

    def _graph(self) -> CudaGraph:
        if self._recorded is None:
            with self._execution.recording(f"the stage {self._stage}") as recording:
                self._call.enqueue()
            self._recorded = recording.graph
        return self._recorded

    def _check_shapes(self, inputs: Arrays) -> None:
        for name, before in (self._shapes or {}).items():
            if inputs[name].shape != before:
                raise BackendError(
                    f"the stage {self._stage} was recorded as a CUDA graph with {name} of {before}, "
                    f"and now it is {inputs[name].shape}",
                    GRAPHS_OFF,
                )


class GraphCall:
    """One call: inputs to the device, the plan, outputs back.

    Args:
        graph: what is called.
        execution: the context to call it with.
        state: views of device memory, input `name` and output `new_<name>` at once.
        fixed: pinned arrays of outputs.
    """

    def __init__(
        self, graph: TensorRTGraph, execution: Execution, state: Mapping[str, DeviceArray], fixed: Arrays
    ) -> None:
        self._plan, self._cuda, self._execution = graph.plan, graph.stream.cuda, execution
        self.state: dict[str, DeviceArray] = {}
        self._fixed = dict(fixed)
        kept = {f"new_{name}" for name in state} | set(fixed)
        self._free = [name for name in self._plan.outputs if name not in kept]
        device = graph.stream.device
        self._sent, self._fetched = StagingBuffer(device), StagingBuffer(device)
        self._kept = DeviceBuffer(device)  # outputs that are copied elsewhere: contexts, fixed ones
        self.move(state)

    def move(self, state: Mapping[str, DeviceArray]) -> None:
        """Bind other memory for state."""
        for name, array in state.items():
            if not array.contiguous:
                raise ValueError(f"state {name} can only be bound in one piece")
        self.state |= state

    def lay_out(self, inputs: Arrays) -> None:
        """Lay inputs and outputs out, and set their shapes and addresses."""
        plan, execution = self._plan, self._execution
        self._sent.lay_out({name: (array.shape, plan.dtypes[name]) for name, array in inputs.items()})
        for name, array in inputs.items():
            execution.set(name, self._sent.addresses[name], array.shape)
        execution.set_state(self.state)
        shapes = execution.output_shapes()
        contexts = [f"new_{name}" for name in self.state if is_context(name)]
        self._kept.lay_out({name: (shapes[name], plan.dtypes[name]) for name in (*contexts, *self._fixed)})
        self._fetched.lay_out({name: (shapes[name], plan.dtypes[name]) for name in self._free})
        for name, address in (self._kept.addresses | self._fetched.addresses).items():
            execution.set(name, address)

    def fill(self, inputs: Arrays) -> None:
        """Copy the inputs into the staging buffer.

        Raises:
            ValueError: one has another dtype, which a copy would convert silently.
        """
        self._sent.fill(inputs)

    def enqueue(self) -> None:
        """Enqueue the copies and the plan."""
        self._sent.send(self._cuda)
        self._execution.enqueue()
        keep_contexts(self._cuda, self.state, self._kept)
        for name, array in self._fixed.items():
            self._cuda.download(array, self._kept.addresses[name])
        self._fetched.fetch(self._cuda)

    def outputs(self) -> dict[str, Array]:
        """The outputs, once the stream has run."""
        return self._fixed | {name: self._fetched.arrays[name].copy() for name in self._free}
