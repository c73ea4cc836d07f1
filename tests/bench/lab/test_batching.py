"""`bench batching`: figures from times, and one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omni2_bench.lab.batching import figures, page
from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine.cli.app import run

TIMES = {
    "llm": {"2": {"together": [1.0, 2.0, 4.0], "alone": [2.0, 6.0, 4.0]}},
    "speech_lm": {"2": {"together": [1.0, 1.0, 1.0], "alone": [2.0, 3.0, 1.0]}},
}


MODELS = ("llm", "speech_lm", "both")


def test_gains_are_of_rounds_and_not_of_medians() -> None:
    found = figures(TIMES)
    assert list(found) == ["llm", "speech_lm", "both"]
    assert found["llm"]["2"]["gain"]["median"] == 2.0  # of 2, 3 and 1
    assert found["llm"]["2"]["alone"]["median"] == 4.0 and found["llm"]["2"]["together"]["median"] == 2.0
    both = found["both"]["2"]
    assert both["together"]["median"] == 3.0 and both["alone"]["median"] == 5.0
    assert both["gain"]["median"] == 2.0  # of 4/2, 9/3 and 5/5


def test_the_page_shows_every_figure() -> None:
    record = {"model": "m", "machine": {"processor": "p", "threads": 2}, "context": 400, "rounds": 3}
    text = page({**record, "presets": {"balanced": figures(TIMES)}})
    assert "400 positions each, 3 interleaved rounds" in text
    assert "| speech lm | 2 | 1000.0 ms (1000.0 to 1000.0) | 2000.0 ms (1200.0 to 2800.0) | ×2.00" in text


def test_one_run(tiny_checkpoint: CheckpointPaths, question: Path, tmp_path: Path) -> None:
    options = {"checkpoint": tiny_checkpoint.model, "decoder": tiny_checkpoint.decoder, "voice": question}
    options |= {"out": tmp_path / "out", "cache": tmp_path / "cache", "threads": 1, "precision": "balanced"}
    options |= {"conversations": "3,1", "context": 20, "rounds": 2}
    arguments = [str(part) for pair in options.items() for part in (f"--{pair[0]}", pair[1])]
    assert run(["bench", "batching", *arguments]) == 0
    record = json.loads((tmp_path / "out" / "batching.json").read_text())
    assert record["context"] == 20 and record["machine"]["threads"] == 1
    assert list(record["presets"]["balanced"]) == list(MODELS)
    for model in record["presets"]["balanced"]:
        assert list(record["presets"]["balanced"][model]) == ["1", "3"]
        for found in record["presets"]["balanced"][model].values():
            assert 0 < found["together"]["p10"] <= found["together"]["median"] <= found["together"]["p90"] < 1
    assert "in one call" in (tmp_path / "out" / "batching.md").read_text()


@pytest.mark.parametrize("conversations", ["0", "two", "1,,2", "-1"])
def test_numbers_that_are_none_are_refused(
    tiny_checkpoint: CheckpointPaths,
    question: Path,
    tmp_path: Path,
    conversations: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [f"--checkpoint={tiny_checkpoint.model}", f"--decoder={tiny_checkpoint.decoder}", f"--voice={question}"]
    assert run(["bench", "batching", *options, f"--out={tmp_path}", f"--conversations={conversations}"]) != 0
    assert "no numbers of conversations" in capsys.readouterr().err
