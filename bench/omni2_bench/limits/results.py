"""`bench limits`: every stage beside the physical limit of this machine, measured in the same minute."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omni2_bench.common.machine import describe
from omni2_bench.common.models import BenchCheckpoint, built_engine
from omni2_bench.common.process import run_worker
from omni2_bench.common.results import Say, table, write_results
from omni2_bench.common.work import Work, encoder_work, flow_work, prefill_work, vocoder_work, weight_bytes
from omni2_engine.model.config import ModelConfig
from omni2_engine.model.manifest import EngineDirectory

LIBRARIES = ("ort", "torch", "numpy")
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Rates:
    """The best this machine does: operations and bytes per second."""

    fp32: float
    int8: float
    read: float


@dataclass(frozen=True)
class StageShare:
    """A stage's time beside the least it could be.

    Args:
        stage: of the pipeline.
        storage: of its weights.
        seconds: it takes.
        floor: seconds at the machine's best rate.
        bound: what that rate is of.
    """

    stage: str
    storage: str
    seconds: float
    floor: float
    bound: str

    @property
    def share(self) -> float:
        """Of the limit that is reached."""
        return self.floor / self.seconds


@dataclass(frozen=True)
class LimitsPlan:
    """What is measured.

    Args:
        presets: of the engine.
        audio, voice: a question and a voice.
        threads: processor threads.
        seconds: of attempts at every rate.
    """

    presets: tuple[str, ...]
    audio: Path
    voice: Path
    threads: int
    seconds: float


def run(plan: LimitsPlan, model: BenchCheckpoint, cache: Path, out: Path, say: Say) -> str:
    """Measure, write `limits.json` and `limits.md`.

    Args:
        plan: what to measure.
        model: the checkpoint.
        cache: where engines are kept.
        out: directory of the results.
        say: told what happens.

    Returns:
        The page to read.

    Raises:
        Omni2Error: a measurement failed.
    """
    engines = {preset: built_engine(model, preset, plan.voice, cache) for preset in plan.presets}
    found: dict[str, Any] = {}
    before = measure_rates(plan, say)
    for preset, engine in engines.items():
        say(f"stages of {preset} …")
        request = {"engine": str(engine), "audio": str(plan.audio.resolve()), "threads": plan.threads}
        times = run_worker("omni2_bench.limits.stage_times:measure_stages", request, plan.threads)
        after = measure_rates(plan, say)
        rates = {name: max(before[name], after[name]) for name in after}
        before = after
        best = Rates(**{kind: _highest(rates, kind) for kind in ("fp32", "int8", "read")})
        shares = compare(EngineDirectory(engine), times, best)
        rows = [{**asdict(share), "share": share.share} for share in shares]
        found[preset] = {"rates": rates, "best": asdict(best), "stages": rows}
    record = {
        "schema_version": SCHEMA_VERSION,
        "model": model.name,
        "machine": describe(plan.threads),
        "presets": found,
    }
    return write_results(out, "limits", record, page(record))


def measure_rates(plan: LimitsPlan, say: Say) -> dict[str, float]:
    """Every rate by its name, "torch read"; each library in a process of its own."""
    rates = {}
    for library in LIBRARIES:
        request = {"library": library, "threads": plan.threads, "seconds": plan.seconds}
        found = run_worker("omni2_bench.limits.rates:measure_rates", request, plan.threads)["rates"]
        for kind, rate in found.items():
            rates[f"{library} {kind}"] = rate
            say(f"{library} {kind}: {rate / 1e9:.1f} G{'B' if kind == 'read' else 'OP'}/s")
    return rates


def _highest(rates: dict[str, float], kind: str) -> float:
    """Of all libraries."""
    return max(rate for name, rate in rates.items() if name.endswith(f" {kind}"))


def compare(engine: EngineDirectory, times: dict[str, Any], best: Rates) -> list[StageShare]:
    """Every stage's time and its floor.

    Args:
        engine: the directory, whose weights are read.
        times: of `omni2_bench.limits.stage_times.measure_stages`.
        best: rates measured in the same minute.
    """
    config, storage = engine.manifest.model, engine.manifest.precision
    shares = []
    for stage, work in _works(config, times).items():
        module = {"prefill": "llm"}.get(stage, stage)
        kind = storage.get(module, "fp32")
        quantised = kind != "fp32"  # weight-only storage too is multiplied in int8 (`omni2_engine.backends`)
        floor = work.linear / (best.int8 if quantised else best.fp32) + work.other / best.fp32
        bound = "int8 and fp32 arithmetic" if quantised else "fp32 arithmetic"
        shares.append(StageShare(stage, kind, times["seconds"][stage], floor, bound))
    for stage, module in (("text_token", "llm"), ("speech_token", "speech_lm")):
        floor = weight_bytes(engine.graph(module)) / best.read
        shares.append(StageShare(stage, storage[module], times["seconds"][stage], floor, "memory"))
    return shares


def _works(config: ModelConfig, times: dict[str, Any]) -> dict[str, Work]:
    return {
        "encoder": encoder_work(config.encoder),
        "prefill": prefill_work(config.llm, times["prompt"]),
        "flow": flow_work(config, times["flow_frames"], times["flow_seen"]),
        "vocoder": vocoder_work(config.vocoder, times["vocoder_frames"]),
    }


def page(record: dict[str, Any]) -> str:
    """`limits.json` as a page to read."""
    machine = record["machine"]
    parts = [f"# Limits of {record['model']}\n\n{machine['processor']}, {machine['threads']} threads.\n"]
    for preset, found in record["presets"].items():
        best = found["best"]
        rates = f"fp32 {best['fp32'] / 1e9:.0f} GOP/s, int8 {best['int8'] / 1e9:.0f} GOP/s"
        rates += f", reading {best['read'] / 1e9:.1f} GB/s"
        rows = [
            [
                row["stage"].replace("_", " "),
                row["storage"],
                f"{1e3 * row['seconds']:.2f} ms",
                f"{1e3 * row['floor']:.2f} ms",
                f"{100 * row['share']:.0f} %",
                row["bound"],
            ]
            for row in found["stages"]
        ]
        header = ["stage", "weights", "time", "at the limit", "share", "bound by"]
        parts.append(f"## {preset}\n\nThe best of before and after: {rates}.\n\n" + table(header, rows))
    return "\n".join(parts)
