"""The demo, run as `make demo` runs it but for its size: sound, picture and words."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib import image
from rich.console import Console

from omni2_bench import demo
from omni2_bench.plot import DYNAMIC_RANGE, mel_filters, mel_spectrogram, plot_answer
from omni2_bench.random_checkpoint import PRESETS
from omni2_engine.errors import Omni2Error
from omni2_engine.metrics import TurnMetrics


def run(output: Path, cache: Path, examples: Path) -> tuple[TurnMetrics, str]:
    """Run the demo and return its metrics and what it printed."""
    output.mkdir()
    printed = io.StringIO()
    console = Console(file=printed, width=160)
    metrics = demo.run(output, examples, cache, PRESETS["tiny"], console)
    return metrics, printed.getvalue()


def test_demo_twice(tmp_path: Path, repository: Path) -> None:
    metrics, printed = run(tmp_path / "first", tmp_path / "cache", repository / "examples")
    pcm, rate = soundfile.read(tmp_path / "first" / "answer.wav", dtype="int16")
    assert rate == 24_000
    assert 3.0 <= len(pcm) / rate <= 8.0
    assert pcm.std() / 32768 > 0.01
    assert np.abs(pcm).max() < 32767  # nothing clips
    assert metrics.finish_reason == "end"

    assert "random weights" in printed
    assert printed.count("  chunk ") == metrics.chunks >= 4
    assert "First chunk after" in printed
    assert "FM+Voc" in printed
    assert "Real-time factor" in printed

    picture = image.imread(tmp_path / "first" / "answer.png")[..., :3]
    assert picture.shape[0] > 600
    for third in np.array_split(picture, 3):
        assert third.std() > 0.05, "a part of the picture is blank"

    _, again = run(tmp_path / "second", tmp_path / "cache", repository / "examples")
    assert "Wrote a random checkpoint" in printed
    assert "Wrote a random checkpoint" not in again
    np.testing.assert_array_equal(soundfile.read(tmp_path / "second" / "answer.wav", dtype="int16")[0], pcm)


def test_missing_recordings_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(Omni2Error, match=r"question\.wav is missing"):
        run(tmp_path / "out", tmp_path / "cache", tmp_path)
    assert not (tmp_path / "cache").exists()


def test_an_error_ends_in_one_line_and_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "REPOSITORY", tmp_path)
    assert demo.main() == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_the_demo_needs_no_torch() -> None:
    code = "import omni2_bench.demo, sys; assert not {'torch', 'transformers'} & set(sys.modules)"
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
