"""`omni2-engine bench live`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = "recordings of questions, or folders of them"


def register(bench: typer.Typer) -> None:
    """Add the command to `omni2-engine bench`."""

    @bench.command()
    def live(
        engine: Annotated[Path, typer.Argument(help="engine directory")],
        questions: Annotated[list[Path], typer.Option("--question", "-q", help=EXAMPLES)],
        out: Annotated[Path, typer.Option(help="directory for results")],
        silences: Annotated[str, typer.Option(help="seconds that end a question; several with commas")] = "0.2,0.3,0.5",
        conversations: Annotated[str, typer.Option(help="at once; several with commas")] = "1,2,4,8",
        turns: Annotated[int, typer.Option(min=2, help="questions of a conversation")] = 4,
        rounds: Annotated[int, typer.Option(min=1, help="times that everything is measured")] = 1,
        threads: Annotated[int | None, typer.Option(min=1, help="processor threads of the server")] = None,
        seed: Annotated[int, typer.Option(min=0, help="names all random draws")] = 0,
    ) -> None:
        """From the end of speech to the decision and the first sound, with and without speculation; interruption."""
        from omni2_engine.cli.require import require

        require("bench", "matplotlib", "websockets")
        require("serve", "starlette", "uvicorn", "prometheus_client")
        from omni2_bench.live.results import LivePlan, run
        from omni2_bench.load.command import numbers, recordings_in

        plan = LivePlan(
            engine=engine,
            questions=recordings_in(questions),
            silences=numbers(silences),
            conversations=[int(number) for number in numbers(conversations)],
            turns=turns,
            rounds=rounds,
            threads=threads,
            seed=seed,
        )
        typer.echo(run(plan, out, typer.echo))
