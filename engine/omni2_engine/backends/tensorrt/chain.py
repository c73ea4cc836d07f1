"""One plan several times in a row, behind a call of another: all is enqueued at once, what a run makes for the next
stays on the device.

A chain in shapes that have come before is recorded with the copies around it, and launched as one piece of work: ten
Euler steps are some thousand kernels, each of which would otherwise cost the host a launch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from omni2_engine._core import CudaGraph, CudaStream
from omni2_engine.backends.base.graph import Array, Arrays, CallBefore, is_context
from omni2_engine.backends.cuda.array import DeviceArray
from omni2_engine.backends.cuda.staging import DeviceBuffer, StagingBuffer
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.tensorrt.plan import Execution, TensorRTPlan

BEFORE = -1  # number of the arrays of the call before
MOST_CALLS = 64  # that are kept unless more are expected: a shape with one state's memory each
States = Sequence[Mapping[str, DeviceArray]]


class Chain:
    """See `Graph.run_chain`.

    Args:
        plan: what is run.
        stream: of the plan's stage.
        recorded: launch chains as CUDA graphs.

    Attributes:
        most: calls that are kept, those that were made last.
    """

    def __init__(self, plan: TensorRTPlan, stream: StageStream, recorded: bool) -> None:
        self._plan, self._stream, self._recorded = plan, stream, recorded
        self.most = MOST_CALLS
        self._calls: OrderedDict[tuple[object, ...], ChainCall] = OrderedDict()

    def run(
        self,
        states: States,
        inputs: Arrays,
        each: Sequence[Arrays],
        carried: Mapping[str, str],
        before: CallBefore | None = None,
        plan_before: TensorRTPlan | None = None,
    ) -> dict[str, Array]:
        """Run once for every state.

        Args:
            states: views of device memory, all in one shape; empty where the plan has no state.
            inputs, each, carried, before: see `Graph.run_chain`.
            plan_before: what is called before, always the same.
        """
        given = (inputs, each[0], before.inputs if before else {})
        shapes = tuple((name, array.shape) for arrays in given for name, array in arrays.items())
        # all arrays of a state lie in one piece of memory, in the same order
        places = [min((view.address for view in state.values()), default=0) for state in states]
        places = places if self._recorded else [len(states)]
        key = (*places, *shapes)
        with self._stream.lock:
            if key not in self._calls:
                execution = self._plan.execution(self._stream, few_shapes=True)
                execution_before = plan_before.execution(self._stream, few_shapes=True) if plan_before else None
                self._calls[key] = ChainCall(execution, execution_before, self._stream, self._recorded)
                if len(self._calls) > self.most:
                    self._calls.popitem(last=False)
            self._calls.move_to_end(key)
            return self._calls[key].run(states, inputs, each, carried, before)


class ChainCall:
    """A chain in one shape and, where it is recorded, with one state's memory: one copy there, the runs, one copy back.

    The first call runs as it is, since TensorRT prepares much in it that cannot be recorded; the second is recorded.

    Args:
        execution: a context of its own: no other call may change what a recorded one relies on.
        execution_before: another, of the plan that is called before.
        stream: of the plan's stage.
        recorded: launch the chain as a CUDA graph.
    """

    def __init__(
        self, execution: Execution, execution_before: Execution | None, stream: StageStream, recorded: bool
    ) -> None:
        self._execution, self._execution_before = execution, execution_before
        self._stream, self._recorded = stream, recorded
        self._plan = execution.plan
        self._sent, self._fetched = StagingBuffer(stream.device), StagingBuffer(stream.device)
        self._passed = DeviceBuffer(stream.device)  # what the call before makes
        # what is not fetched, twice: a run reads one half while it writes the other
        self._made = DeviceBuffer(stream.device)
        self._graph: CudaGraph | None = None
        self._ran = False

    def run(
        self,
        states: States,
        inputs: Arrays,
        each: Sequence[Arrays],
        carried: Mapping[str, str],
        before: CallBefore | None = None,
    ) -> dict[str, Array]:
        """See `Chain.run`."""
        own = {numbered(name, run): array for run, arrays in enumerate(each) for name, array in arrays.items()}
        given = {**inputs, **own}
        if before:
            given |= {numbered(name, BEFORE): array for name, array in before.inputs.items()}
        if not self._ran:
            dtypes = {numbered(name, BEFORE): dtype for name, dtype in before.graph.dtypes.items()} if before else {}
            dtypes |= {name: self._plan.dtypes[base(name)] for name in (*inputs, *own)}
            self._sent.lay_out({name: (array.shape, dtypes[name]) for name, array in given.items()})
            if before:
                self._lay_out_before(before)
            self._lay_out_outputs(states[0], inputs, each[0])
        self._sent.fill(given)
        if self._ran and self._recorded:
            graph = self._graph or self._record(states, each, carried)
            with self._stream.timed(self._plan.stage):
                self._stream.cuda.launch_graph(graph)
        else:
            with self._stream.timed(self._plan.stage):
                self._enqueue(states, each, carried)
            self._ran = True
        self._stream.cuda.synchronize()
        return {name: array.copy() for name, array in self._fetched.arrays.items()}

    def _record(self, states: States, each: Sequence[Arrays], carried: Mapping[str, str]) -> CudaGraph:
        what = f"{len(states)} calls of {self._plan.stage}"
        if self._execution_before:
            self._execution_before.require_recordable(what)
        with self._execution.recording(what) as recording:
            self._enqueue(states, each, carried)
        self._graph = recording.graph
        return self._graph

    def _lay_out_before(self, before: CallBefore) -> None:
        """Set all shapes and addresses of the call before, and those of what it passes on."""
        assert self._execution_before is not None
        for name, array in before.inputs.items():
            self._execution_before.set(name, self._sent.addresses[numbered(name, BEFORE)], array.shape)
        shapes, dtypes = self._execution_before.output_shapes(), before.graph.dtypes
        self._passed.lay_out({name: (shape, dtypes[name]) for name, shape in shapes.items()})
        for name, address in self._passed.addresses.items():
            self._execution_before.set(name, address)
            if name in before.passed:
                self._execution.set(before.passed[name], address, shapes[name])

    def _lay_out_outputs(self, state: Mapping[str, DeviceArray], inputs: Arrays, own: Arrays) -> None:
        """Set all shapes, and lay the outputs out."""
        execution, dtypes = self._execution, self._plan.dtypes
        for name, array in inputs.items():
            execution.set(name, self._sent.addresses[name], array.shape)
        for name, array in own.items():
            execution.set(name, self._sent.addresses[numbered(name, 0)], array.shape)
        execution.set_state(state)
        shapes = {name: (shape, dtypes[name]) for name, shape in execution.output_shapes().items()}
        free = {name: spec for name, spec in shapes.items() if name.removeprefix("new_") not in state}
        contexts = {f"new_{name}": shapes[f"new_{name}"] for name in state if is_context(name)}
        halves = {numbered(name, half): spec for half in (0, 1) for name, spec in free.items()}
        self._made.lay_out({**contexts, **halves})
        self._fetched.lay_out(free)

    def _enqueue(self, states: States, each: Sequence[Arrays], carried: Mapping[str, str]) -> None:
        self._sent.send(self._stream.cuda)
        if self._execution_before:
            self._execution_before.enqueue()
        for run, state in enumerate(states):
            self._enqueue_one(run, state, each[run], carried, last=run == len(states) - 1)
        self._fetched.fetch(self._stream.cuda)

    def _enqueue_one(
        self, run: int, state: Mapping[str, DeviceArray], own: Arrays, carried: Mapping[str, str], last: bool
    ) -> None:
        execution, made = self._execution, self._made.addresses
        for name in own:
            execution.set(name, self._sent.addresses[numbered(name, run)])
        for output, name in carried.items():
            execution.set(name, made[numbered(output, (run - 1) % 2)] if run else self._sent.addresses[name])
        execution.set_state(state)
        for name in state:
            if is_context(name):
                execution.set(f"new_{name}", made[f"new_{name}"])
        for name, address in self._fetched.addresses.items():
            execution.set(name, address if last else made[numbered(name, run % 2)])
        execution.enqueue()
        keep_contexts(self._stream.cuda, state, self._made)


def numbered(name: str, number: int) -> str:
    """Name of an array of one run."""
    return f"{name}.{number}"


def base(name: str) -> str:
    """The name without its run."""
    return name.partition(".")[0]


def keep_contexts(stream: CudaStream, state: Mapping[str, DeviceArray], made: DeviceBuffer) -> None:
    """Copy contexts from where a call wrote them to where the next one reads them."""
    for name, view in state.items():
        if is_context(name):
            stream.copy(view.address, made.addresses[f"new_{name}"], view.nbytes)
