"""`bench latency`: engine and reference answer the same question in turns, each in a process of its own.

Every finished turn is kept on disk, so that an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omni2_bench.common.gpu import ON_CPU, Choice, describe_gpu
from omni2_bench.common.machine import describe, load
from omni2_bench.common.models import BenchCheckpoint, built_engine
from omni2_bench.common.process import run_worker
from omni2_bench.common.results import Say
from omni2_bench.latency.turn import TURN, TurnRequest, TurnResult
from omni2_engine.errors import SettingError

REFERENCE = "reference"
GROWING = ("live",)  # presets that are also measured with growing chunks, as `stream`, `talk` and `serve` make them


@dataclass(frozen=True)
class LatencyVariant:
    """One of the things compared: the reference, or the engine at a preset, perhaps with a shorter memory.

    Args:
        name: in tables and plots.
        preset: of the engine; the reference takes voice and noise from an engine of this preset.
        left_context: seconds; None leaves it to the engine.
        growing: chunks grow with the player's lead; they are of one size otherwise, as the reference's are.
    """

    name: str
    preset: str
    left_context: float | None = None
    growing: bool = False

    @property
    def file(self) -> str:
        """Stem of its files."""
        return self.name.replace(" ", "-").replace(",", "")


@dataclass(frozen=True)
class LatencyPlan:
    """What is compared and how.

    Args:
        presets: of the engine.
        audio: the spoken question.
        voice: a recording of the voice to answer in.
        rounds: how often every variant runs.
        threads: processor threads.
        chunks: of the answer.
        left_context: seconds, of the variants with a shorter memory.
        choice: the device, and what engines are built for.
    """

    presets: tuple[str, ...]
    audio: Path
    voice: Path
    rounds: int
    threads: int
    chunks: int
    left_context: float
    choice: Choice = ON_CPU

    def variants(self) -> list[LatencyVariant]:
        """Every variant, the reference first."""
        limited = f"{self.left_context:g} s"
        return [
            LatencyVariant(REFERENCE, self.presets[0]),
            *(LatencyVariant(preset, preset) for preset in self.presets),
            *(LatencyVariant(f"{preset}, {limited}", preset, self.left_context) for preset in self.presets),
            *(LatencyVariant(f"{p}, growing chunks", p, growing=True) for p in self.presets if p in GROWING),
        ]

    def order(self) -> Iterator[tuple[int, LatencyVariant]]:
        """Rounds and variants; every other round runs backwards, so that a machine that warms up favours no variant."""
        for number in range(self.rounds):
            variants = self.variants()
            yield from ((number, variant) for variant in (variants if number % 2 == 0 else variants[::-1]))


@dataclass(frozen=True)
class Run:
    """One finished turn.

    Attributes:
        memory: highest `RssAnon` and `VmHWM` of its process, bytes.
        load: of the machine when it began.
        pcm: `.npy` file of its sound.
    """

    round: int
    variant: LatencyVariant
    result: TurnResult
    memory: dict[str, int]
    load: float
    pcm: Path


def measure(plan: LatencyPlan, model: BenchCheckpoint, cache: Path, out: Path, say: Say) -> list[Run]:
    """Run what is not finished yet.

    Args:
        plan: what to compare.
        model: the checkpoint.
        cache: where engines are kept.
        out: where results are kept; `rounds/` holds one JSON file per finished turn.
        say: told what happens.

    Raises:
        SettingError: `out` holds another benchmark.
        Omni2Error: a turn failed.
    """
    rounds = _open(plan, model, out)
    order = list(plan.order())
    engines: dict[str, Path] = {}
    if not all(_path(rounds, number, variant).is_file() for number, variant in order):
        target = plan.choice.target
        engines = {preset: built_engine(model, preset, plan.voice, cache, target) for preset in plan.presets}
    runs = []
    for place, (number, variant) in enumerate(order, 1):
        path = _path(rounds, number, variant)
        label = f"[{place}/{len(order)}] round {number + 1}, {variant.name}"
        if path.is_file():
            say(f"{label}: done before")
        else:
            say(f"{label} …")
            _run(plan, model, variant, engines[variant.preset], path)
        runs.append(_read(path, number, variant))
        say(f"{label}: first chunk {runs[-1].result.ready[0]:.2f} s, whole answer {runs[-1].result.finished:.2f} s")
    return runs


def _open(plan: LatencyPlan, model: BenchCheckpoint, out: Path) -> Path:
    """The directory of the rounds, after a look at what it was made for; the number of rounds may change."""
    digest = hashlib.sha256(plan.audio.read_bytes()).hexdigest()
    settings = asdict(plan)
    choice = settings.pop("choice")
    request = {**settings, "model": model.name, "size": model.size, "audio_sha256": digest}
    request |= {} if plan.choice == ON_CPU else choice
    request = {name: str(value) if isinstance(value, Path) else value for name, value in request.items()}
    wanted = json.loads(json.dumps({name: value for name, value in request.items() if name != "rounds"}))
    file = out / "request.json"
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != wanted:
        raise SettingError(f"{out} holds a benchmark with other settings", "name another directory with --out")
    rounds = out / "rounds"
    rounds.mkdir(parents=True, exist_ok=True)
    _write(file, wanted)
    if not (out / "machine.json").is_file():
        gpu = None if plan.choice == ON_CPU else describe_gpu()
        _write(out / "machine.json", describe(plan.threads) | ({} if gpu is None else {"gpu": gpu}))
    return rounds


def _path(rounds: Path, number: int, variant: LatencyVariant) -> Path:
    return rounds / f"{number + 1}-{variant.file}.json"


def _run(plan: LatencyPlan, model: BenchCheckpoint, variant: LatencyVariant, engine: Path, path: Path) -> None:
    before = load()
    request = TurnRequest(
        pipeline="reference" if variant.name == REFERENCE else "engine",
        engine=str(engine),
        audio=str(plan.audio.resolve()),
        pcm=str(path.with_suffix(".npy").resolve()),
        threads=plan.threads,
        chunks=plan.chunks,
        left_context=variant.left_context,
        model=str(model.model),
        decoder=str(model.decoder),
        speech_encoder=None if model.speech_encoder is None else str(model.speech_encoder),
        device=plan.choice.device,
        growing=variant.growing,
    )
    _write(path, {**run_worker(TURN, asdict(request), plan.threads), "load": before})


def _read(path: Path, number: int, variant: LatencyVariant) -> Run:
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    result = TurnResult.from_json(record)
    return Run(number, variant, result, record["memory"], record["load"], path.with_suffix(".npy"))


def _write(path: Path, record: dict[str, Any]) -> None:
    """Whole or not at all."""
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(json.dumps(record, indent=1), encoding="utf-8")
    unfinished.replace(path)
