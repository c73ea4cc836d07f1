"""Containers that do not know how long they are: what is there is read."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine.audio.source import SLACK, read_audio, read_native
from omni2_engine.errors import AudioError

RATE = 16_000
WINDOW = 3.0  # seconds
UNKNOWN = [0, 1 << 31, (1 << 31) - 1, 0x7FFFF000, (1 << 32) - 1]  # sizes that recorders leave behind
Tone = Callable[..., np.ndarray]


def write(samples: np.ndarray, format: str, subtype: str | None = None, **more: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=format, subtype=subtype, **more)
    return file.getvalue()


def patched(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def with_sizes(wav: bytes, riff: int, data: int, order: str = "<") -> bytes:
    place = wav.index(b"data") + 4
    return patched(patched(wav, 4, struct.pack(f"{order}I", riff)), place, struct.pack(f"{order}I", data))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "MS_ADPCM"])
@pytest.mark.parametrize("data", UNKNOWN)
@pytest.mark.parametrize("riff", [*UNKNOWN, None], ids=str)
def test_wav(tone: Tone, tmp_path: Path, subtype: str, data: int, riff: int | None) -> None:
    whole = write(tone(0.5), "WAV", subtype)
    damaged = with_sizes(whole, len(whole) - 8 if riff is None else riff, data)
    path = tmp_path / "question.wav"
    path.write_bytes(damaged)
    for source in (damaged, path):
        heard = read_audio(source, None, WINDOW)
        np.testing.assert_array_equal(heard, read_audio(whole, None, WINDOW))


@settings(max_examples=60, deadline=None)
@given(
    st.binary(min_size=2, max_size=400).filter(lambda pcm: len(pcm) % 2 == 0),
    st.lists(st.tuples(st.sampled_from([b"JUNK", b"PAD "]), st.binary(min_size=1, max_size=31)), max_size=3),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
def test_any_wav_header(pcm: bytes, chunks: list[tuple[bytes, bytes]], riff: int, data: int) -> None:
    """A size of 0, or beyond the end, stands for all there is; a smaller one holds."""
    before = b"".join(
        name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2) for name, content in chunks
    )
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    file = struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + before + struct.pack("<4sI", b"data", data) + pcm
    heard = np.frombuffer(pcm, "<i2") / 32_768
    if 0 < data < len(pcm):
        heard = heard[: data // 2]
    if not len(heard):
        return
    np.testing.assert_array_equal(read_audio(file, None, WINDOW), heard.astype(np.float32))


@pytest.mark.parametrize("after", [b"", b"LIST\x04\0\0\0INFO", b"LIST\x05\0\0\0INFOx\0id3 \x02\0\0\0ab"])
@pytest.mark.parametrize("riff", UNKNOWN)
def test_a_wav_that_is_empty_stays_so(tone: Tone, after: bytes, riff: int) -> None:
    header = with_sizes(write(tone(0), "WAV", "PCM_16"), riff, 0)
    with pytest.raises(AudioError, match="empty"):
        read_audio(header[: header.index(b"data") + 8] + after, None, WINDOW)


def test_a_wav_of_silence_is_not_empty() -> None:
    whole = write(np.zeros(RATE, np.float32), "WAV", "PCM_16")
    assert len(read_audio(with_sizes(whole, 0, 0), None, WINDOW)) == RATE


@pytest.mark.parametrize("size", [0, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("format", ["RF64", "W64", "CAF", "RIFX"])
def test_containers_of_64_bits(tone: Tone, format: str, size: int) -> None:
    samples = tone(0.5)
    if format == "RIFX":
        whole = write(samples, "WAV", "PCM_16", endian="BIG")
        assert whole.startswith(b"RIFX")
        damaged = with_sizes(whole, min(size, 2**32 - 1), min(size, 2**32 - 1), ">")
    else:
        whole = write(samples, format, "PCM_16")
        if format == "RF64":  # libsndfile writes a short file as plain WAV unless told otherwise
            whole = as_rf64(whole)
            place, order = whole.index(b"ds64") + 16, "<Q"
        elif format == "W64":
            place, order = whole.rindex(b"data\xf3\xac") + 16, "<Q"
        else:
            place, order = whole.index(b"data") + 4, ">Q"
        damaged = patched(whole, place, struct.pack(order, size))
    np.testing.assert_array_equal(read_audio(damaged, None, WINDOW), read_audio(whole, None, WINDOW))
    assert len(read_audio(whole, None, WINDOW)) == len(samples)


def as_rf64(content: bytes) -> bytes:
    """A WAV file as RF64."""
    if content.startswith(b"RF64"):
        return content
    body = content[content.index(b"fmt ") :]
    place = body.index(b"data") + 4
    size = int.from_bytes(body[place : place + 4], "little")
    wide = struct.pack("<4sIQQQI", b"ds64", 28, len(body) + 40, size, size // 2, 0)
    return b"RF64" + b"\xff" * 4 + b"WAVE" + wide + patched(body, place, b"\xff" * 4)


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("wav", "pcm_s16le", {}),
        ("wav", "pcm_f32le", {"rf64": "always"}),
        ("wav", "pcm_s24le", {}),
        ("wav", "adpcm_ms", {}),
        ("w64", "pcm_s16le", {}),
        ("caf", "pcm_s16le", {}),
        ("au", "pcm_s16be", {}),
        ("aiff", "pcm_s16be", {}),
        ("flac", "flac", {}),
        ("ogg", "libopus", {}),
    ],
)
def test_what_ffmpeg_writes_to_a_pipe(
    tone: Tone,
    record: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
    container: str,
    codec: str,
    options: dict[str, str],
) -> None:
    rate = 48_000 if codec == "libopus" else RATE
    monkeypatch.setattr("omni2_engine.audio.media.installed", lambda: False)  # libsndfile is to read all of these
    heard, its_rate = read_native(record(container, codec, tone(1.0, rate), rate, piped=True, **options))
    assert its_rate == rate and rate <= len(heard) <= 1.03 * rate
    inside = heard[rate // 4 : rate // 4 + rate // 2]
    assert np.abs(np.fft.rfft(inside)).argmax() == 220  # 440 Hz


def with_total(flac: bytes, total: int) -> bytes:
    """A FLAC file that says it has `total` samples."""
    old = int.from_bytes(flac[18:26], "big")
    return patched(flac, 18, (old >> 36 << 36 | total).to_bytes(8, "big"))


@settings(max_examples=30, deadline=None)
@given(st.one_of(st.just(0), st.integers(20_000, 2**36 - 1)))
def test_flac_of_any_promised_length(total: int) -> None:
    samples = (np.arange(20_000) % 1000).astype(np.int16)
    heard = read_audio(with_total(write(samples, "FLAC", "PCM_16"), total), None, WINDOW)
    np.testing.assert_array_equal(heard, (samples / 32_768).astype(np.float32))


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "W64", "CAF", "RF64", "FLAC", "MP3"])
def test_a_file_that_breaks_off_is_heard_up_to_there(tone: Tone, format: str, kept: float) -> None:
    whole = write(tone(2.5), format)
    samples = read_audio(whole, None, WINDOW)
    heard = read_audio(whole[: int(kept * len(whole))], None, WINDOW)
    lost = {"FLAC": 8_192, "MP3": RATE}.get(format, 2_100)  # last frame, header; frames of MP3 differ in size
    assert max(kept * len(samples) - lost, 1) <= len(heard) < len(samples)
    np.testing.assert_array_equal(heard, samples[: len(heard)])


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("over", [1, 0.02, 0.099], ids=str)
def test_what_is_a_little_over_the_window_is_cut(tone: Tone, rate: int, over: float) -> None:
    count = round(WINDOW * rate) + (1 if over == 1 else int(over * rate))
    samples = tone(count / rate, rate)
    assert len(samples) == count
    for source in (samples, write(samples, "FLAC") if rate == RATE else samples):
        assert len(read_audio(source, rate, WINDOW)) == WINDOW * RATE


@settings(max_examples=100, deadline=None)
@given(st.floats(0.5, 40.0), st.floats(0, 2.0))
def test_the_two_lengths_of_a_refusal_differ(window: float, over: float) -> None:
    samples = np.zeros(int((window + over) * 1_000), np.float32)
    seconds = len(samples) / 1_000
    try:
        read_audio(samples, 1_000, window)
    except AudioError as error:
        assert seconds - window >= SLACK
        lasts, hears = map(float, re.findall(r"([\d.]+) s", error.problem))
        assert lasts > hears
    else:
        assert seconds - window < SLACK


def test_longer_than_the_window_by_an_unknown_time(tone: Tone) -> None:
    flac = with_total(write(tone(4.0), "FLAC"), 0)
    with pytest.raises(AudioError, match=r"lasts more than 3\.1 s and the model hears 3 s"):
        read_audio(flac, None, WINDOW)
    assert len(read_audio(flac, None, WINDOW, "truncate")) == WINDOW * RATE


def test_the_given_files(shared: Path) -> None:
    faults = shared / "faults"
    plain = read_audio(faults / "flac_unknown_length.flac", None, 30.0)
    assert len(plain) == 29_680
    assert np.abs(read_audio(faults / "data_size_zero.wav", None, 30.0) - plain).max() < 1e-3
    assert len(read_audio(faults / "30s_and_one_sample.flac", None, 30.0)) == 480_000
