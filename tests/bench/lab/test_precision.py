"""Number formats: the table, and what three graphs of a small model keep in each."""

from __future__ import annotations

from pathlib import Path

from omni2_bench.lab.precision import ArraySnr, findings_table, measure
from omni2_bench.lab.probes import QUESTIONS
from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_export.checkpoint import open_checkpoint
from omni2_export.verify.rows import PERFECT


def test_the_table_shows_every_figure() -> None:
    cells = {"fp32": PERFECT, "fp16": 61.4, "bf16, rounded": float("nan"), "fp16+int4": -3.2}
    text = findings_table(ArraySnr("flow_step", "mel", name, snr) for name, snr in cells.items())
    assert "| flow step: mel | same | 61 |  | not finite |  | -3 |" in text


def test_a_prompt_in_one_format_and_tokens_in_another(tiny_checkpoint: CheckpointPaths, question: Path) -> None:
    """More than int4 alone, less than int8; and neither what the prompt's format alone gives, nor the tokens'."""
    opened = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    questions = [asked for asked in QUESTIONS if asked.name == "llm"]
    found = {f.variant: f.snr for f in measure(opened, question, questions, threads=1) if f.array == "logits"}
    assert found["fp32"] > 90 > found["fp16"] > found["fp16+int8"] > found["fp16+fp8+mixed"] > found["fp16+int4"]
    assert found["fp16+fp8+mixed"] not in (found["fp16+mixed"], found["fp16+fp8"])


def test_fewer_bits_keep_less(tiny_checkpoint: CheckpointPaths, question: Path) -> None:
    opened = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    questions = [asked for asked in QUESTIONS if asked.name in ("log_mel", "encoder", "fusion")]
    found = {(f.row, f.variant): f.snr for f in measure(opened, question, questions, threads=1)}
    assert found["log_mel", "fp32"] > 90 and ("log_mel", "fp16") not in found
    assert found["encoder", "fp32"] > 90 > found["encoder", "fp16"]
    order = ["fp16", "fp16, rounded", "bf16, rounded"]
    for row, least in (("encoder", 35), ("fusion", 40)):
        figures = [found[row, variant] for variant in order]
        assert figures[0] > figures[-1] and figures[1] > figures[-1] + 10 > least + 10
    assert found["encoder", "fp16"] > found["encoder", "fp16+int8"] > 20
