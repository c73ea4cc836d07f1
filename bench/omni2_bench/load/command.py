"""`omni2-engine bench serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = "recordings of questions, or folders of them"
SOUND = (".wav", ".flac", ".ogg", ".mp3")  # what is taken of a folder


def register(bench: typer.Typer) -> None:
    """Add the command to `omni2-engine bench`."""

    @bench.command()
    def serve(
        url: Annotated[str, typer.Argument(help="of any Realtime server: ws://127.0.0.1:8080/v1/realtime?model=omni2")],
        questions: Annotated[list[Path], typer.Option("--question", "-q", help=EXAMPLES)],
        out: Annotated[Path, typer.Option(help="directory for results")],
        rate: Annotated[str, typer.Option(help="conversations that begin per second; several with commas")] = "0.1",
        slo: Annotated[
            str | None,
            typer.Option(help="bounds such as first_sound_p95<1.0,continuity>0.99: search the highest rate"),
        ] = None,
        seconds: Annotated[float, typer.Option(min=1, help="for how long conversations begin, each trial")] = 60.0,
        turns: Annotated[int, typer.Option(min=1, help="questions of a conversation")] = 4,
        think: Annotated[float, typer.Option(min=0, help="mean seconds between an answer and the next question")] = 2.0,
        interrupts: Annotated[float, typer.Option(min=0, max=1, help="share of answers interrupted")] = 0.1,
        vanishes: Annotated[float, typer.Option(min=0, max=1, help="share of conversations that break off")] = 0.05,
        silence: Annotated[float, typer.Option(min=0.1, help="seconds of silence that end a question")] = 0.5,
        patience: Annotated[float, typer.Option(min=1, help="seconds after which a caller gives up")] = 30.0,
        key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="API key")] = None,
        seed: Annotated[int, typer.Option(min=0, help="names all random draws")] = 0,
    ) -> None:
        """Conversations with a Realtime server, as many as it can bear: first sound, gaps, refusals."""
        from omni2_engine.cli.require import require

        require("bench", "matplotlib", "websockets")
        from omni2_bench.load.caller import Server
        from omni2_bench.load.objectives import parse_objectives
        from omni2_bench.load.results import LoadPlan, run
        from omni2_bench.load.visits import Behaviour

        rates = numbers(rate)
        behaviour = Behaviour(rates[0], seconds, turns, think, interrupts, vanishes, seed)
        objectives = parse_objectives(slo) if slo else []
        plan = LoadPlan(Server(url, key, silence, patience), behaviour, rates, objectives, recordings_in(questions))
        typer.echo(run(plan, out, typer.echo))


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    from omni2_engine.errors import SettingError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SettingError(f"{text!r} are no numbers", "give some like 0.1,0.2") from None


def recordings_in(places: list[Path]) -> list[Path]:
    """The files named, and those of the folders named, in the order of their names."""
    from omni2_engine.errors import SettingError

    found: list[Path] = []
    for place in places:
        inside = sorted(path for path in place.iterdir() if path.suffix.lower() in SOUND) if place.is_dir() else []
        found += inside if place.is_dir() else [place]
    if not found:
        raise SettingError("there is no recording", "name files or folders with --question")
    return found
