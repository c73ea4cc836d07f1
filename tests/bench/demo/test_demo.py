"""The demo, run as `make demo` runs it but for its size: sound, picture and words."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib import image
from rich.console import Console

from omni2_bench.common.mel import DYNAMIC_RANGE, mel_filters, mel_spectrogram
from omni2_bench.demo import __main__ as demo
from omni2_bench.demo.plot import plot_answer
from omni2_engine.errors import Omni2Error
from omni2_engine.turn.metrics import TurnMetrics


def run(output: Path, cache: Path, repository: Path, question: Path | None = None) -> tuple[TurnMetrics, str]:
    """Run the demo and return its metrics and what it printed."""
    output.mkdir()
    printed = io.StringIO()
    console = Console(file=printed, width=160)
    examples = repository / "examples"
    metrics = demo.run(output, question or examples / demo.QUESTION, examples, cache, console)
    return metrics, printed.getvalue()


def written(folder: Path) -> dict[Path, int]:
    """When each part of an engine was written last; its manifest is written each time."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_sum_is_answered_twice_alike(tmp_path: Path, repository: Path) -> None:
    metrics, printed = run(tmp_path / "first", tmp_path / "cache", repository)
    assert "Seven plus five is twelve." in re.sub(r"(\s+chunk \d.*)+\s+", " ", printed)
    assert metrics.finish_reason == "end"
    pcm, rate = soundfile.read(tmp_path / "first" / "answer.wav", dtype="int16")
    assert rate == 24_000
    assert 1.0 <= len(pcm) / rate <= 4.0
    assert pcm.std() / 32768 > 0.01
    assert np.abs(pcm).max() < 32767  # nothing clips

    assert printed.count("  chunk ") == metrics.chunks >= 2
    assert "First chunk after" in printed
    assert "FM+Voc" in printed
    assert "Real-time factor" in printed

    picture = image.imread(tmp_path / "first" / "answer.png")[..., :3]
    assert picture.shape[0] > 600
    for third in np.array_split(picture, 3):
        assert third.std() > 0.05, "a part of the picture is blank"

    built = written(tmp_path / "cache" / "engine")
    assert built
    run(tmp_path / "second", tmp_path / "cache", repository)
    assert written(tmp_path / "cache" / "engine") == built, "the engine was built again"
    np.testing.assert_array_equal(soundfile.read(tmp_path / "second" / "answer.wav", dtype="int16")[0], pcm)


def test_another_question_may_be_asked(tmp_path: Path, repository: Path) -> None:
    """One far from what it was trained on: it may say anything, and ends by itself."""
    question = repository / "examples" / "question.wav"
    metrics, printed = run(tmp_path / "out", tmp_path / "cache", repository, question)
    assert metrics.finish_reason == "end"
    assert metrics.audio_seconds > 0.5
    assert "question.wav" in printed


def test_the_model_is_small_enough_for_a_repository(repository: Path) -> None:
    files = [file for file in (repository / "examples" / demo.MODEL).rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".txt", ".yaml", ".onnx"}
    assert sum(file.stat().st_size for file in files) <= 45e6


def test_missing_recordings_are_one_clear_error(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(Omni2Error, match=r"sum\.wav is missing"):
        demo.run(tmp_path, tmp_path / "sum.wav", repository / "examples", tmp_path / "cache", Console())
    with pytest.raises(Omni2Error, match=r"voice\.wav is missing"):
        demo.run(tmp_path, repository / "examples" / "question.wav", tmp_path, tmp_path / "cache", Console())
    assert not (tmp_path / "cache").exists()


def test_an_error_ends_in_one_line_and_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "REPOSITORY", tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo"])
    assert demo.main() == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_the_demo_needs_no_torch() -> None:
    code = "import omni2_bench.demo.__main__, sys; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mel_spectrogram_finds_a_tone() -> None:
    rate, tone = 24_000, 1000.0
    pcm = np.sin(2 * np.pi * tone * np.arange(rate) / rate).astype(np.float32)
    mel = mel_spectrogram(pcm, rate)
    assert mel.shape == (80, 101)
    assert mel.max() == 0
    assert mel.min() >= -DYNAMIC_RANGE
    centres = mel_filters(481, rate) @ np.linspace(0, rate / 2, 481)
    assert centres[mel[:, 50].argmax()] == pytest.approx(tone, rel=0.05)


def test_an_answer_without_sound_is_drawn(tmp_path: Path) -> None:
    plot_answer(tmp_path / "empty.png", np.zeros(0, np.float32), 24_000, [], TurnMetrics())
    assert image.imread(tmp_path / "empty.png").shape[0] > 600
