"""A device as its data sheet describes it, and how long a call takes that reaches a stated share of that."""

from __future__ import annotations

from dataclasses import dataclass

from omni2_engine.errors import SettingError


@dataclass(frozen=True)
class SimulatedDevice:
    """Figures of a data sheet.

    Args:
        name: of the device.
        bandwidth: of its memory, bytes per second.
        operations: multiplications and additions per second, dense matrices in 16 bits.
        memory: bytes.
    """

    name: str
    bandwidth: float
    operations: float
    memory: float


L40 = SimulatedDevice("NVIDIA L40", 864e9, 181e12, 48e9)
H200 = SimulatedDevice("NVIDIA H200", 4.8e12, 989e12, 141e9)


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
class ReachedShare:
    """What is reached of a device.

    Args:
        memory: share of the bandwidth.
        compute: share of the operations per second.
        launch: seconds every kernel takes beside its work, in a chain of kernels that wait for one another.
        hop: seconds of the host for every call of a stage: Python, copies, waking a thread. An assumption.

    Raises:
        SettingError: a share outside (0, 1], or a negative time.
    """

    memory: float
    compute: float
    launch: float
    hop: float = 0.0

    def __post_init__(self) -> None:
        for name, share in (("memory", self.memory), ("compute", self.compute)):
            if not 0 < share <= 1:
                raise SettingError(f"an efficiency ({name}) of {share:g}", "give a share of the limit, above 0 up to 1")
        if min(self.launch, self.hop) < 0:
            raise SettingError(
                f"a kernel of {1e6 * self.launch:g} µs and a hop of {1e6 * self.hop:g}", "give 0 or more"
            )

    def seconds(self, reading: float, computing: float, kernels: int) -> float:
        """Time of a call.

        Args:
            reading: seconds at the whole bandwidth.
            computing: seconds at all of the arithmetic.
            kernels: that wait for one another.
        """
        return max(reading / self.memory, computing / self.compute) + kernels * self.launch


# Fitted to the published times in evidence.csv, and a band around it: what good and what poor implementations reach.
LIKELY = ReachedShare(0.86, 0.45, 5.75e-6, 0.3e-3)
BEST = ReachedShare(0.85, 0.45, 3e-6, 0.15e-3)
WORST = ReachedShare(0.75, 0.45, 8e-6, 0.6e-3)


@dataclass(frozen=True)
class DeviceLimits:
    """A device, and what is reached of it."""

    device: SimulatedDevice
    share: ReachedShare

    def seconds(self, effort: Effort) -> float:
        """Time of a call on the device."""
        d = self.device
        return self.share.seconds(effort.bytes / d.bandwidth, effort.operations / d.operations, effort.launches)
