"""State of a graph in the device's memory: caches and contexts that calls update where they are."""

from __future__ import annotations

from omni2_engine.backends.cuda.array import DeviceArray, row_copies
from omni2_engine.backends.cuda.staging import Specs, place
from omni2_engine.backends.cuda.stream import Lane


class DeviceState:
    """Arrays in one piece of the lane's memory, zero at first; see `StateMemory`.

    What is done to them is enqueued on the lane's stream, in order with the calls that use them.

    Args:
        lane: of the graph whose state it is.
        specs: name → (shape, dtype).

    Raises:
        CapacityError: the device has not so much left.
    """

    def __init__(self, lane: Lane, specs: Specs) -> None:
        self._lane = lane
        places, total = place(specs)
        owner = lane.pool.take(total)
        begin = owner.address
        self.arrays = {
            name: DeviceArray.whole(begin + places[name], shape, dtype, owner) for name, (shape, dtype) in specs.items()
        }
        with lane.lock:
            lane.stream.fill(begin, 0, total)

    def copy(self, to: DeviceArray, source: DeviceArray) -> None:
        """Make a part like another, of this or another state of the lane; see `StateMemory.copy`."""
        with self._lane.lock:
            for rows in row_copies(to, source):
                self._lane.stream.copy_rows(
                    rows.to, rows.to_pitch, rows.source, rows.source_pitch, rows.width, rows.rows
                )

    def clear(self, part: DeviceArray) -> None:
        """Set a contiguous part to zero; see `StateMemory.clear`."""
        if not part.contiguous:
            raise ValueError("only a contiguous part can be cleared")
        with self._lane.lock:
            self._lane.stream.fill(part.address, 0, part.nbytes)

    def give_back(self, part: DeviceArray) -> None:
        """Nothing: memory goes back to the lane's pool as a whole, with its last view; see `StateMemory.give_back`."""
