"""What the flow loses with fewer steps, by its solver's rule, against ten steps of Euler's method.

python -m omni2_bench.lab.flow_solvers ENGINE --questions examples/questions
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from omni2_bench.common.results import table
from omni2_bench.quality import opinion
from omni2_bench.quality.answers import answer_all
from omni2_bench.quality.judge import Judge, Score
from omni2_bench.quality.questions import read_questions
from omni2_engine import Engine
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.model.config import EULER_STEPS
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.stages.flow_solver import FlowSolver, SolverRule
from omni2_engine.stages.speech_decoder import SpeechDecoder, load_decoder
from omni2_export.verify.rows import snr

Floats = NDArray[np.float32]
SECONDS = 3  # of sound of a random utterance
SEED = 0


@dataclass(frozen=True)
class SpokenUnits:
    """What is said: units, and their text where it is known."""

    units: list[int]
    text: str = ""


@dataclass(frozen=True)
class SolverFinding:
    """One row: decibels of the mel over its difference from ten Euler steps, the mean of that difference, time of the
    flow relative to theirs, word error rate and mean opinion score where judges heard it."""

    solver: FlowSolver
    kept: float
    distance: float
    seconds: float
    wer: float | None
    opinion: float | None


def main(
    engine: Annotated[Path, typer.Argument(help="engine directory")],
    questions: Annotated[
        Path | None, typer.Option(help="folder of questions whose answers are said; else noise")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="utterances at most")] = 40,
    steps: Annotated[str, typer.Option(help="numbers of steps, separated by commas")] = "10,7,6,5,4,3",
    rules: Annotated[str, typer.Option(help="of the solver, separated by commas")] = ",".join(SolverRule),
    judged: Annotated[bool, typer.Option(help="let judges hear answers, which takes most of the time")] = True,
    threads: Annotated[int, typer.Option(min=1, help="processor threads")] = 1,
) -> None:
    """Measure, and print the table of docs/less_work.md."""
    directory = EngineDirectory(engine)
    said = answers(directory, questions, most, threads) if questions else list(noise(directory, most))
    solvers = [FlowSolver(int(count), SolverRule(rule)) for rule in rules.split(",") for count in steps.split(",")]
    judge = Judge(threads) if questions and judged else None
    rows = [_row(finding) for finding in measure(directory, said, solvers, judge, threads)]
    typer.echo(table(["rule, steps", "mel, dB", "mean difference", "time of the flow", "word errors", "DNSMOS"], rows))


def answers(directory: EngineDirectory, questions: Path, most: int, threads: int) -> list[SpokenUnits]:
    """What the engine answers to a set of questions, taken at equal distances from it."""
    conversations = read_questions(questions)
    conversations = conversations[:: -(-len(conversations) // most)]
    with Engine.load(directory.path, threads=threads) as loaded:
        given = answer_all(loaded, conversations, SEED)
        return [SpokenUnits(a.units, a.text) for a in given if len(a.units) >= loaded.pipeline.decoder.fewest_units]


def noise(directory: EngineDirectory, count: int) -> Iterator[SpokenUnits]:
    """Utterances of units that are drawn evenly."""
    c, random = directory.manifest.model.flow_encoder, np.random.default_rng(SEED)
    for _ in range(count):
        yield SpokenUnits(random.integers(c.units, size=SECONDS * c.unit_rate).tolist())


def measure(
    directory: EngineDirectory, said: list[SpokenUnits], solvers: list[FlowSolver], judge: Judge | None, threads: int
) -> Iterator[SolverFinding]:
    """Say everything with every solver, for a judge to hear if there is one."""
    expected, usual = _mels(_decoder(directory, FlowSolver(), threads), directory, said)
    whole = np.concatenate(expected)
    for solver in solvers:
        decoder = _decoder(directory, solver, threads)
        found, seconds = _mels(decoder, directory, said)
        error = np.concatenate(found) - whole
        wer, rated = _judged(decoder, said, found, judge) if judge else (None, None)
        kept = snr(np.concatenate(found).astype(np.float64), whole.astype(np.float64))
        yield SolverFinding(solver, kept, float(np.abs(error).mean()), seconds / usual, wer, rated)


def _decoder(directory: EngineDirectory, solver: FlowSolver, threads: int) -> SpeechDecoder:
    return load_decoder(directory, OnnxRuntimeBackend(threads), solver=solver)


def _mels(decoder: SpeechDecoder, directory: EngineDirectory, said: list[SpokenUnits]) -> tuple[list[Floats], float]:
    """Mel (frames, mel) of every utterance in one call each, in the default voice; seconds of processor time."""
    embedding = np.load(directory.path / "voices" / f"{directory.manifest.default_voice}.npy")
    speaker = decoder.flow.speaker_features(embedding.astype(np.float32))
    began = time.process_time()
    mels = [decoder.run_flow(decoder.new_state(speaker), utterance.units, final=True).copy() for utterance in said]
    return mels, time.process_time() - began


def _judged(
    decoder: SpeechDecoder, said: list[SpokenUnits], mels: list[Floats], judge: Judge
) -> tuple[float, float | None]:
    """Word error rate of the sound, and its mean opinion score if that can be predicted here."""
    score, rate, opinions = Score(), decoder.config.sample_rate, list[float]()
    for utterance, mel in zip(said, mels, strict=True):
        speaker = np.zeros((1, decoder.config.mel), np.float32)  # the vocoder knows no voice
        pcm = decoder.run_vocoder(decoder.new_state(speaker), mel, True, SEED, 0)
        score.add(utterance.text, judge.hear(pcm, rate))
        if opinion.installed():
            opinions.append(opinion.overall(pcm, rate))
    return score.rate, float(np.mean(opinions)) if opinions else None


def _row(finding: SolverFinding) -> list[str]:
    solver = finding.solver
    original = solver.steps == EULER_STEPS and solver.rule is SolverRule.EULER
    return [
        f"{solver.rule}, {solver.steps}",
        "same" if original else f"{finding.kept:.1f}",
        f"{finding.distance:.3f}",
        f"{finding.seconds:.2f}",
        "" if finding.wer is None else f"{100 * finding.wer:.1f} %",
        "" if finding.opinion is None else f"{finding.opinion:.3f}",
    ]


if __name__ == "__main__":
    typer.run(main)
