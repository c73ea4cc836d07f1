"""`bench precision`: the page, and one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omni2_bench.lab.precision_page import page
from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine.cli.app import run
from omni2_export.verify.rows import PERFECT


def test_the_page_shows_every_figure() -> None:
    cells = {"fp32": PERFECT, "fp16": 61.4, "bf16, rounded": float("nan"), "fp16+int4": -3.2}
    findings = [{"row": "flow_step", "array": "mel", "variant": name, "snr": snr} for name, snr in cells.items()]
    text = page({"model": "m", "machine": {"processor": "p", "threads": 2}, "findings": findings})
    assert "| flow step: mel | same | 61 |  | not finite |  | -3 |" in text


def test_one_run(tiny_checkpoint: CheckpointPaths, question: Path, tmp_path: Path) -> None:
    options = {"checkpoint": tiny_checkpoint.model, "decoder": tiny_checkpoint.decoder, "audio": question}
    options |= {"out": tmp_path / "out", "threads": 1, "rows": "log_mel,encoder,fusion"}
    arguments = [str(part) for pair in options.items() for part in (f"--{pair[0]}", pair[1])]
    assert run(["bench", "precision", *arguments]) == 0
    record = json.loads((tmp_path / "out" / "precision.json").read_text())
    found = {(f["row"], f["variant"]): f["snr"] for f in record["findings"]}
    assert found["log_mel", "fp32"] > 90 and ("log_mel", "fp16") not in found
    assert found["encoder", "fp32"] > 90 > found["encoder", "fp16"]
    order = ["fp16", "fp16, rounded", "bf16, rounded"]
    for row, least in (("encoder", 35), ("fusion", 40)):
        figures = [found[row, variant] for variant in order]
        assert figures[0] > figures[-1] and figures[1] > figures[-1] + 10 > least + 10
    assert found["encoder", "fp16"] > found["encoder", "fp16+int8"] > 20
    assert "| encoder: speech |" in (tmp_path / "out" / "precision.md").read_text()


def test_rows_that_do_not_exist_are_refused(
    tiny_checkpoint: CheckpointPaths, question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--checkpoint={tiny_checkpoint.model}", f"--decoder={tiny_checkpoint.decoder}", f"--audio={question}"]
    assert run(["bench", "precision", *options, f"--out={tmp_path}", "--rows=fusion,vokoder"]) != 0
    assert "'vokoder'" in capsys.readouterr().err
