"""Bad input on the command line: one clear sentence with a remedy, an exit code, no traceback, no half-written file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omni2_engine.cli.app import run

from ..waiting import SOON, eventually

QUICK = ["--max-new-tokens", "6", "--max-last-write", "20", "--no-warm-up", "--threads", "1"]


def wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def tone(seconds: float, rate: int = 16_000) -> np.ndarray:
    return (0.2 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def fails(capsys: pytest.CaptureFixture[str], arguments: list[object], *words: str, code: int = 1) -> str:
    """Run a command that must fail with these words, in one sentence and a remedy."""
    assert run([str(argument) for argument in arguments]) == code
    message = capsys.readouterr().err
    assert "Traceback" not in message
    lines = message.strip().splitlines()
    assert lines[0].startswith("error: ") and lines[1].startswith("  try: ") and len(lines) == 2, message
    for word in words:
        assert word in message, message
    return message


@pytest.fixture
def copied(tiny_engine_dir: Path, tmp_path: Path) -> Path:
    """An engine directory to damage."""
    return Path(shutil.copytree(tiny_engine_dir, tmp_path / "engine"))


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(0, np.float32), ["empty"]),
        (np.full(16_000, np.nan, np.float32), ["NaN"]),
        (tone(40.0), ["40.0 s", "--long truncate"]),
    ],
    ids=["empty", "nan", "40 s"],
)
def test_unusable_audio(
    tiny_engine_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], samples: np.ndarray, words: list[str]
) -> None:
    question, answer = wav(tmp_path / "q.wav", samples), tmp_path / "a.wav"
    fails(capsys, ["stream", tiny_engine_dir, question, "-o", answer, *QUICK], *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.wav"]


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        (np.zeros(16_000, np.float32), 16_000),
        (np.array([0.5], np.float32), 16_000),
        (np.stack([tone(1.0, 8_000), -0.5 * tone(1.0, 8_000)], axis=1), 8_000),
    ],
    ids=["silent", "1 sample", "8 kHz stereo"],
)
def test_unusual_audio_is_answered(tiny_engine_dir: Path, tmp_path: Path, samples: np.ndarray, rate: int) -> None:
    answer = tmp_path / "a.wav"
    assert (
        run(["stream", str(tiny_engine_dir), str(wav(tmp_path / "q.wav", samples, rate)), "-o", str(answer), *QUICK])
        == 0
    )
    pcm, out_rate = soundfile.read(answer)
    assert out_rate == 24_000 and len(pcm) > 0 and np.isfinite(pcm).all()


def test_40_seconds_can_be_cut(tiny_engine_dir: Path, tmp_path: Path) -> None:
    question, answer = wav(tmp_path / "q.wav", tone(40.0)), tmp_path / "a.wav"
    assert run(["stream", str(tiny_engine_dir), str(question), "-o", str(answer), "--long", "truncate", *QUICK]) == 0
    assert answer.is_file()


def test_what_is_no_audio(tiny_engine_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "q.wav"
    text.write_text("this is not audio")
    answer = tmp_path / "a.wav"
    fails(capsys, ["stream", tiny_engine_dir, text, "-o", answer, *QUICK], "q.wav")
    fails(capsys, ["stream", tiny_engine_dir, tmp_path / "none.wav", "-o", answer, *QUICK], "none.wav")
    assert not answer.exists()


def test_outputs_that_cannot_be_written(
    tiny_engine_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = wav(tmp_path / "q.wav", tone(1.0))
    fails(capsys, ["stream", tiny_engine_dir, question, "-o", tmp_path / "no" / "a.wav", *QUICK], "a.wav")
    fails(capsys, ["stream", tiny_engine_dir, question, "-o", tmp_path, *QUICK], str(tmp_path))


def test_engine_directories_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["stream", tmp_path / "nothing", "q.wav"], "nothing", "build")
    (tmp_path / "half.partial").mkdir()
    fails(capsys, ["inspect", tmp_path / "half"], "not finished")


def test_damaged_engine_directories(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = copied / "manifest.json"
    whole = manifest.read_text()
    for damaged, word in (
        ("{", "cannot be read"),
        ("[]", "schema"),
        (json.dumps({**json.loads(whole), "schema_version": 99}), "upgrade"),
        (json.dumps({**json.loads(whole), "positions": "many"}), "positions"),
    ):
        manifest.write_text(damaged)
        fails(capsys, ["inspect", copied], word)
    manifest.write_text(whole)
    weights = copied / "graphs" / "llm.weights"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    fails(capsys, ["stream", copied, "q.wav"], "llm.weights", "build")
    weights.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    assert run(["inspect", str(copied)]) == 0
    capsys.readouterr()
    fails(capsys, ["inspect", copied, "--check"], "llm.weights", "corrupt")
    weights.unlink()
    fails(capsys, ["stream", copied, "q.wav"], "llm.weights", "missing")
    weights.write_bytes(content)
    graph = copied / "graphs" / "llm.onnx"
    graph.write_bytes(os.urandom(graph.stat().st_size))
    fails(capsys, ["stream", copied, "q.wav", *QUICK], "llm.onnx")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--seed", "-1"], "seed"),
        (["--temperature", "-2"], "temperature"),
        (["--top-p", "0"], "top-p"),
        (["--voice", "nobody"], "nobody"),
        (["--rate", "3"], "rate"),
        (["--long", "shrink"], "shrink"),
        (["--max-new-tokens", "0"], "max_new_tokens"),
        (["--threads", "0"], "threads"),
        (["--threads", "100000"], "threads"),
        (["--left-context", "inf"], "left_context"),
        (["--max-last-write", "1000000"], "positions"),
        (["--text", "both"], "spoken or typed"),
        (["--max-context", "1"], "max_context"),
    ],
)
def test_settings_that_make_no_sense(
    tiny_engine_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], word: str
) -> None:
    question = wav(tmp_path / "q.wav", tone(1.0))
    fails(
        capsys, ["stream", tiny_engine_dir, question, "-o", tmp_path / "a.wav", "--no-warm-up", *options], word, code=2
    )
    assert not (tmp_path / "a.wav").exists()


def test_a_context_too_small_for_one_turn(
    tiny_engine_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = wav(tmp_path / "q.wav", tone(1.0))
    arguments = ["stream", tiny_engine_dir, question, "-o", tmp_path / "a.wav", "--no-warm-up", "--max-context", "20"]
    fails(capsys, arguments, "positions", "max_context")
    assert not (tmp_path / "a.wav").exists() and not list(tmp_path.glob("*.partial"))


def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stream"]) == 2
    assert run(["dance"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "omni2_engine.cli.app", *map(str, arguments)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_behind(tiny_engine_dir: Path, tmp_path: Path, number: signal.Signals) -> None:
    question = wav(tmp_path / "q.wav", tone(1.0))
    arguments = [
        "stream",
        tiny_engine_dir,
        question,
        "-o",
        tmp_path / "a.wav",
        "--max-new-tokens",
        "3000",
        "--no-warm-up",
    ]
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        partial = tmp_path / "a.wav.partial"
        eventually(lambda: (partial.exists() and partial.stat().st_size > 0) or process.poll() is not None)
        process.send_signal(number)
        _, message = process.communicate(timeout=SOON)
    assert process.returncode == 130
    assert "Traceback" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.wav"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 0)])
def test_signals_of_a_background_job(tiny_engine_dir: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """A script's background jobs begin with SIGINT ignored, but are to stop; `nohup` ignores SIGHUP and means it."""
    arguments = command("stream", tiny_engine_dir, wav(tmp_path / "q.wav", tone(1.0)), "-o", tmp_path / "a.wav", *QUICK)
    ignoring = (
        "import os, signal, sys; signal.signal(int(sys.argv[1]), signal.SIG_IGN); os.execv(sys.argv[2], sys.argv[2:])"
    )
    arguments = [sys.executable, "-c", ignoring, str(int(number)), *arguments]
    if number is signal.SIGINT:
        arguments += ["--max-new-tokens", "3000"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        eventually(lambda: (tmp_path / "a.wav.partial").exists() or process.poll() is not None)
        process.send_signal(number)
        process.communicate(timeout=SOON)
    assert process.returncode == code
    assert (tmp_path / "a.wav").exists() == (code == 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_text_that_cannot_be_shown_is_one_sentence(tiny_engine_dir: Path, tmp_path: Path) -> None:
    question = wav(tmp_path / "q.wav", tone(1.0))
    with open("/dev/full", "wb") as full:
        arguments = command("stream", tiny_engine_dir, question, "-o", tmp_path / "a.wav", *QUICK)
        result = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, check=False)
    assert result.returncode != 0 and result.stderr.startswith(b"error: ") and b"Traceback" not in result.stderr


@pytest.mark.parametrize(("closed", "word"), [(0, "standard input"), (1, "standard output")])
def test_closed_streams_are_one_sentence(tiny_engine_dir: Path, question: Path, closed: int, word: str) -> None:
    arguments = command("stream", tiny_engine_dir, question if closed else "-", "-o", "-", *QUICK)
    closing = "import os, sys; os.close(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
    result = subprocess.run([sys.executable, "-c", closing, str(closed), *arguments], capture_output=True, check=False)
    message = result.stderr.decode()
    assert result.returncode == 1 and word in message and "Traceback" not in message


def test_raw_samples_on_a_pipe_equal_the_wav(tiny_engine_dir: Path, tmp_path: Path) -> None:
    question = wav(tmp_path / "q.wav", tone(1.0))
    answer = tmp_path / "a.wav"
    assert run(["stream", str(tiny_engine_dir), str(question), "-o", str(answer), *QUICK]) == 0
    result = subprocess.run(
        command("stream", tiny_engine_dir, "-", "-o", "-", *QUICK),
        input=question.read_bytes(),
        capture_output=True,
        check=True,
    )
    samples, _ = soundfile.read(answer, dtype="int16")
    np.testing.assert_array_equal(np.frombuffer(result.stdout, "<i2"), samples)
    assert b"chunk" in result.stderr  # what a person reads is not among the samples


def test_a_reader_that_goes_away_is_no_error(tiny_engine_dir: Path, tmp_path: Path) -> None:
    question = wav(tmp_path / "q.wav", tone(1.0))
    arguments = ["stream", tiny_engine_dir, question, "-o", "-", "--no-warm-up"]
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        message = process.stderr.read()
    assert process.returncode == 0 and b"Traceback" not in message
