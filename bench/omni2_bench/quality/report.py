"""Judged answers → `quality.json` and the same as tables for reading."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_bench.quality.answers import JudgedAnswer
from omni2_bench.quality.judge import Score, word_errors
from omni2_bench.quality.schedules import Rendering
from omni2_bench.quality.seams import Jump, seam_cost

Floats = NDArray[np.float32]
Hear = Callable[[Floats, int], str]  # samples and their rate → transcript
LONG = 2  # turns of a conversation beyond which its answers are counted by turn
Rate = Callable[[Floats, int], float]  # likewise → mean opinion score


@dataclass(frozen=True)
class Judged:
    """Answers to a set of questions, what was heard of each, and how it was rated if it was."""

    answers: list[JudgedAnswer]
    heard: list[str]
    opinions: list[float] | None

    def figures(self) -> dict[str, Any]:
        """Means over all answers; right words and word errors of every kind; right words by turn."""
        kinds = dict.fromkeys(answer.kind for answer in self.answers)
        longest = max(answer.turns for answer in self.answers)
        return {
            "answers": len(self.answers),
            "right": float(np.mean([answer.right for answer in self.answers])),
            "wer": self._score("").rate,
            "opinion": float(np.mean(self.opinions)) if self.opinions else None,
            "first_chunk": float(np.median([answer.first_chunk for answer in self.answers])),
            "rtf": float(np.median([answer.rtf for answer in self.answers])),
            "turns": [
                float(np.mean([a.right for a in self.answers if a.turn == turn and a.turns == longest]))
                for turn in range(longest)
            ],
            "kinds": {
                kind: {
                    "answers": sum(answer.kind == kind for answer in self.answers),
                    "right": float(np.mean([answer.right for answer in self.answers if answer.kind == kind])),
                    "wer": self._score(kind).rate,
                }
                for kind in kinds
            },
        }

    def _score(self, kind: str) -> Score:
        """Word errors of the speech against the text the model itself wrote."""
        score = Score()
        for answer, heard in zip(self.answers, self.heard, strict=True):
            if not kind or answer.kind == kind:
                score.add(answer.text, heard)
        return score

    def lines(self) -> list[dict[str, Any]]:
        """Every answer, for looking at."""
        return [
            {
                "kind": a.kind,
                "turn": a.turn,
                "expected": a.expected,
                "text": a.text,
                "right": a.right,
                "heard": h,
                "errors": word_errors(a.text, h)[0],
            }
            for a, h in zip(self.answers, self.heard, strict=True)
        ]


def judge_answers(answers: list[JudgedAnswer], rate: int, hear: Hear, opinion: Rate | None) -> Judged:
    """Let the judges hear every answer."""
    heard = [hear(answer.pcm, rate) for answer in answers]
    return Judged(answers, heard, [opinion(answer.pcm, rate) for answer in answers] if opinion else None)


def judge_schedule(
    texts: list[str], renderings: list[Rendering], offline: list[Rendering], rate: int, hear: Hear
) -> dict[str, Any]:
    """Word errors and seams of one chunk schedule against the offline rendering of the same units."""
    score = Score()
    costs: list[Jump] = []
    for text, made, whole in zip(texts, renderings, offline, strict=True):
        score.add(text, hear(made.pcm, rate))
        if cost := seam_cost(made.pcm, whole.pcm, made.edges, rate):
            costs.append(cost)
    seams = sum(len(made.edges) for made in renderings)
    return {
        "wer": score.rate,
        "seams": seams,
        "energy_jump": float(np.mean([cost.energy for cost in costs])) if costs else None,
        "spectral_jump": float(np.mean([cost.spectrum for cost in costs])) if costs else None,
    }


def write_report(out: Path, result: dict[str, Any]) -> str:
    """Write `quality.json` and `quality.md`; returns the latter's text."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "quality.json").write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    text = tables(result)
    (out / "quality.md").write_text(text, encoding="utf-8")
    return text


def tables(result: dict[str, Any]) -> str:
    """The figures for reading, Markdown."""
    rows = [
        "| precision | questions | answers | text right | WER | DNSMOS | first chunk | RTF |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for preset, sets in result["presets"].items():
        for name, f in sets.items():
            opinion = "–" if f["opinion"] is None else f"{f['opinion']:.2f}"
            rows.append(
                f"| {preset} | {name} | {f['answers']} | {f['right']:.1%} | {f['wer']:.1%} | {opinion} "
                f"| {f['first_chunk'] * 1e3:.0f} ms | {f['rtf']:.2f} |"
            )
    first, sets = next(iter(result["presets"].items()))
    for name, figures in sets.items():
        if len(figures["turns"]) > LONG:
            rows += ["", f"| turn ({name}, {first}) | text right |", "|---|---|"]
            rows += [f"| {turn} | {right:.1%} |" for turn, right in enumerate(figures["turns"], 1)]
        rows += ["", f"| kind ({name}, {first}) | answers | text right | WER |", "|---|---|---|---|"]
        rows += [f"| {k} | {f['answers']} | {f['right']:.1%} | {f['wer']:.1%} |" for k, f in figures["kinds"].items()]
    rows += ["", "| chunks | WER | seams | jump of level there | of spectrum |", "|---|---|---|---|---|"]
    for schedule, f in result["schedules"].items():
        jumps = [f"{f[key]:+.2f} dB" if f[key] is not None else "–" for key in ("energy_jump", "spectral_jump")]
        rows.append(f"| {schedule} | {f['wer']:.1%} | {f['seams']} | {jumps[0]} | {jumps[1]} |")
    return "\n".join(rows) + "\n"
