"""`bench live` without a server: one turn of each kind in real time, and both ways side by side."""

from __future__ import annotations

from pathlib import Path

from omni2_bench.lab.live import both_ways, measure
from omni2_bench.live.conditions import LiveCondition
from omni2_bench.load.recordings import read_recording
from omni2_engine import Engine


def test_a_turn_and_an_interruption(repository: Path, tiny_engine: Engine) -> None:
    question = read_recording(repository / "examples" / "sum.wav")
    found = [LiveCondition(0.2), LiveCondition(0.2, interrupts=1.0)]
    whole, interrupted = (one.calls[0].turns[0] for one in measure(tiny_engine, found, [question], rounds=1))
    for turn in (whole, interrupted):
        assert turn.decided is not None and 0 < turn.speech_ended < turn.decided <= turn.ready[0]
        assert len(turn.ready) == len(turn.durations)
    assert whole.interrupted is None
    assert interrupted.told is not None and interrupted.told > 0


def test_both_ways_stand_side_by_side() -> None:
    def record(condition: LiveCondition, first_sound: float) -> dict[str, object]:
        return {**vars(condition), "turns": 1, "figures": {"first_sound_p50": first_sound}}

    alone, cut = LiveCondition(0.5), LiveCondition(0.5, interrupts=1.0)
    text = both_ways([record(alone, 0.6), record(cut, 0.7)], [record(alone, 0.602)])
    assert text.splitlines()[2:] == ["| 500 ms, with | 1 | – / – | 600 / 602 | – / – | – / – | – / – |"]
