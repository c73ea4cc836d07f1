"""What browsers and phones record, through PyAV; and files that are made to do harm."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni2_engine.audio import media
from omni2_engine.audio.source import read_audio, read_native
from omni2_engine.errors import AudioError

pytest.importorskip("av", reason="needs PyAV; pip install '.[media]' to run this test")

RATE = 16_000
WINDOW = 3.0  # seconds
Tone, Record = Callable[..., np.ndarray], Callable[..., bytes]
KINDS = {  # what writes it: container, codec, rate, channels, whether through a pipe, options
    "Chrome's MediaRecorder": ("webm", "libopus", 48_000, 1, True, {}),
    "a webm file": ("webm", "libopus", 48_000, 2, False, {}),
    "Chrome's webm of PCM": ("matroska", "pcm_f32le", 48_000, 1, True, {}),
    "a phone's m4a": ("ipod", "aac", 44_100, 1, False, {}),
    "Safari's fragmented mp4": ("mp4", "aac", 48_000, 2, True, {"movflags": "frag_keyframe+empty_moov"}),
    "an mp4": ("mp4", "aac", 44_100, 1, False, {}),
    "an iPhone's lossless": ("ipod", "alac", 44_100, 1, False, {}),
    "plain AAC": ("adts", "aac", 16_000, 1, True, {}),
    "a 3gp": ("3gp", "aac", 16_000, 1, False, {}),
    "a QuickTime film": ("mov", "pcm_s16le", 48_000, 2, False, {}),
    "FLAC in Ogg": ("ogg", "flac", 16_000, 1, True, {}),
}


@pytest.fixture(scope="module", params=KINDS)
def recording(request: pytest.FixtureRequest, record: Record, tone: Tone) -> bytes:
    """A second of 440 Hz of every kind."""
    container, codec, rate, channels, piped, options = KINDS[request.param]
    return record(container, codec, tone(1.0, rate), rate, channels=channels, piped=piped, **options)


def is_the_tone(audio: np.ndarray, seconds: float = 1.0) -> bool:
    """440 Hz at 16 kHz, of about this length."""
    inside = audio[RATE // 4 : RATE // 4 + RATE // 2]
    spectrum = np.abs(np.fft.rfft(inside))
    return bool(
        abs(len(audio) / RATE - seconds) < 0.1 and spectrum.argmax() == 220 and 0.4 < np.abs(inside).max() < 0.6
    )


def test_every_kind_in_every_way(recording: bytes, tmp_path: Path) -> None:
    path = tmp_path / "question.bin"
    path.write_bytes(recording)
    with pytest.raises(soundfile.SoundFileError):
        soundfile.read(path)
    with path.open("rb") as file:
        ways = [read_audio(source, None, WINDOW) for source in (recording, path, file, io.BytesIO(recording))]
    assert all(is_the_tone(audio) for audio in ways)
    for audio in ways[1:]:
        np.testing.assert_array_equal(audio, ways[0])


@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("matroska", "pcm_f32le"), ("webm", "libopus")])
@pytest.mark.parametrize("channels", [6, 8])
def test_many_channels(record: Record, tone: Tone, container: str, codec: str, channels: int) -> None:
    surround = record(container, codec, tone(1.0, 48_000), 48_000, channels=channels)
    assert is_the_tone(read_audio(surround, None, WINDOW))


def test_a_recording_with_pictures(record: Record, tone: Tone) -> None:
    film = record("mp4", "aac", tone(1.0, 44_100), 44_100, video=True)
    assert is_the_tone(read_audio(film, None, WINDOW))


def test_without_pyav_the_refusal_names_it(recording: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "installed", lambda: False)
    with pytest.raises(AudioError) as caught:
        read_audio(recording, None, WINDOW)
    assert "pip install 'omni2-engine[media]'" in caught.value.remedy and "ffmpeg" in caught.value.remedy


@pytest.mark.parametrize("piped", [False, True])
def test_too_long(record: Record, tone: Tone, piped: bool) -> None:
    webm = record("webm", "libopus", tone(4.0, 48_000), 48_000, piped=piped)
    with pytest.raises(AudioError, match=r"more than 3\.1 s" if piped else r"lasts 4\.0 s"):
        read_audio(webm, None, WINDOW)
    assert len(read_audio(webm, None, WINDOW, "truncate")) == WINDOW * RATE
    assert 4.0 <= len(read_native(webm)[0]) / 48_000 < 4.1


def test_one_that_breaks_off_is_heard_up_to_there(record: Record, tone: Tone) -> None:
    webm = record("webm", "libopus", tone(2.5, 48_000), 48_000, piped=True)
    whole, half = read_audio(webm, None, WINDOW), read_audio(webm[: len(webm) // 2], None, WINDOW)
    assert 0.8 * RATE < len(half) < 1.7 * RATE
    np.testing.assert_allclose(half[: RATE // 2], whole[: RATE // 2], atol=1e-6)


def test_a_film_without_sound(record: Record, tone: Tone) -> None:
    film = record("mp4", "aac", tone(0), video=True, sound=False)
    with pytest.raises(AudioError, match="no audio track"):
        read_audio(film, None, WINDOW)


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'other.wav'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{folder}/other.wav\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nhttp://localhost:9/other.wav\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        "<MPD><Period><AdaptationSet><Representation><BaseURL>other.wav</BaseURL></Representation></AdaptationSet>"
        "</Period></MPD>",
    ],
    ids=["concat", "m3u8 of files", "m3u8 of the network", "sdp", "dash"],
)
@pytest.mark.parametrize("named", [True, False])
def test_lists_of_other_files_are_not_followed(
    tone: Tone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, named: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / "other.wav", tone(1.0), RATE)
    path = tmp_path / "question.m3u8"
    path.write_text(text.replace("{folder}", str(tmp_path)))
    with pytest.raises(AudioError, match="is not audio"):
        read_audio(path if named else path.read_bytes(), None, WINDOW)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
def test_fuzz_media(recording: bytes, changes: list[tuple[float, int]], kept: float) -> None:
    content = bytearray(recording)
    for place, value in changes:
        content[int(place**3 * len(content))] = value  # the cube prefers the header
    try:
        audio = read_audio(bytes(content[: int(kept * len(content)) + 1]), None, WINDOW, "truncate")
    except AudioError as error:
        assert error.remedy and "\n" not in str(error)
        return
    assert audio.dtype == np.float32
    assert 1 <= len(audio) <= WINDOW * RATE + 1
    assert np.isfinite(audio).all()
