"""Which CUDA stream each graph runs on: one for every stage of the scheduler."""

from __future__ import annotations

from omni2_engine._core import CudaDevice
from omni2_engine.backends.cuda.stopwatch import Stopwatch
from omni2_engine.backends.cuda.stream import StageStream

# Graphs that share a stream. Stages nearer to the sound have a higher priority, as in the scheduler.
STAGES = (
    ("log_mel", "encoder", "encoder_tail"),
    ("llm", "llm_prefill"),
    ("fusion", "speech_lm"),
    ("flow_conditions", "first_flow_encoder", "first_flow_step", "flow_encoder", "flow_step"),
    ("vocoder",),
)


class StageStreams:
    """The streams of a device, each made at its first use.

    Args:
        device: the device.
        stopwatch: times the calls of all graphs; they are not timed if None.
    """

    def __init__(self, device: CudaDevice, stopwatch: Stopwatch | None = None) -> None:
        self._device = device
        self._stopwatch = stopwatch
        self._streams: dict[tuple[str, ...], StageStream] = {}

    @property
    def scratch_bytes(self) -> int:
        """Working memory of all streams, bytes."""
        return sum(stream.scratch_bytes for stream in self._streams.values())

    def of(self, graph: str) -> StageStream:
        """The stream of a graph; a graph of no stage of the scheduler gets one of its own."""
        number, names = next(((i, names) for i, names in enumerate(STAGES) if graph in names), (0, (graph,)))
        if names not in self._streams:
            self._streams[names] = StageStream(self._device, -number, self._stopwatch)
        return self._streams[names]
