"""One plan several times in a row: all runs are enqueued at once, and what a run passes on stays on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omni2_engine._core import CudaStream
from omni2_engine.backends.base.graph import Array, Arrays, is_context
from omni2_engine.backends.cuda.array import DeviceArray
from omni2_engine.backends.cuda.staging import DeviceBuffer, StagingBuffer
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.tensorrt.plan import Execution, TensorRTPlan


class Chain:
    """See `Graph.run_chain`: one copy to the device, the runs, one copy back.

    Args:
        plan: what is run.
        execution: the context to run it with.
        stream: of the plan's stage.
    """

    def __init__(self, plan: TensorRTPlan, execution: Execution, stream: StageStream) -> None:
        self._plan, self._execution, self._stream = plan, execution, stream
        self._sent, self._fetched = StagingBuffer(stream.device), StagingBuffer(stream.device)
        self._made = DeviceBuffer(
            stream.device
        )  # what is not fetched, twice: a run reads one half while it writes the other

    def run(
        self,
        states: Sequence[Mapping[str, DeviceArray]],
        inputs: Arrays,
        each: Sequence[Arrays],
        carried: Mapping[str, str],
    ) -> dict[str, Array]:
        """Run once for every state.

        Args:
            states: views of device memory, all in one shape.
            inputs, each, carried: see `Graph.run_chain`.
        """
        with self._stream.lock:
            own = {numbered(name, run): array for run, arrays in enumerate(each) for name, array in arrays.items()}
            given = {**inputs, **own}
            dtypes = self._plan.dtypes
            self._sent.lay_out({name: (array.shape, dtypes[base(name)]) for name, array in given.items()})
            self._sent.fill(given)
            self._lay_out_outputs(states[0], inputs, each[0])
            with self._stream.timed(self._plan.stage):
                self._sent.send(self._stream.cuda)
                for run, state in enumerate(states):
                    self._enqueue(run, state, each[run], carried, last=run == len(states) - 1)
                self._fetched.fetch(self._stream.cuda)
            self._stream.cuda.synchronize()
            return {name: array.copy() for name, array in self._fetched.arrays.items()}

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

    def _enqueue(  # one run
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
