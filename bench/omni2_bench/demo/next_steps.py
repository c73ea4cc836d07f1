"""What the demo prints at its end: where the engine is, commands to go on with, and what may be asked."""

from __future__ import annotations

import sys
from pathlib import Path

# Each is answered right in every voice it was tried in: two of flite's, two of espeak-ng's.
QUESTIONS = (
    "What is eight plus six?",
    "Multiply six by seven.",
    "Please tell me twenty minus eight.",
    "What day comes after Tuesday?",
    "How many days does February have?",
    "It is three o'clock now. What time will it be in two hours?",
    "Count down from five to one.",
    "Please spell water.",
    "What is the capital of Germany?",
    "What is your name?",
)


def next_steps(engine: Path, examples: Path) -> str:
    """Lines of text; its commands work as they stand in the current directory.

    Args:
        engine: the engine directory.
        examples: holds `questions/` and `several_turns.py`.
    """
    engine, examples = _from_here(engine), _from_here(examples)
    python = _from_here(Path(sys.executable))
    program, questions = python.parent / "omni2-engine", examples / "questions"
    commands = {
        "another question, its answer in capital.wav": (
            f"{program} stream {engine} {questions / '135-0.ogg'} -o capital.wav"
        ),
        "the same answer's figures as JSON": (
            f"{program} stream {engine} {questions / '135-0.ogg'} -o capital.wav --json"
        ),
        "a conversation from Python": (
            f"{python} {examples / 'several_turns.py'} {engine} {questions / '135-0.ogg'} {questions / '112-0.ogg'}"
        ),
    }
    lines = [f"The engine is in {engine}. What to do next:", ""]
    for purpose, command in commands.items():
        lines += [f"  # {purpose}", f"  {command}"]
    lines += ["", "Ask in a recording of your own, make demo QUESTION=my.wav, for example:", ""]
    lines += [f"  {question}" for question in QUESTIONS]
    lines += [
        "",
        "It was taught spoken and typed questions of these kinds. In a conversation it is not given the earlier turns",
        "unless asked to.",
    ]
    return "\n".join(lines)


def _from_here(path: Path) -> Path:
    """Relative to the current directory if it lies below. Links are not followed: `.venv/bin/python` is one."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
