"""Audio in and out: any input becomes finite 16 kHz samples or one clear error; outputs are whole or absent."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from omni2_engine.audio.sink import RawWriter, ReaderGone, WavWriter, open_writer
from omni2_engine.audio.source import read_audio, read_native
from omni2_engine.errors import AudioError, Omni2Error, SettingError

RATE = 16_000
WINDOW = 3.0  # seconds
fuzz = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav_bytes(samples: np.ndarray, rate: int, format: str = "WAV", subtype: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


# -- input -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_rate_and_channel_count(rate: int, channels: int) -> None:
    one = tone(1.0, rate)
    other = tone(1.0, rate, 1_000)
    stack = np.stack([one] + [other] * (channels - 1), axis=1)
    audio = read_audio(wav_bytes(stack, rate), None, WINDOW)
    expected = tone(1.0) / channels + tone(1.0, hertz=1_000) * (channels - 1) / channels
    assert audio.dtype == np.float32
    assert len(audio) == RATE
    inside = slice(400, -400)  # resampling rings at the ends
    assert np.abs(audio[inside] - expected[inside]).max() < 2e-3


@pytest.mark.parametrize(
    ("format", "subtype"), [("WAV", "PCM_24"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None)]
)
def test_any_format(format: str, subtype: str | None) -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(1.0, 24_000), 24_000, format=format, subtype=subtype)
    audio = read_audio(file.getvalue(), None, WINDOW)
    spectrum = np.abs(np.fft.rfft(audio[2_000:14_000]))
    assert abs(spectrum.argmax() * RATE / 12_000 - 440) < 3
    assert abs(len(audio) - RATE) < 2_000


def test_every_way_to_hand_in_the_same_audio(tmp_path: Path) -> None:
    path = tmp_path / "question.wav"
    path.write_bytes(wav_bytes(tone(0.5), RATE))
    with path.open("rb") as file:
        sources: list[Any] = [path, str(path), path.read_bytes(), file]
        ways = [read_audio(source, None, WINDOW) for source in sources]
    ways.append(read_audio(tone(0.5), RATE, WINDOW))
    ways.append(read_audio(np.stack([tone(0.5)] * 2, axis=1).astype(np.float64), RATE, WINDOW))
    for audio in ways:
        assert np.array_equal(audio, tone(0.5))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([0, 16_384, -32_768], np.int16), [0, 0.5, -1]),
        (np.array([0, 2**30, -(2**31)], np.int32), [0, 0.5, -1]),
        (np.array([128, 192, 0], np.uint8), [0, 0.5, -1]),
        (np.array([[0, 16_384], [16_384, 16_384]], ">i2"), [0.25, 0.5]),
        (np.array([0, 0.5, -1], np.float16), [0, 0.5, -1]),
    ],
)
def test_sample_types(samples: np.ndarray, expected: list[float]) -> None:
    assert read_audio(samples, RATE, WINDOW).tolist() == expected


def test_silence_and_single_samples_are_audio() -> None:
    assert not read_audio(np.zeros(RATE, np.int16), RATE, WINDOW).any()
    assert read_audio(np.array([0.5], np.float32), RATE, WINDOW).tolist() == [0.5]
    for rate in (8_000, 44_100, 48_000):
        assert 1 <= len(read_audio(np.array([0.5], np.float32), rate, WINDOW)) <= 3


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_too_long(rate: int) -> None:
    exact, longer = tone(WINDOW, rate), tone(WINDOW + 1, rate)
    assert len(read_audio(exact, rate, WINDOW)) == WINDOW * RATE
    for source in (longer, wav_bytes(longer, rate)):
        with pytest.raises(AudioError, match=r"lasts 4\.0 s and the model hears 3 s.*--long truncate"):
            read_audio(source, rate, WINDOW)
        assert len(read_audio(source, rate, WINDOW, "truncate")) == WINDOW * RATE
    with pytest.raises(SettingError, match="truncate"):
        read_audio(exact, rate, WINDOW, "cut")
    assert len(read_native(longer, rate)[0]) == len(longer)


def test_unusable_input_gets_one_sentence(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not audio")
    cases: list[tuple[Any, int | None, str]] = [
        (tmp_path / "missing.wav", None, "no file"),
        (tmp_path, None, "cannot be read"),
        ("a\0b", None, "cannot be read"),
        (text, None, "not audio"),
        (b"", None, "not audio"),
        (io.StringIO("text"), None, "open as text"),
        (wav_bytes(np.zeros(0, np.float32), RATE), None, "empty"),
        (wav_bytes(np.array([0, np.nan], np.float32), RATE), None, "not numbers"),
        (np.array([np.inf]), RATE, "not numbers"),
        (np.array([1e300]), RATE, "not numbers"),
        (np.array([20_000.0]), RATE, "full scale"),
        (np.zeros(0, np.float32), RATE, "empty"),
        (np.zeros(3, np.float32), None, "do not say their rate"),
        (np.zeros((1, 48_000), np.float32), RATE, "shape"),
        (np.zeros((3, 0), np.float32), RATE, "shape"),
        (np.float32(1), RATE, "cannot be read from"),
        (np.zeros((), np.float32), RATE, "shape"),
        (np.zeros(3, np.int64), RATE, "type int64"),
        (np.zeros(3, np.complex64), RATE, "type complex64"),
        (np.zeros(3, np.float32), 1, "1 Hz"),
        (np.zeros(3, np.float32), 2**40, "Hz"),
        (wav_bytes(tone(0.1), 999), None, "999 Hz"),
        ([0.0, 1.0], RATE, "NumPy array"),
    ]
    for source, rate, message in cases:
        with pytest.raises(AudioError, match=message) as caught:
            read_audio(source, rate, WINDOW)
        assert caught.value.remedy
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")  # a traceback printed by a callback is a warning here
def test_damaged_file_prints_no_traceback() -> None:
    for kept in range(1, 60):
        for format in ("AIFF", "CAF", "AU", "WAV"):
            finite_or_refused(wav_bytes(tone(0.1), RATE, format, "PCM_16")[:kept] + bytes([255]) * 40, None)


def finite_or_refused(source: Any, rate: int | None) -> None:
    try:
        audio = read_audio(source, rate, WINDOW, "truncate")
    except Omni2Error as error:
        assert isinstance(error, AudioError)
        return
    assert audio.dtype == np.float32
    assert 1 <= len(audio) <= WINDOW * RATE + 1
    assert np.isfinite(audio).all()


@fuzz
@given(st.binary(max_size=400))
def test_fuzz_bytes(content: bytes) -> None:
    finite_or_refused(content, None)


@fuzz
@given(
    st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
def test_fuzz_damaged_files(format: str, changes: list[tuple[float, int]], kept: float) -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(0.1, 8_000), 8_000, format=format)
    content = bytearray(file.getvalue())
    for place, value in changes:
        content[int(place**3 * len(content))] = value  # the cube prefers the header
    finite_or_refused(bytes(content[: int(kept * len(content)) + 1]), None)


@fuzz
@given(
    rate=st.integers(0, 2**32 - 1),
    channels=st.integers(0, 2**16 - 1),
    bits=st.sampled_from([0, 8, 12, 16, 24, 32, 64]),
    code=st.sampled_from([1, 3, 6, 7, 0xFFFE]),
    size=st.integers(0, 2**32 - 1),
)
def test_fuzz_wav_headers_that_promise_anything(rate: int, channels: int, bits: int, code: int, size: int) -> None:
    block = channels * bits // 8 % 2**16
    header = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", size, b"WAVE", b"fmt ", 16, code, channels, rate, rate, block, bits
    )
    finite_or_refused(header + struct.pack("<4sI", b"data", size) + bytes(range(256)) * 4, None)


@fuzz
@given(
    arrays(
        st.sampled_from([np.float32, np.float64, np.int16, np.int32, np.int8, np.uint8, np.uint16, np.bool_]),
        st.one_of(st.tuples(st.integers(0, 50)), st.tuples(st.integers(0, 50), st.integers(0, 3))),
    ),
    st.one_of(st.integers(-5, 200_000), st.sampled_from([8_000, 16_000, 44_100])),
)
def test_fuzz_arrays(samples: np.ndarray, rate: int) -> None:
    finite_or_refused(samples, rate)


# -- output ------------------------------------------------------------------------------------------------------------


def test_wav_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "answer.wav"
    with open_writer(path, 24_000) as writer:
        writer.write(tone(0.1, 24_000))
        writer.write(np.array([2, -2, np.nan], np.float32))
        assert not path.exists()
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 24_000
    assert len(samples) == 2_403
    assert samples[-3:].tolist() == [32_767, -32_767, 0]
    assert np.abs(samples[:2400] / 32_767 - tone(0.1, 24_000)).max() < 1e-4

    before = path.read_bytes()
    for interruption in (KeyboardInterrupt, AudioError):
        with pytest.raises(interruption), open_writer(path, 24_000) as writer:
            writer.write(tone(0.2, 24_000))
            raise interruption("stop")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["answer.wav"]


def test_turn_without_sound_makes_an_empty_wav_file(tmp_path: Path) -> None:
    with open_writer(str(tmp_path / "answer.wav"), 24_000, 16_000):
        pass
    assert soundfile.info(tmp_path / "answer.wav").frames == 0


def test_unwritable_output_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "file").touch()
    for target, problem in [
        (tmp_path / "nowhere" / "answer.wav", "no folder"),
        (tmp_path / "file" / "answer.wav", "no folder"),
        (tmp_path / "folder.wav", "not a regular file"),
        (tmp_path / "a\0b.wav", "cannot be written"),
        (tmp_path / "answer.mp3", "does not end in .wav"),
        (tmp_path / ("long" * 100 + ".wav"), "cannot be written"),
    ]:
        with pytest.raises(AudioError, match=problem) as caught:
            open_writer(target, 24_000)
        assert caught.value.remedy
    with pytest.raises(SettingError, match="rate is 3"):
        open_writer(tmp_path / "answer.wav", 24_000, 3)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.wav"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk() -> None:
    with open("/dev/full", "wb") as full, pytest.raises(AudioError, match="No space left"):
        RawWriter(full, 24_000).write(tone(1, 24_000))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None)
def test_resampled_stream_does_not_depend_on_its_chunks(rate: int, sizes: list[int]) -> None:
    speech = tone(sum(sizes) / 24_000, 24_000)
    outputs = []
    for chunks in (np.split(speech, np.cumsum(sizes)[:-1]), [speech]):
        stream = io.BytesIO()
        with open_writer(stream, 24_000, rate) as writer:
            for chunk in chunks:
                writer.write(chunk)
        outputs.append(np.frombuffer(stream.getvalue(), "<i2"))
    assert len(outputs[0]) == len(outputs[1])
    assert abs(len(outputs[0]) - len(speech) * rate / 24_000) <= 1
    assert np.abs(outputs[0].astype(int) - outputs[1]).max(initial=0) <= 1
    inside = slice(600, -600)
    expected = tone(len(outputs[0]) / rate, rate)[inside]
    assert np.abs(outputs[0][inside] / 32_767 - expected).max(initial=0) < 2e-3


def test_a_gone_reader_ends_quietly() -> None:
    """`… | head -c 100`: one recognisable error, and nothing on standard error from the interpreter's own flush."""
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
import numpy as np
from omni2_engine.audio.sink import ReaderGone, open_writer
writer = open_writer("-", 24_000)
try:
    for _ in range(1000):
        writer.write(np.zeros(24_000, np.float32))
except ReaderGone:
    sys.exit(3)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(100) == bytes(100)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 3
    assert issubclass(ReaderGone, AudioError)


def test_wav_writer_removes_its_file_when_closing_fails(tmp_path: Path) -> None:
    path = tmp_path / "answer.wav"
    with pytest.raises(AudioError, match="cannot be written"), WavWriter(path, 24_000) as writer:
        writer.write(tone(0.1, 24_000))
        path.mkdir()  # takes the name before the file gets it
    assert os.listdir(tmp_path) == ["answer.wav"]
