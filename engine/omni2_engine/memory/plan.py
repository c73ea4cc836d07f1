"""What an engine will take of the device's memory, reckoned before anything is allocated for sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from omni2_engine.errors import CapacityError

GIB = 1 << 30


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose, and what there is.

    Args:
        title: what is loaded: "7B bf16, 8 sessions, 10 s flow context".
        parts: purpose → bytes, weights among them.
        available: bytes this process may have: those it has already, and those that are free.
        total: bytes of the device.
    """

    title: str
    available: int
    total: int
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def needed(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gib(size)}" for name, size in self.parts.items())
        others = self.total - self.available
        taken = f" ({gib(others)} of them taken by others)" if others > 0 else ""
        return f"{self.title}: {parts}; together {gib(self.needed)} of {gib(self.total)} GiB{taken}"

    def check(self) -> None:
        """Hold it against what there is.

        Raises:
            CapacityError: it does not fit; says by how much, and what would make it fit.
        """
        if self.needed <= self.available:
            return
        raise CapacityError(
            f"{self}: {gib(self.needed - self.available)} GiB too much",
            "load with fewer sessions, end what else uses the GPU, or build for less: plans fix their caches' lengths "
            "(--left-context, --max-context), and --precision has weights of fewer bits",
        )


def gib(nbytes: int) -> str:
    """Bytes as a number of GiB with as many digits as tell something."""
    return f"{nbytes / GIB:.1f}" if nbytes >= GIB / 2 else f"{nbytes / GIB:.3f}"
