"""What overlapping stages bring one conversation on this machine, against one step at a time.

python -m omni2_bench.lab.overlap --size 0.5B --audio question.wav
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from omni2_bench.common.models import built_engine, default_cache, released_model
from omni2_bench.common.process import run_worker
from omni2_bench.common.results import table
from omni2_bench.common.statistics import Summary, summarise
from omni2_bench.latency.turn import TURN, TurnRequest, TurnResult

WIDTHS = {"serial": 1, "overlapping": None}  # calls at once; None is the engine's own
MOMENTS: dict[str, Callable[[TurnResult], float]] = {
    "first chunk": lambda result: result.ready[0],
    "answer": lambda result: result.finished,
}


def main(
    size: Annotated[str, typer.Option(help="of the random checkpoint")],
    audio: Annotated[Path, typer.Option(help="spoken question, and the voice to answer in")],
    precision: Annotated[str, typer.Option(help="preset of the engine")] = "exact",
    rounds: Annotated[int, typer.Option(help="how often everything runs")] = 3,
    threads: Annotated[int, typer.Option(help="processor threads")] = 2,
    chunks: Annotated[int, typer.Option(help="of the answer")] = 12,
) -> None:
    """Measure interleaved rounds, and print medians with p10 to p90."""
    engine = built_engine(released_model(size), precision, audio, default_cache())
    with tempfile.TemporaryDirectory() as folder:
        found = gains(measure(engine, audio, rounds, threads, chunks, Path(folder)))
    rows = [
        [moment, *(f"{summary.median:.2f} ({summary.p10:.2f} to {summary.p90:.2f})" for summary in row.values())]
        for moment, row in found.items()
    ]
    typer.echo(table(["", "one step at a time, s", "overlapping, s", "gain"], rows))


def measure(
    engine: Path, audio: Path, rounds: int, threads: int, chunks: int, folder: Path
) -> dict[str, list[TurnResult]]:
    """Turns with one step at a time and with overlapping ones, each in a process of its own.

    Args:
        engine: directory.
        audio: the spoken question.
        rounds: how often everything runs.
        threads: processor threads.
        chunks: of the answer.
        folder: takes the sound of the last turns, `serial.npy` and `overlapping.npy`.
    """
    results: dict[str, list[TurnResult]] = {name: [] for name in WIDTHS}
    for number in range(rounds):
        for name in list(WIDTHS)[:: 1 if number % 2 == 0 else -1]:
            pcm = str((folder / f"{name}.npy").resolve())
            request = TurnRequest("engine", str(engine), str(audio.resolve()), pcm, threads, chunks)
            record = run_worker(TURN, asdict(request) | {"width": WIDTHS[name]}, threads)
            results[name].append(TurnResult.from_json(record))
    return results


def gains(results: dict[str, list[TurnResult]]) -> dict[str, dict[str, Summary]]:
    """Seconds to the first chunk and to the answer's end, and serial over overlapping, round by round."""
    found = {}
    for moment, of in MOMENTS.items():
        seconds = {name: [of(result) for result in turns] for name, turns in results.items()}
        ratios = [a / b for a, b in zip(seconds["serial"], seconds["overlapping"], strict=True)]
        found[moment] = {name: summarise(values) for name, values in seconds.items()} | {"gain": summarise(ratios)}
    return found


if __name__ == "__main__":
    typer.run(main)
