"""The question on the command line: raw samples, standard input, swapped arguments, interruptions."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omni2_engine import Engine
from omni2_engine.cli.app import run
from omni2_engine.errors import EngineDirectoryError

from ...waiting import SOON

QUICK = ["--max-new-tokens", "6", "--max-last-write", "20", "--chunks", "fixed", "--no-warm-up", "--threads", "1"]
RATE = 16_000


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return (0.2 * np.sin(np.arange(RATE) / 10) * 32_767).astype(np.int16)


@pytest.fixture
def spoken(samples: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "q.wav"
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture
def expected(tiny_engine_dir: Path, tmp_path: Path, spoken: Path) -> bytes:
    """The answer to the same question from a WAV file."""
    path = tmp_path / "expected.wav"
    assert run(["stream", str(tiny_engine_dir), str(spoken), "-o", str(path), *QUICK]) == 0
    return path.read_bytes()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "omni2_engine", *map(str, arguments)]


def fails(capsys: pytest.CaptureFixture[str], arguments: list[object], *words: str, code: int) -> None:
    assert run([str(argument) for argument in arguments]) == code
    message = capsys.readouterr().err
    lines = message.strip().splitlines()
    assert lines[0].startswith("error: ") and lines[1].startswith("  try: ") and len(lines) == 2, message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("options", "dtype", "channels"),
    [
        ([], "<i2", 1),
        (["--input-format", "S16_LE", "--input-channels", "2"], "<i2", 2),
        (["--input-format", "f32le"], "<f4", 1),
        (["--input-format", "s16be", "--input-channels", "3"], ">i2", 3),
    ],
)
def test_raw_samples(
    tiny_engine_dir: Path,
    tmp_path: Path,
    samples: np.ndarray,
    expected: bytes,
    options: list[str],
    dtype: str,
    channels: int,
) -> None:
    data = samples / np.float32(32_768) if dtype == "<f4" else samples
    raw = np.repeat(data.astype(dtype), channels).tobytes()
    file = tmp_path / "q.raw"
    file.write_bytes(raw)
    for question, stdin in (("-", raw), (file, b"")):
        answer = tmp_path / "a.wav"
        arguments = ["stream", tiny_engine_dir, question, "--input-rate", RATE, *options, "-o", answer, *QUICK]
        subprocess.run(command(*arguments), input=stdin, capture_output=True, check=True)
        assert answer.read_bytes() == expected


def test_a_wav_is_one_though_raw_samples_were_announced(
    tiny_engine_dir: Path, tmp_path: Path, spoken: Path, expected: bytes
) -> None:
    """`arecord` writes WAV unless told otherwise."""
    answer = tmp_path / "a.wav"
    arguments = command("stream", tiny_engine_dir, "-", "--input-rate", 16_000, "-o", answer, *QUICK)
    subprocess.run(arguments, input=spoken.read_bytes(), capture_output=True, check=True)
    assert answer.read_bytes() == expected


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not say what a process does")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 130)])
def test_ctrl_c_ends_the_recording(
    tiny_engine_dir: Path, tmp_path: Path, samples: np.ndarray, expected: bytes, number: signal.Signals, code: int
) -> None:
    """`arecord -t raw … | omni2-engine stream ENGINE - --input-rate 16000`, and Ctrl-C."""
    answer = tmp_path / "a.wav"
    arguments = command("stream", tiny_engine_dir, "-", "--input-rate", RATE, "-o", answer, *QUICK)
    reading, writing = os.pipe()
    with subprocess.Popen(arguments, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.close(reading)
        os.write(writing, samples.tobytes())
        while not (is_empty(writing) and is_asleep(process.pid)):  # it has read them, and waits for more
            assert process.poll() is None
            os.sched_yield()
        process.send_signal(number)
        _, message = process.communicate(timeout=SOON)
        os.close(writing)
    assert process.returncode == code and b"Traceback" not in message
    assert (answer.read_bytes() == expected) if code == 0 else not answer.exists()


def is_empty(pipe: int) -> bool:
    return not int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)


def is_asleep(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_microphone_that_never_stops_is_left_at_the_window(tiny_engine_dir: Path, tmp_path: Path) -> None:
    arguments = ["stream", tiny_engine_dir, "-", "--input-rate", RATE, "-o", tmp_path / "a.wav", *QUICK]
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(command(*arguments), stdin=endless, capture_output=True, check=False)
        assert done.returncode == 1 and b"the model hears 10 s" in done.stderr
        subprocess.run(command(*arguments, "--long", "truncate"), stdin=endless, capture_output=True, check=True)


def test_raw_settings_that_make_no_sense(
    tiny_engine_dir: Path, tmp_path: Path, spoken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["stream", tiny_engine_dir, spoken, "-o", tmp_path / "a.wav", *QUICK]
    fails(capsys, [*start, "--input-format", "s16le"], "--input-rate", code=2)
    fails(capsys, [*start, "--input-channels", "1"], "--input-rate", code=2)
    fails(capsys, [*start, "--input-rate", "16000", "--input-format", "mp3"], "mp3", "s16le", code=2)
    fails(capsys, [*start, "--input-rate", "16000", "--input-channels", "0"], "channels", code=2)
    fails(capsys, [*start, "--input-rate", "3"], "3 Hz", code=1)
    raw = tmp_path / "q.raw"
    raw.write_bytes(os.urandom(1000))
    fails(capsys, ["stream", tiny_engine_dir, raw, *start[3:]], "--input-rate", code=1)
    fails(capsys, ["stream", tiny_engine_dir, "none.raw", *start[3:], "--input-rate", "16000"], "none.raw", code=1)
    assert not (tmp_path / "a.wav").exists()


def test_standard_input_that_holds_nothing(tiny_engine_dir: Path, tmp_path: Path) -> None:
    arguments = command("stream", tiny_engine_dir, "-", "-o", tmp_path / "a.wav", *QUICK)
    for more in ([], ["--input-rate", "16000"]):
        done = subprocess.run([*arguments, *more], input=b"", capture_output=True, check=False)
        assert done.returncode == 1 and done.stderr.startswith(b"error: ") and b"Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_swapped_arguments(
    tiny_engine_dir: Path, tmp_path: Path, spoken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for first in (spoken, tmp_path / "nothing.wav", tmp_path):
        fails(capsys, ["stream", first, tiny_engine_dir], "look swapped", str(first), str(tiny_engine_dir), code=2)
    fails(capsys, ["stream", spoken, tiny_engine_dir / "manifest.json"], "look swapped", code=2)
    fails(capsys, ["stream", spoken, tmp_path / "none.wav"], "it is a file", code=1)
    fails(capsys, ["stream", spoken, "x" * 5_000], "it is a file", code=1)
    with pytest.raises(EngineDirectoryError, match="it is a file"):
        Engine.load(spoken)


def test_a_manifest_stands_for_its_engine(
    tiny_engine_dir: Path, tmp_path: Path, spoken: Path, expected: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, answer = tiny_engine_dir / "manifest.json", tmp_path / "a.wav"
    assert run(["stream", str(manifest), str(spoken), "-o", str(answer), *QUICK]) == 0
    assert answer.read_bytes() == expected
    assert run(["inspect", str(manifest), "--check"]) == 0
    capsys.readouterr()
    other = tmp_path / "manifest.json"
    other.mkdir()
    fails(capsys, ["inspect", other], "it has no manifest.json", code=1)


@pytest.mark.parametrize("library", ["typer", "numpy", "onnxruntime", "soundfile"])
def test_ctrl_c_while_libraries_are_loaded(tmp_path: Path, library: str) -> None:
    """Also where a library catches the exception in its import."""
    (tmp_path / f"{library}.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    import time; time.sleep(60)\n"
        "except BaseException as error:\n    raise ImportError('swallowed') from None\n"
    )
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command("stream", "e", "q"), env=env, capture_output=True, check=False, timeout=SOON)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"interrupted\n")
