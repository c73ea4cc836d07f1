"""Which stream of the device each graph runs on: one for every stage of the scheduler."""

from __future__ import annotations

from omni2_engine._core import CudaDevice
from omni2_engine.backends.cuda.stopwatch import Stopwatch
from omni2_engine.backends.cuda.stream import Lane

# Graphs whose calls follow each other. What is nearer to the sound is more urgent, as in the scheduler.
STAGES = (
    ("log_mel", "encoder"),
    ("llm",),
    ("fusion", "speech_lm"),
    ("flow_conditions", "flow_encoder", "flow_step", "flow_solver"),
    ("vocoder",),
)


class Lanes:
    """The lanes of a device, made when they are first asked for.

    Args:
        device: the device.
        stopwatch: times the calls of all graphs; nobody does if None.
    """

    def __init__(self, device: CudaDevice, stopwatch: Stopwatch | None = None) -> None:
        self._device = device
        self._stopwatch = stopwatch
        self._lanes: dict[tuple[str, ...], Lane] = {}

    @property
    def scratch_bytes(self) -> int:
        """Working memory of all lanes, bytes."""
        return sum(lane.scratch_bytes for lane in self._lanes.values())

    def of(self, graph: str) -> Lane:
        """The lane of a graph; one that no stage of the scheduler has gets one of its own."""
        number, names = next(((i, names) for i, names in enumerate(STAGES) if graph in names), (0, (graph,)))
        if names not in self._lanes:
            self._lanes[names] = Lane(self._device, -number, self._stopwatch)
        return self._lanes[names]
