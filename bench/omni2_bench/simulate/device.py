"""A device as its data sheet describes it, and how long a call takes that reaches a stated share of that."""

from __future__ import annotations

from dataclasses import dataclass, replace

from omni2_engine.errors import SettingError


@dataclass(frozen=True)
class SimulatedDevice:
    """Figures of a data sheet.

    Args:
        name: of the device.
        bandwidth: of its memory, bytes per second.
        operations: multiplications and additions per second, dense matrices in bf16.
        memory: bytes.
    """

    name: str
    bandwidth: float
    operations: float
    memory: float


L40 = SimulatedDevice("NVIDIA L40", 864e9, 181e12, 48e9)  # its data sheet


@dataclass(frozen=True)
class Effort:
    """What a call has to do at the least.

    Args:
        bytes: of weights and caches to read, each once.
        operations: multiplications and additions.
        launches: kernels that wait for one another.
    """

    bytes: float
    operations: float
    launches: int = 0

    def __add__(self, other: Effort) -> Effort:
        return Effort(self.bytes + other.bytes, self.operations + other.operations, self.launches + other.launches)


@dataclass(frozen=True)
class DeviceLimits:
    """A device at stated efficiencies.

    Args:
        device: its figures.
        memory: share of the bandwidth that is reached.
        compute: share of the operations per second that is reached.
        launch: seconds every kernel takes beside its work, in a chain of kernels that wait for one another.

    Raises:
        SettingError: a share outside (0, 1], or a negative time.
    """

    device: SimulatedDevice
    memory: float
    compute: float
    launch: float

    def __post_init__(self) -> None:
        for name, share in (("memory", self.memory), ("compute", self.compute)):
            if not 0 < share <= 1:
                raise SettingError(f"an efficiency ({name}) of {share:g}", "give a share of the limit, above 0 up to 1")
        if self.launch < 0:
            raise SettingError(f"a kernel launch of {1e6 * self.launch:g} µs", "give 0 or more")

    def seconds(self, effort: Effort) -> float:
        """Time of a call: its reading or its arithmetic, whichever is longer, and its kernels' launches."""
        reading = effort.bytes / (self.memory * self.device.bandwidth)
        computing = effort.operations / (self.compute * self.device.operations)
        return max(reading, computing) + effort.launches * self.launch

    def at(self, share: float) -> DeviceLimits:
        """The same device with one share for memory and compute."""
        return replace(self, memory=share, compute=share)
