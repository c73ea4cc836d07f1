"""The training loop of every stage: draws batches by their number, saves often, goes on where it was stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from omni2_engine.model.config import Frozen
from omni2_training.models.precision import bfloat16
from omni2_training.quiet import StopRequest, pause_while_measured
from omni2_training.workspace import Workspace

SAVE_SECONDS = 150.0
REPORT_SECONDS = 20.0
PLAIN_ATTENTION = SDPBackend.MATH  # over a hundred positions a fused one takes a tenth to a quarter longer per step


class Schedule(Frozen):
    """How long and how fast a stage learns."""

    steps: int = Field(gt=0)
    rate: float = Field(gt=0, description="highest learning rate, after the warm-up; a cosine brings it to a twentieth")
    warmup: int = Field(default=100, ge=0)
    batch: int = Field(gt=0)
    decay: float = Field(default=0.01, ge=0, description="AdamW's weight decay")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    bfloat16: bool | None = Field(default=None, description="multiply in bfloat16; None where the processor has it")
    average: float = Field(default=0.999, ge=0, lt=1, description="of the moving average of the weights")

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class Stateful(Protocol):
    """Something with a state to be saved."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Task:
    """What is learnt.

    Args:
        name: of the stage, and of its directory.
        module: everything that is trained.
        loss: (number of the step, its random numbers) → named losses; "loss" is minimised, the others are reported.
        validate: named figures on held-out material, asked for now and then; the module holds the averaged weights.
        parameters: what is optimised, if not all of the module.
        beside: learns for itself in `loss`, and is saved and loaded with the rest.
    """

    name: str
    module: nn.Module
    loss: Callable[[int, np.random.Generator], dict[str, Tensor]]
    validate: Callable[[], dict[str, float]] | None = None
    parameters: Callable[[], list[nn.Parameter]] | None = None
    beside: Stateful | None = None


class Trainer:
    """Runs one task in a workspace.

    Args:
        workspace: keeps `NAME/checkpoint.pt` and `NAME/log.jsonl`; `start/NAME.pt` may hold weights to begin with.
        schedule, seed: of the task; another number of steps may be given when going on.
        console: for progress.
    """

    def __init__(self, workspace: Workspace, task: Task, schedule: Schedule, seed: int, console: Console) -> None:
        self._task, self._schedule, self._seed, self._console = task, schedule, seed, console
        self._workspace = workspace
        self._path = workspace.path(task.name, "checkpoint.pt")
        if not self._path.is_file() and (start := start_path(workspace, task.name)).is_file():
            task.module.load_state_dict(torch.load(start, weights_only=True), strict=False)
        self._parameters = (
            task.parameters() if task.parameters else [p for p in task.module.parameters() if p.requires_grad]
        )
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=schedule.decay, foreach=True
        )
        self._average = [p.detach().clone() for p in self._parameters]
        self.step = 0
        self._seconds = 0.0
        if self._path.is_file():
            self._load()

    def run(self, until: int | None = None) -> bool:
        """Train until the schedule's end.

        Args:
            until: stop after this step, as if told to.

        Returns:
            Whether the end was reached; if not, the next run goes on from here.
        """
        stop, last = StopRequest(), min(self._schedule.steps, until or self._schedule.steps)
        if self.step >= last:
            return self.step >= self._schedule.steps
        reported = saved = time.monotonic()
        worked = time.process_time()
        sums: dict[str, float] = {}
        count = 0
        while self.step < last and not stop:
            pause_while_measured(stop)
            if stop:
                break
            for name, value in self._advance().items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
            now = time.monotonic()
            if now - reported > REPORT_SECONDS or self.step == last:
                self._seconds += time.process_time() - worked
                worked = time.process_time()
                self._report({name: value / count for name, value in sums.items()})
                reported = now
                sums, count = {}, 0
            if now - saved > SAVE_SECONDS:
                self._save()
                saved = now
        self._save()
        done = self.step >= self._schedule.steps
        if done:
            self._finish()
        return done

    def _advance(self) -> dict[str, float]:
        """One step: the named losses."""
        torch.manual_seed(self._seed * 1_000_003 + self.step)
        with bfloat16(self._schedule.bfloat16), sdpa_kernel(PLAIN_ATTENTION):
            losses = self._task.loss(self.step, np.random.default_rng((self._seed, self.step)))
        for group in self._optimiser.param_groups:
            group["lr"] = self._schedule.rate_at(self.step)
        self._optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, self._schedule.clip)
        if torch.isfinite(norm):  # else: one odd batch is left out, the weights stay sound
            self._optimiser.step()
        self.step += 1
        weight = 1 - min(self._schedule.average, self.step / (self.step + 10))
        torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], weight)
        return {name: float(value.detach()) for name, value in losses.items()}

    def _report(self, means: dict[str, float]) -> None:
        line = {"step": self.step, "cpu_seconds": round(self._seconds, 1)} | {k: round(v, 4) for k, v in means.items()}
        with self._workspace.path(self._task.name, "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        figures = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
        self._console.print(
            f"{self._task.name} {self.step}/{self._schedule.steps}  {figures}  {self._seconds / 60:.1f} CPU min",
            soft_wrap=True,
        )

    def _finish(self) -> None:
        if self._task.validate:
            self._task.module.eval()
            with self.averaged():
                self._report(self._task.validate())
            self._task.module.train()

    def averaged(self) -> Averaged:
        """A context in which the module holds the averaged weights."""
        return Averaged(self._parameters, self._average)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self._seconds,
            "module": self._task.module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self._average,
            "beside": self._task.beside.state_dict() if self._task.beside else None,
        }

    def _save(self) -> None:
        self._workspace.write(self._path, lambda path: torch.save(self._state(), path))

    def _load(self) -> None:
        state = torch.load(self._path, weights_only=True)
        self._task.module.load_state_dict(state["module"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._average = state["average"]
        if self._task.beside:
            self._task.beside.load_state_dict(state["beside"])
        self.step, self._seconds = state["step"], state["seconds"]


class Averaged:
    """Swaps averaged weights in, and the trained ones back."""

    def __init__(self, parameters: list[nn.Parameter], average: list[Tensor]) -> None:
        self._parameters, self._average = parameters, average

    def __enter__(self) -> None:
        self._kept = [p.detach().clone() for p in self._parameters]
        self._copy(self._average)

    def __exit__(self, *error: object) -> None:
        self._copy(self._kept)

    def _copy(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._parameters, values, strict=True):
                parameter.copy_(value)


def start_path(workspace: Workspace, name: str) -> Path:
    """Where the weights lie that a stage begins with, if it does not begin at random; see `adopt`."""
    return workspace.path("start", f"{name}.pt")


def load_averaged(workspace: Workspace, name: str, module: nn.Module) -> nn.Module:
    """Give a module the averaged weights of a stage's checkpoint, ready for use.

    Raises:
        FileNotFoundError: the stage has not been trained.
    """
    state = torch.load(workspace.path(name, "checkpoint.pt"), weights_only=True)
    module.load_state_dict(state["module"])
    trained = [p for p in module.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter, value in zip(trained, state["average"], strict=True):
            parameter.copy_(value)
    return module.eval().requires_grad_(False)
