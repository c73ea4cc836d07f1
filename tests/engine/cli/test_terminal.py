"""What a terminal is shown: any text on any encoding, nothing that garbles it, names as they are spelled."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from omni2_engine.cli.app import run
from omni2_engine.cli.terminal import Terminal, one_line, printable

QUICK = ["--max-new-tokens", "6", "--max-last-write", "20", "--chunks", "fixed", "--no-warm-up", "--threads", "1"]
MARKUP = "[bold]x[_bold] :smile: [red]"  # a name of a file


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A second of a tone."""
    path = tmp_path / "q.wav"
    samples = 0.2 * np.sin(np.arange(16_000) / 10)
    soundfile.write(path, samples, 16_000)
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "omni2_engine", *map(str, arguments)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\tb\nc", "a\tb\nc"),
        ("10\u00a0000\u202f€", "10\u00a0000\u202f€"),  # no-break spaces
        ("日本\u3000語", "日本\u3000語"),
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم"),  # joiners
        ("🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", None),
        ("e\u0301 नमस्ते", None),
        ("soft\u00adhyphen \u200bzero \u2060width \ufeff", None),
        ("private \ue000, unassigned \U0001fbff", None),
        ("a\x1b[2Jb\x07\x00\x7f\x9b\r", "a\ufffd[2Jb\ufffd\ufffd\ufffd\ufffd\ufffd"),
        ("\u202egnp.exe\u202c \u2066x\u2069 \u200fy", "gnp.exe x y"),
        ("line\u2028end\u2029", "line\nend\n"),
        ("half \ud83d", "half \ufffd"),
    ],
)
def test_characters(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)


@given(st.text())
def test_no_text_moves_the_cursor_or_fails(text: str) -> None:
    for made in (printable(text), one_line(text)):
        made.encode("utf-8")
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in made.replace("\n", "").replace("\t", ""))
    assert "\n" not in one_line(text) and printable(printable(text)) == printable(text)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-8:strict", "latin-1:strict"])
def test_encodings_that_lack_a_character(encoding: str) -> None:
    text = "日本\u3000語 – 👩\u200d🚀\u00a0→ \ud83d"
    program = (
        "from omni2_engine.cli.terminal import Terminal, replace_what_is_missing\n"
        "import sys\n"
        "replace_what_is_missing()\n"
        f"Terminal(sys.stdout).write({text!r})\n"
        f"print({text!r}, file=sys.stderr)\n"
    )
    env = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True)
    name = encoding.partition(":")[0]
    assert done.stdout == printable(text).encode(name, "replace")
    assert done.stderr == (text + "\n").encode(name, "replace")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_turn_on_any_encoding(tiny_engine_dir: Path, tmp_path: Path, spoken: Path, encoding: str) -> None:
    """Random weights say anything; and the table of chunks has a dash."""
    expected, answer = tmp_path / "expected.wav", tmp_path / "a.wav"
    assert run(["stream", str(tiny_engine_dir), str(spoken), "-o", str(expected), *QUICK]) == 0
    env = os.environ | {"PYTHONIOENCODING": encoding}
    arguments = command("stream", tiny_engine_dir, spoken, "-o", answer, *QUICK)
    done = subprocess.run(arguments, env=env, capture_output=True, check=True)
    assert done.stderr == b"" and b"chunk   0" in done.stdout
    assert answer.read_bytes() == expected.read_bytes()
    for other in (["stream", "--help"], ["inspect", tiny_engine_dir]):
        subprocess.run(command(*other), env=env, capture_output=True, check=True)


def test_a_reader_that_goes_away_leaves_a_whole_answer(tiny_engine_dir: Path, tmp_path: Path, spoken: Path) -> None:
    """`omni2-engine stream … -o answer.wav | head -1`, from before the first character on."""
    expected, answer = tmp_path / "expected.wav", tmp_path / "a.wav"
    assert run(["stream", str(tiny_engine_dir), str(spoken), "-o", str(expected), *QUICK]) == 0
    for stream in ("stdout", "stderr"):
        reading, writing = os.pipe()
        os.close(reading)
        arguments = command("stream", tiny_engine_dir, spoken, "-o", answer if stream == "stdout" else "-", *QUICK)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: writing}
        done = subprocess.run(arguments, check=False, **pipes)  # type: ignore[call-overload]
        os.close(writing)
        assert done.returncode == 0
        if stream == "stdout":
            assert done.stderr == b"" and answer.read_bytes() == expected.read_bytes()
        else:
            samples, _ = soundfile.read(expected, dtype="int16")
            np.testing.assert_array_equal(np.frombuffer(done.stdout, "<i2"), samples)


def test_a_terminal_says_no_more_once_its_reader_has_gone() -> None:
    class Gone(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            raise BrokenPipeError

    gone = Gone()
    terminal = Terminal(gone)
    terminal.write("one")
    terminal.write("two")
    assert gone.writes == 1
    Terminal(None).write("nothing")


def test_names_with_markup_are_literal(
    tiny_engine_dir: Path, tmp_path: Path, spoken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / MARKUP
    shutil.copytree(tiny_engine_dir, engine)
    manifest = engine / "manifest.json"
    name = "m[bold]y[/bold] :smile: model"
    manifest.write_text(manifest.read_text().replace('"name": "', f'"name": "{name}', 1))
    voice = next((engine / "voices").glob("*.npy"))
    shutil.copy(voice, engine / "voices" / "[red]v.npy")
    assert run(["inspect", str(engine)]) == 0
    shown = capsys.readouterr().out
    assert name in shown and "[red]v" in shown
    assert run(["doctor", str(engine)]) in (0, 1)
    assert str(engine) in capsys.readouterr().out
    answer = engine / "[bold]a.wav"
    assert run(["stream", str(engine), str(spoken), "-o", str(answer), *QUICK]) == 0
    assert f"wrote {answer}" in capsys.readouterr().out
    for arguments in (["inspect", f"{MARKUP} none"], ["stream", str(engine), f"{MARKUP}.wav"]):
        assert run(arguments) == 1
        assert MARKUP in capsys.readouterr().err


def test_names_with_control_characters_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "a\x1b[2J\nb\u202ec"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "\x1b" not in lines[0] and "a\ufffd[2J\ufffdbc" in lines[0]
