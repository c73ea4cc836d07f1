"""`omni2-engine`: the engine's own commands, and those that the floors above add through entry points."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import EntryPoint, distributions, version
from importlib.util import find_spec
from types import FrameType
from typing import Annotated

import typer

from omni2_engine.audio.sink import ReaderGone, silence
from omni2_engine.cli import doctor, inspect, stream, talk
from omni2_engine.cli.terminal import one_line, replace_what_is_missing
from omni2_engine.errors import Omni2Error, SettingError

NAME = "omni2-engine"
COMMANDS = "omni2_engine.commands"  # entry-point group
INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
USAGE = 2
# typer brings click along under one name or another, so its base error is found through a child that typer exports
CliError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def make_app() -> typer.Typer:
    """The command line with every installed command."""
    app = typer.Typer(
        name=NAME,
        help="Speech in, text and speech out, streamed, for LLaMA-Omni2 models.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )

    @app.callback()
    def options(
        wanted: Annotated[
            bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
        ] = False,
    ) -> None:
        """Speech in, text and speech out, streamed, for LLaMA-Omni2 models."""

    for command in (stream, talk, inspect, doctor):
        command.register(app)
    for _, point in sorted(_commands_above().items()):
        point.load()(app)
    return app


def _commands_above() -> dict[str, EntryPoint]:
    """What the floors above add, by name: of several the first on the path whose module is there.

    All distributions are asked: `entry_points` takes the first one of a name, and in a checkout's root that is metadata
    of an earlier build (`omni2_engine.egg-info`), which knows no newer command, and may know one that has gone.
    """
    points = [point for each in distributions() for point in each.entry_points.select(group=COMMANDS)]
    return {point.name: point for point in reversed(points) if _is_there(point.module)}


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is its package
        return False


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"omni2-engine {version('omni2-engine')}")
        raise typer.Exit


def main() -> None:
    """Run the command line; every error becomes one sentence and an exit code."""
    replace_what_is_missing()
    # what a script starts in the background has SIGINT ignored, and Python would leave it so
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # `kill` and a closed terminal leave no half-written files either
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup wants it ignored
            signal.signal(number, _interrupt)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command.

    Args:
        arguments: as on the command line, without the program's name.

    Returns:
        The exit code: 0 done, 1 something is wrong with the input or the machine, 2 wrong usage, 130 interrupted.
    """
    try:
        result = make_app()(arguments, prog_name=NAME, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Exit as leaving:
        return leaving.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except CliError as error:
        error.show()  # type: ignore[attr-defined]
        return USAGE
    except ReaderGone:
        return 0
    except BrokenPipeError:
        silence(sys.stdout)
        return 0
    except Omni2Error as error:
        _show(error.problem, error.remedy)
        return USAGE if isinstance(error, SettingError) else 1
    except OSError as error:
        _show(str(error), "look at free space and permissions where that is")
        return 1
    except MemoryError:
        _show("this machine's memory is used up", "a smaller --precision or --max-context")
        return 1


def _show(problem: str, remedy: str) -> None:
    """Print an error, a line each; names in it may hold any character."""
    print(f"error: {one_line(problem)}", file=sys.stderr)
    if remedy:
        print(f"  try: {one_line(remedy)}", file=sys.stderr)


class Terminated(KeyboardInterrupt):
    """`kill`, or a terminal that was closed; unlike Ctrl-C it does not merely end a recording."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Terminated


if __name__ == "__main__":
    main()
