"""Finished turns → the figures of `latency.json`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from omni2_bench.common.gpu import ON_CPU
from omni2_bench.common.mel import mel_spectrogram
from omni2_bench.common.statistics import (
    Blocks,
    Summary,
    as_record,
    chunk_costs,
    continuity,
    fit,
    starvation,
    summarise,
)
from omni2_bench.latency.rounds import REFERENCE, LatencyPlan, Run
from omni2_bench.latency.turn import TurnResult
from omni2_bench.simulate.paper import PaperRow
from omni2_engine.turn.metrics import LLM_STAGES

SCHEMA_VERSION = 1
Figure = Callable[[TurnResult], float]
# For orientation, the original itself at this size, float32, two threads: shares of its encoder row (24.5 s).
ORIGINAL_SIZE = "0.5B"
ORIGINAL = {
    "prefill": 3.05 / 24.5,
    "text token": 0.18 / 24.5,
    "write 1": 2.2 / 24.5,
    "write 12": 2.9 / 24.5,
    "flow 1": 1.2 / 24.5,
    "flow 2": 1.9 / 24.5,
    "flow 8": 4.4 / 24.5,
    "flow 12": 6.9 / 24.5,
    "vocoder": 0.15 / 24.5,
}
# graphs, as the device's clock has them, and the spans of the host in which they are called
GROUPS = {
    "log-mel": (("log_mel",), ("frontend",)),
    "encoder": (("encoder", "encoder_tail"), ("encoder",)),
    "language model": (("llm", "llm_prefill"), ("prefill", "decode")),
    "fusion": (("fusion",), ("fusion",)),
    "speech LM": (("speech_lm",), ("speech_prefill", "speech_decode")),
    "flow": (("flow_conditions", "first_flow_encoder", "first_flow_step", "flow_encoder", "flow_step"), ("flow",)),
    "vocoder": (("vocoder",), ("vocoder",)),
}


@dataclass(frozen=True)
class LatencyReport:
    """All runs of one benchmark.

    Args:
        plan: what was compared.
        runs: every finished turn.
        blocks: how chunks lie in attention blocks.
        paper: what the paper says of the original at this size and schedule, if it does.
    """

    plan: LatencyPlan
    runs: list[Run]
    blocks: Blocks
    paper: PaperRow | None = None

    def of(self, name: str) -> list[TurnResult]:
        """Results of one variant by round."""
        runs = sorted((run for run in self.runs if run.variant.name == name), key=lambda run: run.round)
        return [run.result for run in runs]

    def names(self) -> list[str]:
        """Variants in order."""
        return [variant.name for variant in self.plan.variants()]

    def even_names(self) -> list[str]:
        """Those whose chunks are all of one size, so that they can be compared one by one."""
        return [variant.name for variant in self.plan.variants() if not variant.growing]

    def costs(self, result: TurnResult) -> list[float]:
        """Seconds per chunk that brings new units (an answer's tail is none)."""
        return chunk_costs(result.ready, result.prefilled)[: self.plan.chunks]

    def median_costs(self, name: str) -> list[float]:
        """Median over the rounds of each chunk's cost."""
        costs = np.median([self.costs(result) for result in self.of(name)], axis=0)
        return [float(cost) for cost in costs]

    def ratio(self, preset: str, figure: Figure) -> Summary:
        """Reference over engine, round by round, so that a machine that drifts does so in both."""
        pairs = zip(self.of(REFERENCE), self.of(preset), strict=True)
        return summarise([figure(reference) / figure(engine) for reference, engine in pairs])

    def ratios(self, preset: str) -> dict[str, Summary]:
        """How many times faster than the reference; and how the engine's own chunks grow."""
        plan = self.plan
        limited = next(v.name for v in plan.variants() if v.preset == preset and v.left_context is not None)
        seconds = round(self.of(REFERENCE)[0].seconds)

        def growth(name: str) -> Summary:
            return summarise([self.blocks.growth(self.costs(result)) for result in self.of(name)])

        return {
            "first_chunk": self.ratio(preset, lambda result: result.ready[0]),
            "after_prefill": self.ratio(preset, lambda result: result.ready[0] - result.prefilled),
            f"answer_{seconds}s": self.ratio(preset, lambda result: result.finished),
            f"chunk_{plan.chunks}": self.ratio(preset, lambda result: self.costs(result)[plan.chunks - 1]),
            "growth": growth(preset),
            f"growth_{plan.left_context:g}s": growth(limited),
        }

    def growing_ratios(self) -> dict[str, dict[str, Summary]]:
        """Of the variants with growing chunks, as far as that can be told of them."""
        names = [name for name in self.names() if name not in self.even_names()]
        return {
            name: {
                "first_chunk": self.ratio(name, lambda result: result.ready[0]),
                "after_prefill": self.ratio(name, lambda result: result.ready[0] - result.prefilled),
                f"answer_{round(self.of(REFERENCE)[0].seconds)}s": self.ratio(name, lambda result: result.finished),
            }
            for name in names
        }

    def rows(self, name: str) -> dict[str, Summary]:
        """The first chunk as in the paper's Table 6, seconds."""
        figures: dict[str, Figure] = {
            "LLM": lambda result: result.llm,
            "TTS": lambda result: result.tts,
            "FM+Voc": lambda result: result.synthesis,
            "total": lambda result: result.ready[0],
        }
        return {row: summarise([figure(result) for result in self.of(name)]) for row, figure in figures.items()}

    def variant(self, name: str) -> dict[str, Any]:
        """Everything about one variant."""
        results = self.of(name)
        runs = [run for run in self.runs if run.variant.name == name]
        gaps = [starvation(result.ready, result.durations, result.start_in) for result in results]

        def over(figure: Figure) -> dict[str, Any]:
            return as_record(summarise([figure(result) for result in results]))

        return {
            "first_chunk": {row: as_record(summary) for row, summary in self.rows(name).items()},
            "after_prefill": over(lambda result: result.ready[0] - result.prefilled),
            "answer": over(lambda result: result.finished),
            "core_seconds_per_second": over(lambda result: result.core_seconds / result.seconds),
            "rtf": over(lambda result: result.work / result.seconds),
            "rtf_after_first_chunk": over(_later_rtf),
            "stages": {stage: over(_seconds_of(stage)) for stage in _stages(results[0])},
            **(self._chunks(name) if name in self.even_names() else {}),
            "start_in": over(lambda result: result.start_in),
            "underrun_total": as_record(summarise([gap.total for gap in gaps])),
            "underrun_worst": as_record(summarise([gap.worst for gap in gaps])),
            "continuity": continuity([gap.worst for gap in gaps]),
            "memory": {
                field: max(run.memory[field] for run in runs)
                for field in ("RssAnon", "VmHWM")
                if all(field in run.memory for run in runs)
            },
            "loading": over(lambda result: result.loading),
            "load": [run.load for run in runs],
            **({"calls": calls} if (calls := self.calls(name)) else {}),
            **({} if name == REFERENCE else {"agreement": self.agreement(name)}),
        }

    def _chunks(self, name: str) -> dict[str, Any]:
        """What chunks of one size cost."""
        costs = self.median_costs(name)
        tails = [result.finished - result.ready[self.plan.chunks - 1] for result in self.of(name)]
        return {
            "tail": as_record(summarise(tails)),
            "chunk_seconds": costs,
            "chunk_fit": as_record(fit(costs, self.blocks)),
        }

    def agreement(self, name: str) -> dict[str, float]:
        """Did both do the same work? `text` is the share of text ids both would have chosen, where that is known,
        `sound_db` the reference's sound over the difference, `mel_db` the mean difference of their mel spectrograms,
        which says more where the sound's phase has drifted.

        The last chunk's sound is left out: the reference knows it is the last and voices the look-ahead with it.
        """
        engine, reference = (next(run for run in self.runs if run.variant.name == n) for n in (name, REFERENCE))
        rate = round(len(np.load(reference.pcm)) / reference.result.seconds)
        kept = round(sum(reference.result.durations[:-1]) * rate)
        ours, theirs = (np.load(run.pcm)[:kept].astype(np.float64) for run in (engine, reference))
        noise = max(float(np.square(ours - theirs).sum()), np.finfo(np.float64).tiny)
        mels = [mel_spectrogram(pcm, rate) for pcm in (ours, theirs)]
        chosen = engine.result.chosen
        text = {"text": float(np.mean(np.equal(chosen, reference.result.chosen)))} if chosen else {}
        return text | {
            "sound_db": float(10 * np.log10(np.square(theirs).sum() / noise)),
            "mel_db": float(np.abs(mels[0] - mels[1]).mean()),
        }

    def on_gpu(self) -> dict[str, Any]:
        """Where everything ran and the paper's figures for this size and schedule; nothing on the CPU."""
        if self.plan.choice == ON_CPU:
            return {}
        paper = None if self.paper is None else asdict(self.paper)
        return {"places": {name: self.of(name)[0].place for name in self.names()}, "paper": paper}

    def calls(self, name: str) -> dict[str, dict[str, Any]]:
        """Time of every group of graphs in a whole turn: on the device by its clock, and on the host by spans; medians
        over the rounds, seconds."""
        results = self.of(name)
        found = {}
        for group, (graphs, stages) in GROUPS.items():
            seconds = [[t for graph in graphs for t in result.calls.get(graph, [])] for result in results]
            if any(seconds):
                found[group] = {
                    "calls": len(seconds[0]),
                    "device": float(np.median([sum(times) for times in seconds])),
                    "host": float(np.median([sum(result.of_stage(*stages)) for result in results])),
                }
        return found

    def record(self, machine: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        """The content of `latency.json`."""
        ratios = {preset: self.ratios(preset) for preset in self.plan.presets} | self.growing_ratios()
        return {
            "schema_version": SCHEMA_VERSION,
            "rounds": self.plan.rounds,
            "ratios": {preset: {key: s.median for key, s in found.items()} for preset, found in ratios.items()},
            "spread": {preset: {key: as_record(s) for key, s in found.items()} for preset, found in ratios.items()},
            "variants": {name: self.variant(name) for name in self.names()},
            **self.on_gpu(),
            "reference_rows": reference_rows(self.of(REFERENCE), ORIGINAL if request["size"] == ORIGINAL_SIZE else {}),
            "request": request,
            "machine": machine,
        }


def reference_rows(results: list[TurnResult], original: dict[str, float]) -> dict[str, dict[str, float]]:
    """The reference's rows in seconds and as a share of its encoder row, beside the original's share if known."""
    found: dict[str, list[float]] = {}
    for result in results:
        for row, seconds in _rows_of(result).items():
            found.setdefault(row, []).append(seconds)
    medians = {row: float(np.median(seconds)) for row, seconds in found.items()}
    rows = {}
    for row, seconds in medians.items():
        rows[row] = {"seconds": seconds, "of_encoder": seconds / medians["encoder"]}
        if row in original:
            rows[row] |= {"original": original[row], "deviation": rows[row]["of_encoder"] / original[row] - 1}
    return rows


def _rows_of(result: TurnResult) -> dict[str, float]:
    writes: list[float] = []
    for stage, start, stop in result.spans:
        if stage == "fusion":  # every write begins with it
            writes.append(0.0)
        if stage in ("fusion", "speech_prefill", "speech_decode"):
            writes[-1] += stop - start
    flow = result.of_stage("flow")
    rows = {stage: sum(result.of_stage(stage)) for stage in ("encoder", "prefill")}
    rows["text token"] = float(np.median(result.of_stage("decode")))
    rows |= {f"write {k}": writes[k - 1] for k in (1, 12, len(writes)) if k <= len(writes)}
    rows |= {f"flow {k}": flow[k - 1] for k in (1, 2, 8, 12, len(flow)) if k <= len(flow)}
    spans = result.of_stage("vocoder")  # of every call, its random numbers and its work
    rows["vocoder"] = float(np.median(np.reshape(spans, (len(flow), -1)).sum(axis=1)))
    return rows


def _later_rtf(result: TurnResult) -> float:
    return (result.finished - result.ready[0]) / sum(result.durations[1:])


def _seconds_of(stage: str) -> Figure:
    return lambda result: sum(result.of_stage(stage))


def _stages(result: TurnResult) -> list[str]:
    found = dict.fromkeys(stage for stage, _, _ in result.spans)
    return [stage for stage in LLM_STAGES if stage in found] + [s for s in found if s not in LLM_STAGES]
