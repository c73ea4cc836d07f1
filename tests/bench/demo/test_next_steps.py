"""What the demo says at its end is true: its commands work as typed, and its questions are answered right."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from omni2_bench.demo.next_steps import QUESTIONS, next_steps
from omni2_engine import Engine

ANSWERS = (
    "fourteen", "forty two", "twelve", "Wednesday", "twenty eight", "five o'clock", "Five, four, three, two, one",
    "W, A, T, E, R", "Berlin", "Omni",
)  # fmt: skip
VOICES: dict[str, Callable[[str, Path], list[str]]] = {
    "en-us": lambda text, wav: ["espeak-ng", "-v", "en-us", "-s", "150", "-w", str(wav), text],
    "en-gb+f3": lambda text, wav: ["espeak-ng", "-v", "en-gb+f3", "-s", "160", "-w", str(wav), text],
    "slt": lambda text, wav: ["flite", "-voice", "slt", "-t", text, "-o", str(wav)],
    "rms": lambda text, wav: ["flite", "-voice", "rms", "-t", text, "-o", str(wav)],
}


def test_every_command_works_as_typed(
    demo_engine_dir: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = next_steps(demo_engine_dir, repository / "examples")
    commands = re.findall(r"^  (/.*)$", text, re.MULTILINE)
    assert len(commands) == 3
    run = partial(subprocess.run, shell=True, check=True, capture_output=True, text=True)
    said = [run(command).stdout for command in commands]
    assert "The capital of Scotland is Edinburgh." in said[0]
    assert json.loads(said[1])["text"] == "The capital of Scotland is Edinburgh."
    assert "The capital of Scotland is Edinburgh." in said[2] and "The word road is spelled R, O, A, D." in said[2]
    assert (tmp_path / "capital.wav").stat().st_size > 10_000


def test_paths_are_as_short_as_a_person_would_type_them(
    demo_engine_dir: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo_engine_dir.parent)
    assert "The engine is in engine." in next_steps(demo_engine_dir, repository / "examples")


@pytest.mark.parametrize("voice", VOICES)
def test_the_questions_are_answered_right_in_voices_it_may_be_asked_in(
    demo_engine_dir: Path, tmp_path: Path, voice: str
) -> None:
    speak = VOICES[voice]
    if shutil.which(speak("", tmp_path)[0]) is None:
        pytest.skip(f"{speak('', tmp_path)[0]} is not installed")
    engine = Engine.load(demo_engine_dir, warm_up=False)
    for number, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        wav = tmp_path / f"{number}.wav"
        subprocess.run(speak(question, wav), check=True, capture_output=True)
        assert answer in "".join(chunk.text for chunk in engine.stream(wav)), question
