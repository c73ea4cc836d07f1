"""`bench latency` for a GPU, as far as the CPU can tell: choice of device, facts, page, the reference in bfloat16."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omni2_bench.common import gpu
from omni2_bench.common.gpu import ON_CPU, Choice, choose, describe_gpu, gpu_line
from omni2_bench.common.models import size_of
from omni2_bench.common.statistics import Blocks
from omni2_bench.latency.page import page
from omni2_bench.latency.record import LatencyReport
from omni2_bench.latency.reference import AnswerSettings, ReferencePipeline
from omni2_bench.latency.reference_turn import draws, where
from omni2_bench.latency.rounds import LatencyPlan, Run
from omni2_bench.latency.turn import TurnResult
from omni2_bench.random_checkpoint import PRESETS, CheckpointPaths
from omni2_bench.simulate.paper import find_row, table6
from omni2_engine.cli.app import run
from omni2_engine.errors import BackendError
from omni2_engine.turn.metrics import Recorder
from omni2_export.checkpoint import open_checkpoint
from omni2_export.reference.read_write import greedy

from ...waiting import SOON

SAID = "NVIDIA L40, 580.65.06, 8.9, 210, 2490, 405, 9001, 300.00, 46068, 31"
BLOCKS = Blocks(10, 50)
MACHINE = {"processor": "p", "family": "f", "flags": [], "threads": 2, "versions": {}}


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A program of that name that runs a line of shell, and writes down what it was asked."""

    def install(line: str) -> Path:
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{line}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(gpu, "PATIENCE", SOON)
        return tmp_path / "asked"

    return install


