"""`omni2-engine bench quality`: a set of spoken questions answered at several precisions and in several chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni2_bench.common.machine import describe
from omni2_bench.common.models import BenchCheckpoint, built_engine
from omni2_bench.quality.answers import JudgedAnswer, answer_all
from omni2_bench.quality.questions import read_questions
from omni2_bench.quality.report import Hear, Rate, judge_answers, judge_schedule, write_report
from omni2_bench.quality.schedules import render
from omni2_engine import Engine


@dataclass(frozen=True)
class QualityPlan:
    """What is measured.

    Args:
        presets: precisions; the first one's units, of the first set, are rendered in every schedule.
        schedules: "offline", "growing", or units of a chunk.
        questions: folders of questions, a set each.
        voice: recording of the voice.
        most: conversations of a set at most.
        seed: of every session.
        threads: of the engine.
    """

    presets: tuple[str, ...]
    schedules: tuple[str, ...]
    questions: tuple[Path, ...]
    voice: Path
    most: int | None
    seed: int
    threads: int


def run(
    plan: QualityPlan,
    model: BenchCheckpoint,
    folder: Path,
    out: Path,
    hear: Hear,
    opinion: Rate | None,
    say: Callable[[str], None],
) -> str:
    """Measure, write `quality.json` and `quality.md`, and return the latter.

    Args:
        model: the checkpoint.
        folder: where engines are kept.
        hear, opinion: the judges; the second may be missing.
        say: takes a line of progress.
    """
    sets = {folder.resolve().name: read_questions(folder, plan.most) for folder in plan.questions}
    presets: dict[str, Any] = {}
    lines: dict[str, Any] = {}
    first: list[JudgedAnswer] = []
    schedules = {}
    for preset in plan.presets:
        engine = Engine.load(built_engine(model, preset, plan.voice, folder), threads=plan.threads)
        presets[preset], lines[preset] = {}, {}
        for name, conversations in sets.items():
            say(f"{preset}: {len(conversations)} conversations of {name}")
            answers = answer_all(engine, conversations, plan.seed)
            judged = judge_answers(answers, engine.sample_rate, hear, opinion)
            presets[preset][name], lines[preset][name] = judged.figures(), judged.lines()
            if first:
                continue
            first = [answer for answer in answers if answer.units]
            offline = [render(engine, answer.units, "offline", plan.seed) for answer in first]
            for schedule in plan.schedules:
                say(f"chunks: {schedule}")
                made = [render(engine, answer.units, schedule, plan.seed) for answer in first]
                texts = [answer.text for answer in first]
                schedules[schedule] = judge_schedule(texts, made, offline, engine.sample_rate, hear)
    machine = describe(plan.threads)
    return write_report(out, {"machine": machine, "presets": presets, "schedules": schedules, "answers": lines})
