"""`omni2-engine stream` for programs and for people: JSON, logs, help, versions, completion, a sign of life."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from omni2_engine.cli.app import run
from omni2_engine.model.manifest import MANIFEST

QUICK = ["--max-new-tokens", "8", "--max-last-write", "20", "--threads", "1"]
COMMAND = [sys.executable, "-m", "omni2_engine"]


def stream(engine: Path, question: Path, output: Path, *options: str) -> int:
    return run(["stream", str(engine), str(question), "-o", str(output), *QUICK, *options])


def test_json_is_all_there_is_on_standard_output(
    tiny_engine_dir: Path, question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stream(tiny_engine_dir, question, tmp_path / "a.wav", "--json") == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert shown.err == ""
    assert set(told) == {"schema_version", "text", "finish_reason", "output", "chunks", "metrics"}
    assert told["finish_reason"] == told["metrics"]["finish_reason"] in ("end", "limit")
    assert told["output"] == str(tmp_path / "a.wav")
    chunks = told["chunks"]
    assert len(chunks) == told["metrics"]["chunks"] >= 1
    assert all(set(c) == {"index", "start", "duration", "ready", "start_in", "units", "text"} for c in chunks)
    assert sum(c["duration"] for c in chunks) == pytest.approx(told["metrics"]["audio_seconds"])
    assert told["metrics"]["start_in"] == chunks[0]["start_in"] and told["metrics"]["underrun"] >= 0
    assert told["metrics"]["first_chunk"] == chunks[0]["ready"]


def test_json_and_sound_cannot_share_standard_output(
    tiny_engine_dir: Path, question: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["stream", str(tiny_engine_dir), str(question), "-o", "-", "--json"]) == 2
    assert "both need standard output" in capsys.readouterr().err


def test_the_table_counts_gaps_from_when_a_player_may_start(
    tiny_engine_dir: Path, question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stream(tiny_engine_dir, question, tmp_path / "a.wav") == 0
    said = capsys.readouterr().out
    assert "first chunk " in said and "a player that starts " in said and "runs dry for " in said


def test_the_log_has_one_line_and_the_warm_up_none(
    tiny_engine_dir: Path, question: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="omni2_engine.turn"):
        assert stream(tiny_engine_dir, question, tmp_path / "a.wav", "--log", "-q", "--warm-up") == 0
    (line,) = caplog.records
    assert json.loads(line.message)["turn"] == 0


@pytest.mark.parametrize("command", [COMMAND, [str(Path(sys.executable).parent / "omni2-engine")]])
def test_the_version_is_told(command: list[str]) -> None:
    told = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True).stdout
    assert told == f"omni2-engine {version('omni2-engine')}\n"


def test_help_groups_the_options_and_gives_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stream", "--help"]) == 0
    said = capsys.readouterr().out
    assert "omni2-engine stream ENGINE question.wav -o answer.wav" in said
    positions = [said.index(f"─ {group} ─") for group in ("Question", "Answer", "Sampling", "Machine and memory")]
    assert positions == sorted(positions) and said.index("--temperature") > positions[2]
    assert "[default: growing]" in said  # of --chunks: a user at a terminal compares no samples


def test_a_shell_completes_commands_and_options() -> None:
    for words, found in (("omni2-engine str", "stream"), ("omni2-engine stream --jso", "--json")):
        environment = {
            **os.environ,
            "_OMNI2_ENGINE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        told = subprocess.run(COMMAND, env=environment, capture_output=True, text=True).stdout
        assert found in told.split()


def test_a_typed_question_is_refused_before_loading_where_none_was_taught(
    tiny_engine_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "engine"
    engine.mkdir()
    for item in tiny_engine_dir.iterdir():
        if item.name != MANIFEST:
            (engine / item.name).symlink_to(item)
    manifest = json.loads((tiny_engine_dir / MANIFEST).read_text())
    manifest["model"]["capabilities"] = {"typed_turns": False, "history_turns": 0}
    (engine / MANIFEST).write_text(json.dumps(manifest))
    asked = ["stream", str(engine), "--text", "hello", "-o", str(tmp_path / "a.wav"), *QUICK]
    assert run(asked) == 2
    assert "was not taught typed questions" in (error := capsys.readouterr().err) and "--typed-turns" in error
    assert not (tmp_path / "a.wav").exists()
    assert run([*asked, "--typed-turns", "--no-warm-up"]) == 0


def test_loading_shows_on_a_terminal_that_something_happens(
    tiny_engine_dir: Path, question: Path, tmp_path: Path
) -> None:
    arguments = [*COMMAND, "stream", str(tiny_engine_dir), str(question), "-o", str(tmp_path / "a.wav"), *QUICK]
    screen, terminal = pty.openpty()
    seen = b""
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=terminal, env=environment) as it:
        os.close(terminal)
        try:
            while data := os.read(screen, 4096):
                seen += data
        except OSError:  # Linux's way to say that the other end is closed
            pass
    os.close(screen)
    assert it.returncode == 0 and b"Loading the engine" in seen
    piped = subprocess.run(arguments, check=True, capture_output=True)
    assert piped.stderr == b""
