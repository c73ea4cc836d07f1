"""The memory plan of a device: what it says, and when it refuses."""

from __future__ import annotations

import pytest

from omni2_engine.errors import CapacityError
from omni2_engine.memory.plan import GIB, MemoryPlan


def test_a_plan_that_fits_says_what_it_takes() -> None:
    parts = {"weights": int(14.9 * GIB), "caches of 8 sessions": int(3.5 * GIB), "working memory": 200 << 20}
    plan = MemoryPlan("7B bf16, 8 sessions, 10 s flow context", int(44.9 * GIB), int(44.9 * GIB), parts)
    plan.check()
    assert str(plan) == (
        "7B bf16, 8 sessions, 10 s flow context: weights 14.9, caches of 8 sessions 3.5, working memory 0.195; "
        "together 18.6 of 44.9 GiB"
    )


def test_a_plan_that_does_not_fit_says_by_how_much() -> None:
    plan = MemoryPlan("32B bf16, 1 session", 40 * GIB, int(44.9 * GIB), {"weights": 61 * GIB})
    with pytest.raises(
        CapacityError, match=r"61\.0 of 44\.9 GiB \(4\.9 taken by others\): 21\.0 GiB too much — with adm"
    ):
        plan.check()


def test_a_plan_leaves_memory_to_calls() -> None:
    plan = MemoryPlan("7B bf16, 8 sessions", 40 * GIB, 45 * GIB, {"weights": 30 * GIB}, left=8 * GIB)
    plan.check()
    assert str(plan).endswith("together 30.0 of 45.0 GiB (5.0 taken by others, 8.0 left to calls)")
    with pytest.raises(CapacityError, match=r"1\.0 GiB too much"):
        MemoryPlan("7B bf16, 8 sessions", 40 * GIB, 45 * GIB, {"weights": 33 * GIB}, left=8 * GIB).check()


def test_a_plan_says_how_many_sessions_would_fit() -> None:
    plan = MemoryPlan("7B bf16, 8 sessions", 40 * GIB, 45 * GIB, {"weights": 44 * GIB}, fitting=6)
    with pytest.raises(CapacityError, match=r"4\.0 GiB too much — load with sessions=6, with admission=\"wait\""):
        plan.check()


@pytest.mark.parametrize(("fitting", "remedy"), [(0, "with fewer"), (6, "load with sessions=6, or with fewer")])
def test_a_plan_where_turns_wait_already_does_not_advise_it(fitting: int, remedy: str) -> None:
    plan = MemoryPlan("7B bf16, 8 sessions", 40 * GIB, 45 * GIB, {"weights": 44 * GIB}, fitting, waits=True)
    with pytest.raises(CapacityError, match=f"too much — {remedy} flow_steps") as refused:
        plan.check()
    assert "wait" not in refused.value.remedy
