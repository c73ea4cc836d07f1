"""One step of decoding on the device for all slots of a cache: the model, the choice of a token, the next embedding."""

from __future__ import annotations

from collections.abc import Mapping

from omni2_engine._core import CudaGraph
from omni2_engine.backends.cuda.array import DeviceArray
from omni2_engine.backends.cuda.kernels import DeviceKernels
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.tensorrt.decode_batch import DecodeBatch
from omni2_engine.backends.tensorrt.plan import TensorRTPlan
from omni2_kernels.decoding import State
from omni2_kernels.registry import KERNELS

CHOICE = ("rank_logits", "draw_token", "sample_and_embed")
KERNELS_OF_A_STEP = ("resume", *CHOICE)


class DecodeStep:
    """A step whose queries see `visible` positions.

    With CUDA graphs, the first run is not recorded, since TensorRT prepares in it what cannot be recorded. The second
    is recorded, and launched as one graph from then on.

    Args:
        plan: of the model.
        stream: on which it runs.
        caches: of the model, by name.
        batch: memory of the step.
        kernels: of the device.
        visible: positions.
        recorded: launch it as a CUDA graph.

    Attributes:
        visible: as given.
    """

    def __init__(
        self,
        plan: TensorRTPlan,
        stream: StageStream,
        caches: Mapping[str, DeviceArray],
        batch: DecodeBatch,
        kernels: DeviceKernels,
        visible: int,
        recorded: bool,
    ) -> None:
        self.visible = visible
        self._stream = stream
        self._kernels = kernels
        self._recorded = recorded
        self._stage = plan.stage
        self._name = f"a decoding step of {plan.stage} over {visible} positions"
        # a context of its own: no other call may change what a recorded one relies on
        self._execution = plan.execution(stream, few_shapes=True)
        slots, sizes = batch.slots, {"rows": batch.slots, "vocab": batch.vocab}
        shapes = {
            "embeds": (slots, 1, batch.width),
            "positions": (slots, 1),
            "write": (slots,),
            "last": (slots, 1),
            "mask": (slots, 1, 1, visible),
        }
        for name, shape in shapes.items():
            self._execution.set(name, batch.addresses[name], shape)
        for name, cache in caches.items():
            self._execution.set(name, cache.address, cache.shape)
            self._execution.set(f"new_{name}", cache.address)
        for name in ("logits", "hidden"):
            self._execution.set(name, batch.addresses[name])
        record = batch.record(visible)
        self._choices = {
            state: [KERNELS[name].launch(sizes, record, int(state)) for name in CHOICE]
            for state in (State.PREFILLED, State.RUNNING)
        }
        self._resume = KERNELS["resume"].launch(sizes, record)
        self._ran = False
        self._graph: CudaGraph | None = None

    def choose(self, state: State) -> None:
        """Enqueue the choice for all slots in this state."""
        for launch in self._choices[state]:
            self._kernels.enqueue(self._stream.cuda, launch)

    def resume(self) -> None:
        """Enqueue the kernel that prepares joining rows."""
        self._kernels.enqueue(self._stream.cuda, self._resume)

    def run(self) -> None:
        """Enqueue one step for all rows that run.

        Raises:
            BackendError: it cannot be recorded; the remedy turns CUDA graphs off.
        """
        if self._recorded and self._ran:
            graph = self._graph or self.record()
            with self._stream.timed(self._stage):
                self._stream.cuda.launch_graph(graph)
            return
        with self._stream.timed(self._stage):
            self._enqueue()
        self._ran = True

    def record(self) -> CudaGraph:
        """Record it, once it has run; see `run`."""
        with self._execution.recording(self._name) as recording:
            self._enqueue()
        self._graph = recording.graph
        return self._graph

    def _enqueue(self) -> None:
        self._execution.enqueue()
        self.choose(State.RUNNING)
