"""What the scheduler costs: that every number of the table is there."""

from __future__ import annotations

import pytest

from omni2_bench.lab import host_cost


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measured(stages: int, sessions: int) -> float:
        asked.append((stages, sessions))
        return 12.34e-6

    monkeypatch.setattr(host_cost, "measure", measured)
    host_cost.main()
    assert asked == [(1, 1), (1, 8), (4, 1), (4, 8)]
    assert capsys.readouterr().out.count("12.3") == 4


def test_every_task_runs() -> None:
    assert host_cost.measure(stages=3, sessions=2, rounds=1) > 0
