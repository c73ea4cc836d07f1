"""Training that is stopped and goes on is the training that was not stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from omni2_training.loop import Schedule, Task, Trainer, load_averaged
from omni2_training.models.precision import bfloat16
from omni2_training.workspace import Workspace

SCHEDULE = Schedule(steps=12, rate=0.3, warmup=3, batch=4, average=0.5)


def task(interrupt_at: int | None = None) -> Task:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        if step == interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.from_numpy(rng.standard_normal((SCHEDULE.batch, 3)).astype(np.float32))
        noise = torch.randn(SCHEDULE.batch, 1) * 0.1
        return {"loss": (model(x) - x.sum(1, keepdim=True) + noise).square().mean()}

    return Task("line", model, loss)


@pytest.fixture(autouse=True)
def signals_restored() -> object:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("stop", ["step", "signal"])
def test_goes_on_where_it_was_stopped(tmp_path: Path, stop: str) -> None:
    console = Console(quiet=True)
    whole = task()
    assert Trainer(Workspace(tmp_path / "whole"), whole, SCHEDULE, 7, console).run()

    workspace = Workspace(tmp_path / "parts")
    first = Trainer(workspace, task(interrupt_at=4 if stop == "signal" else None), SCHEDULE, 7, console)
    assert not first.run(until=5 if stop == "step" else None)
    assert first.step == 5
    second = task()
    nn.init.zeros_(second.module.weight)  # the checkpoint counts, and not what it starts with
    trainer = Trainer(workspace, second, SCHEDULE, 7, console)
    assert trainer.step == 5 and trainer.run()
    for a, b in zip(whole.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(a, b)
    averages = [load_averaged(Workspace(tmp_path / name), "line", nn.Linear(3, 1)) for name in ("whole", "parts")]
    assert torch.equal(averages[0].weight, averages[1].weight)
    assert not torch.equal(averages[0].weight, whole.module.weight)
    assert torch.allclose(averages[0].weight, torch.ones(1, 3), atol=0.5)  # and it learnt something


def test_a_batch_without_a_gradient_changes_nothing(tmp_path: Path) -> None:
    broken = task()
    broken.loss = lambda step, rng: {"loss": broken.module.weight.sum() * torch.tensor(float("nan"))}
    before = broken.module.weight.detach().clone()
    Trainer(Workspace(tmp_path), broken, SCHEDULE, 7, Console(quiet=True)).run(until=2)
    assert torch.equal(broken.module.weight, before)


@pytest.mark.parametrize(("has", "wanted", "enabled"), [
    (True, None, True), (False, None, False), (False, True, True), (True, False, False),
])  # fmt: skip
def test_bfloat16_is_used_where_the_processor_has_it_or_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, has: bool, wanted: bool | None, enabled: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    with bfloat16(wanted):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is (torch.bfloat16 if enabled else torch.float32)


def test_bfloat16_is_not_used_where_torch_cannot_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in torch 2.6
    with bfloat16():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32
