"""A server under load for hours: memory, threads and descriptors stay flat, and every answer is accounted for.

python -m omni2_bench.lab.soak ENGINE --out soak --hours 2 --rate 0.1
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omni2_engine.cli.require import require


def main(
    engine: Annotated[Path, typer.Argument(help="engine directory")],
    questions: Annotated[list[Path], typer.Option("--question", "-q", help="recordings of questions, or folders")],
    out: Annotated[Path, typer.Option(help="directory for results")],
    hours: Annotated[float, typer.Option(help="for how long conversations begin")] = 2.0,
    rate: Annotated[float, typer.Option(help="conversations that begin per second")] = 0.1,
    conversations: Annotated[int | None, typer.Option(min=1, help="that many at most")] = None,
    sessions: Annotated[int, typer.Option(min=1, help="places of the server")] = 8,
    turns: Annotated[int, typer.Option(min=1, help="questions of a conversation")] = 4,
    think: Annotated[float, typer.Option(min=0, help="mean seconds between an answer and the next question")] = 2.0,
    interrupts: Annotated[float, typer.Option(min=0, max=1, help="share of answers interrupted")] = 0.1,
    vanishes: Annotated[float, typer.Option(min=0, max=1, help="share of conversations that break off")] = 0.05,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between samples")] = 5.0,
    warm_up: Annotated[float, typer.Option(min=0, help="seconds that do not count for trends")] = 600.0,
    patience: Annotated[float, typer.Option(min=1, help="seconds after which a caller gives up")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="names all random draws")] = 0,
) -> None:
    """Start `omni2-engine serve`, load it, and judge: exit code 1 where something grows, is lost or is left."""
    require("bench", "matplotlib", "websockets")
    require("serve", "starlette", "uvicorn", "prometheus_client")
    from omni2_bench.load.command import recordings_in
    from omni2_bench.load.visits import Behaviour
    from omni2_bench.soak.run import SoakPlan, run

    behaviour = Behaviour(rate, 3600 * hours, turns, think, interrupts, vanishes, seed)
    plan = SoakPlan(
        engine, recordings_in(questions), behaviour, conversations, sessions, every, warm_up, patience=patience
    )
    raise typer.Exit(1 if run(plan, out, typer.echo).problems else 0)


if __name__ == "__main__":
    typer.run(main)