def test_a_gpu_tells_its_facts(nvidia_smi: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    asked = nvidia_smi(f"echo '{SAID}'")
    facts = describe_gpu()
    assert facts is not None and facts["driver"] == "580.65.06" and facts["power_limit_w"] == 300.0
    assert gpu_line(facts) == (
        "NVIDIA L40, SM clock 210 MHz of 2490, memory clock 405 MHz of 9001, power limit 300 W, driver 580.65.06"
    )
    assert "--id=2 --query-gpu=name,driver_version," in asked.read_text()


def test_what_a_gpu_does_not_tell_is_left_out(nvidia_smi: Callable[[str], Path]) -> None:
    nvidia_smi(f"echo '{SAID.replace('300.00', '[N/A]')}'")
    facts = describe_gpu()
    assert facts is not None and "power_limit_w" not in facts and "power" not in gpu_line(facts)


@pytest.mark.parametrize("line", ["exit 9", "echo No devices were found", "true"])
def test_no_facts_are_no_error(line: str, nvidia_smi: Callable[[str], Path]) -> None:
    nvidia_smi(line)
    assert describe_gpu() is None


def test_a_machine_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_gpu() is None


def test_auto_takes_plans_then_the_provider_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(targets: Any) -> None:
        raise BackendError("no plans for it", "do without")

    monkeypatch.setattr(gpu, "gpu_architecture", lambda: None)
    assert choose("auto") == choose("cpu") == ON_CPU
    monkeypatch.setattr(gpu, "gpu_architecture", lambda: "sm89")
    monkeypatch.setattr(gpu, "check_buildable", lambda targets: None)
    assert choose("auto") == choose("tensorrt") == Choice("tensorrt", "sm89")
    monkeypatch.setattr(gpu, "check_buildable", refuse)
    monkeypatch.setattr(gpu.ort, "get_available_providers", lambda: [gpu.PROVIDER])
    assert choose("auto") == choose("cuda") == Choice("cuda", "cpu")
    with pytest.raises(BackendError, match="no plans for it"):
        choose("tensorrt")
    monkeypatch.setattr(gpu.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert choose("auto") == ON_CPU
    with pytest.raises(BackendError, match="no CUDA provider"):
        choose("cuda")


@pytest.mark.parametrize(("device", "problem"), [("gpu", "unknown device 'gpu'"), ("tensorrt", "there is no GPU here")])
def test_a_device_that_is_not_here_is_refused_before_anything_is_built(
    device: str,
    problem: str,
    question: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gpu, "gpu_architecture", lambda: None)
    cache = tmp_path / "cache"
    options = ["--size=tiny", f"--audio={question}", f"--out={tmp_path / 'out'}", f"--cache={cache}"]
    assert run(["bench", "latency", *options, f"--device={device}"]) != 0
    assert problem in capsys.readouterr().err and not cache.exists()


def test_lines_of_the_papers_table() -> None:
    for size, read, write in (("7B", 3, 10), ("0.5B", 3, 10), ("7B", 1, 5)):
        row = find_row(table6(), size, read, write)
        assert row is not None and (row.size, row.read, row.write) == (size, read, write)
    assert find_row(table6(), "32B", 3, 10) is None and find_row(table6(), None, 3, 10) is None


def test_a_checkpoint_is_of_the_size_its_language_model_has(tiny_checkpoint: CheckpointPaths) -> None:
    config = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder).config
    assert size_of(config) is None  # fewer layers than the tiny size
    for size, dimensions in PRESETS.items():
        assert size_of(config.model_copy(update={"llm": dimensions.llm})) == size


def turn(path: Path, faster: float = 1.0, **more: Any) -> TurnResult:
    """A turn of fifteen chunks of half a second each, all of whose steps take 50 ms over `faster`."""
    step = 0.05 / faster
    spans, ready = [("encoder", 0.0, step), ("prefill", step, 2 * step)], []
    now = 2 * step
    for _ in range(15):
        for stage in ("decode", "fusion", "speech_prefill", "speech_decode", "flow", "vocoder"):
            spans.append((stage, now, now + step))
            now += step
        ready.append(now)
    np.save(path, (np.sin(np.arange(15 * 12_000) / 20) + 1e-4 * faster).astype(np.float32))
    fields: dict[str, Any] = {"chosen": [1, 2], "loading": 1.0} | more
    return TurnResult(spans, 2 * step, ready, [0.5] * 15, now, 0.2, 0.15, 0.1, **fields)


def report(plan: LatencyPlan, folder: Path, known: bool = False) -> LatencyReport:
    """Of one round, in which the engine is four times as fast, on a GPU where the plan is for one."""
    runs = []
    calls = {"llm": [0.001] * 40, "flow_step": [0.01, 0.02], "flow_encoder": [0.03]}
    on_gpu = {"chosen": [], "calls": calls, "place": "GPU, tensorrt"} if plan.choice != ON_CPU else {}
    for variant in plan.variants():
        pcm = folder / f"{variant.file}.npy"
        if variant.name == "reference":
            result = turn(pcm, place="CPU, float32 (no CUDA)" if on_gpu else "CPU")
        else:
            result = turn(pcm, 4.0, **on_gpu)
        runs.append(Run(0, variant, result, {}, 0.0, pcm))
    return LatencyReport(plan, runs, BLOCKS, find_row(table6(), "7B", 3, 10) if known else None)


@pytest.mark.parametrize("known", [True, False])
def test_the_page_of_a_gpu(known: bool, tmp_path: Path) -> None:
    plan = LatencyPlan(("fast",), tmp_path, tmp_path, 1, 2, 15, 4.0, Choice("tensorrt", "sm89"))
    facts = {"gpu": {"name": "NVIDIA L40", "clock_mhz": 2490.0, "driver": "580.65.06"}} if known else {}
    found = report(plan, tmp_path, known).record(MACHINE | facts, {"model": "m", "size": "7B"})
    record = json.loads(json.dumps(found))
    text = page(record)
    assert "- fast: GPU, tensorrt." in text and "- reference: CPU, float32 (no CUDA)." in text
    assert "| fast, measured | 200.00 | 150.00 | 100.00 | 100.00 |" in text
    if known:
        assert "| the paper's original, one L40 | 231.16 | 165.83 | 185.93 | 582.91 |" in text
        assert "GPU: NVIDIA L40, SM clock 2490 MHz, driver 580.65.06." in text
    else:
        assert "no line of this size" in text and "nvidia-smi says nothing here" in text
    # three calls, 60 ms by the device's clock; the host's spans of the flow are fifteen of 12.5 ms
    assert "| fast: flow | 3 | 20.000 | 60.0 | 187.5 |" in text
    assert "reference: flow | " not in text
    assert set(record["variants"]["fast"]["agreement"]) == {"sound_db", "mel_db"}  # a GPU does not tell what it chose


def test_a_page_of_the_cpu_says_nothing_of_gpus(tmp_path: Path) -> None:
    plan = LatencyPlan(("fast",), tmp_path, tmp_path, 1, 2, 15, 4.0)
    record = report(plan, tmp_path, known=True).record(MACHINE, {"model": "m", "size": "7B"})
    assert not {"places", "paper"} & set(record) and "calls" not in record["variants"]["fast"]
    assert not any(word in page(record) for word in ("GPU", "paper"))
    assert record["variants"]["fast"]["agreement"]["text"] == 1.0


def test_rounds_of_earlier_versions_are_read(tmp_path: Path) -> None:
    found = turn(tmp_path / "a.npy")
    known = {name: value for name, value in found.__dict__.items() if name not in ("calls", "place")}
    assert TurnResult.from_json(known) == replace(found, calls={}, place="CPU")


def test_the_reference_runs_where_pytorch_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert where("cpu") == ("CPU", "cpu", torch.float32)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    place, device, dtype = where("tensorrt")
    assert place.startswith("CPU, float32") and "no CUDA" in place and (device, dtype) == ("cpu", torch.float32)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert where("cuda")[1:] == ("cuda", torch.bfloat16)


def test_the_reference_in_bfloat16(tiny_checkpoint: CheckpointPaths, question: Path) -> None:
    """As on a GPU, on the CPU: language models in bfloat16 say something, flow and vocoder go on in float32."""
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    random, c = np.random.default_rng(1), checkpoint.config
    voice = random.standard_normal(c.estimator.speaker).astype(np.float32)
    noise = random.standard_normal((400, c.estimator.mel)).astype(np.float32)
    pipeline = ReferencePipeline(checkpoint, voice, noise, dtype=torch.bfloat16)
    types: set[torch.dtype] = set()

    def pick(logits: torch.Tensor, generated: list[int]) -> int:
        types.add(logits.dtype)
        return greedy(logits, generated)

    spoken = iter(range(1000))  # speech tokens of a unit each, which the weights do not choose
    units = np.flatnonzero(pipeline.units.table >= 0)

    def speak(logits: torch.Tensor, generated: list[int]) -> int:
        pick(logits, generated)
        return int(units[next(spoken) % len(units)])

    how = AnswerSettings(pick, speak, 6, lambda call, samples: draws(c.vocoder.harmonics + 1, call, samples), 10)
    chunks = list(pipeline.answer(question, how, Recorder(0)))
    assert types == {torch.float32} and next(pipeline.modules.llm.parameters()).dtype is torch.bfloat16
    assert chunks and all(chunk.dtype == np.float32 and np.isfinite(chunk).all() for chunk in chunks)
