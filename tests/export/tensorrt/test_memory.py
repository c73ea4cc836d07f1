"""What a plan takes of memory is said before, and refused where it clearly is not there."""

from __future__ import annotations

import pytest

from omni2_engine.errors import Omni2Error
from omni2_export.tensorrt import memory
from omni2_export.tensorrt.memory import building_memory, check_memory


def test_more_weights_take_more() -> None:
    small, large = building_memory(10**8), building_memory(10**9)
    assert small < large and large > 10**9


def test_it_is_said_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(memory, "available_memory", lambda: int(24e9))
    needs = {"encoder sm89": int(5e9), "llm sm89": int(26e9)}
    check_memory(needs, force=False, say=said.append)  # a little over: the figures are not that exact
    assert said == ["building llm sm89 needs about 26.0 GB of memory, you have 24.0"]
    needs["llm sm89"] = int(50e9)
    with pytest.raises(Omni2Error, match=r"llm sm89 needs about 50\.0 GB of memory, you have 24\.0") as caught:
        check_memory(needs, force=False, say=said.append)
    assert "--force" in caught.value.remedy and len(said) == 1
    check_memory(needs, force=True, say=said.append)
    assert "50.0 GB" in said[1]
    check_memory({}, force=False, say=said.append)
    assert len(said) == 2
