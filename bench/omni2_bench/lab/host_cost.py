"""What the scheduler costs the host: microseconds from a task submitted in Python to its end, when it does nothing.

python -m omni2_bench.lab.host_cost

The least of some rounds is printed, since other work on the machine only adds.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.table import Table

from omni2_engine._core import Scheduler, Stage

ROUNDS = 6
TASKS = 400  # of a round, over all sessions and for every stage


def seconds_per_task(scheduler: Scheduler, stages: int, sessions: int) -> float:
    """Chains of tasks from stage to stage, all submitted at once; seconds of a task on average."""
    ids = [scheduler.open() for _ in range(sessions)]
    start = time.perf_counter()
    for _ in range(TASKS // sessions):
        for session in ids:
            before: tuple[int, ...] = ()
            for stage in range(stages):
                before = (scheduler.submit(session, stage, None, before),)
    for session in ids:
        scheduler.drained(session)
    seconds = time.perf_counter() - start
    for session in ids:
        scheduler.close(session)
    return seconds / (TASKS // sessions * sessions * stages)


def measure(stages: int, sessions: int, rounds: int = ROUNDS) -> float:
    """The least of some rounds, in seconds."""
    with Scheduler([Stage(str(i), lambda payloads: None) for i in range(stages)]) as scheduler:
        return min(seconds_per_task(scheduler, stages, sessions) for _ in range(rounds))


def main() -> None:
    """Print the table."""
    table = Table("stages", "sessions", "µs per task")
    for stages in (1, 4):
        for sessions in (1, 8):
            table.add_row(str(stages), str(sessions), f"{measure(stages, sessions) * 1e6:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
