"""What a plan takes of memory is said before, and refused where it clearly is not there."""

from __future__ import annotations

import pytest

from omni2_engine.errors import Omni2Error
from omni2_export.tensorrt import memory
from omni2_export.tensorrt.memory import building_memory, check_memory

# Bytes of weights, attention layers, whether in 4 bits, and the peak that was measured for each (docs/tensorrt.md).
MEASURED = [
    (1.309e9, 32, False, 3.66e9),
    (2.610e9, 32, False, 6.79e9),
    (0.989e9, 24, False, 2.73e9),
    (1.977e9, 24, False, 4.68e9),
    (3.090e9, 28, False, 6.85e9),
    (0.503e9, 24, False, 1.68e9),
    (0.256e9, 24, True, 1.32e9),
    (3.670e9, 28, True, 10.70e9),
    (0.140e9, 56, False, 1.47e9),
    (0.090e9, 10, False, 0.81e9),
    (0.083e9, 0, False, 0.71e9),
]


@pytest.mark.parametrize(("weights", "attentions", "packed", "peak"), MEASURED)
def test_what_was_measured_is_foretold(weights: float, attentions: int, packed: bool, peak: float) -> None:
    assert peak < building_memory(int(weights), attentions, packed) < 1.35 * peak


def test_it_is_said_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(memory, "available_memory", lambda: int(24e9))
    needs = {"encoder sm89": (int(5e9), int(2e9)), "llm sm89": (int(35e9), int(15e9))}
    check_memory(needs, force=False, say=said.append)  # the file may be dropped from memory and read again
    assert said == ["building llm sm89 needs about 35.0 GB of memory, you have 24.0"]
    needs["llm sm89"] = (int(50e9), int(22e9))
    with pytest.raises(Omni2Error, match=r"llm sm89 needs about 50\.0 GB of memory, you have 24\.0") as caught:
        check_memory(needs, force=False, say=said.append)
    assert "--force" in caught.value.remedy and len(said) == 1
    check_memory(needs, force=True, say=said.append)
    assert "50.0 GB" in said[1]
    check_memory({}, force=False, say=said.append)
    assert len(said) == 2
