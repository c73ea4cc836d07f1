"""What a soak showed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from omni2_bench.soak.accounts import Accounts
from omni2_bench.soak.samples import HeldSample
from omni2_bench.soak.trends import Trend, trend

GROWING = ("resident", "anonymous", "threads", "descriptors")  # of a sample: what must not grow
ZERO = ("sessions", "waiting", "memory")  # of a sample: what is zero without a session
BACK = ("threads", "descriptors")  # what is not more afterwards than it was before


def left(before: HeldSample, after: HeldSample) -> list[str]:
    """What a server still holds of a load; empty if all has gone back."""
    found = [f"{name} is {getattr(after, name)} after the load" for name in ZERO if getattr(after, name)]
    for name in BACK:
        had, has = getattr(before, name), getattr(after, name)
        if has > had:
            found.append(f"{name}: {has} after the load, {had} before")
    return found


@dataclass(frozen=True)
class SoakVerdict:
    """Whether a server could go on like this.

    Args:
        accounts: of all answers.
        before, after: samples without any session, on both sides of the load.
        samples: during the load.
        warm_up: seconds of them that do not count for trends.
        exit_code: of the server, once it was told to stop.
    """

    accounts: Accounts
    before: HeldSample
    after: HeldSample
    samples: Sequence[HeldSample]
    warm_up: float
    exit_code: int
    trends: dict[str, Trend | None] = field(init=False)

    def __post_init__(self) -> None:
        warm = [sample for sample in self.samples if sample.seconds >= self.warm_up]
        seconds = [sample.seconds for sample in warm]
        found = {name: trend(seconds, [getattr(sample, name) for sample in warm]) for name in GROWING}
        object.__setattr__(self, "trends", found)

    @property
    def problems(self) -> list[str]:
        """What is not as it should be; empty if all is well."""
        found = self.accounts.problems()
        for name, line in self.trends.items():
            if line is not None and line.grows:
                found.append(f"{name} grows by {line.per_hour:.3g} an hour at a level of {line.level:.3g}")
        found += left(self.before, self.after)
        if self.exit_code:
            found.append(f"the server ended with exit code {self.exit_code}")
        return found

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "accounts": self.accounts.record(),
            "before": asdict(self.before),
            "after": asdict(self.after),
            "trends": {name: line and {**asdict(line), "grows": line.grows} for name, line in self.trends.items()},
            "exit_code": self.exit_code,
            "problems": self.problems,
        }
