"""What goes into a live conversation: frames of any kind, calls between them, more than the model hears."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni2_engine.audio.frames import StreamingResampler, checked_rate, mono_frame
from omni2_engine.errors import AudioError, SettingError
from omni2_engine.live.detection.base import RATE, WINDOW
from omni2_engine.live.settings import Detection
from omni2_engine.live.speech_buffer import SpeechBuffer

from .hearing import Said, hear, listen, live_input
from .scenes import noise, recording, silence

SOUND = 0.25 * noise(0.5)


@pytest.mark.parametrize(
    ("frame", "exact"),
    [
        (SOUND, 0.0),
        (SOUND.astype(np.float64), 0.0),
        ((SOUND * 2**15).round().astype(np.int16), 2**-15),
        ((SOUND * 2**31).astype(np.int64).astype(np.int32), 2**-23),
        ((SOUND * 127 + 128).round().astype(np.uint8), 2**-6),
        (np.stack([SOUND, SOUND], axis=1), 1e-7),
        ((SOUND * 2**15).round().astype("<i2").tobytes(), 2**-15),
        (bytearray((SOUND * 2**15).round().astype("<i2").tobytes()), 2**-15),
        (memoryview((SOUND * 2**15).round().astype("<i2").tobytes()), 2**-15),
    ],
)
def test_a_frame_may_be_of_any_kind(frame: Any, exact: float) -> None:
    samples = mono_frame(frame)
    assert samples.dtype == np.float32 and np.abs(samples - SOUND).max() <= exact


def test_a_frame_may_be_used_again() -> None:
    """A recorder fills the same memory anew."""
    frame = SOUND.copy()
    samples = mono_frame(frame)
    frame[:] = 0
    assert np.array_equal(samples, SOUND)


@pytest.mark.parametrize(
    "frame", [b"abc", "sound", [0.0], np.zeros((2, 2, 2)), np.zeros(3, complex), np.array([np.nan], np.float32)]
)
def test_what_is_no_sound_is_refused(frame: Any) -> None:
    with pytest.raises(AudioError):
        mono_frame(frame)


def test_an_impossible_rate_is_refused() -> None:
    with pytest.raises(AudioError, match="5 Hz"):
        checked_rate(5)
    with pytest.raises(SettingError, match="sample_rate"):
        checked_rate("fast")  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 3000), max_size=20), st.sampled_from([8_000, 22_050, 48_000]))
def test_resampling_does_not_depend_on_frames(lengths: list[int], rate: int) -> None:
    sound = noise(1.0)
    once, resampler = StreamingResampler(), StreamingResampler()
    whole = np.concatenate([once(sound, rate), once.flush()])
    assert len(whole) == pytest.approx(len(sound) * RATE / rate, abs=1)
    pieces = [resampler(frame, rate) for frame in np.split(sound, np.cumsum(lengths))]
    assert np.array_equal(np.concatenate([*pieces, resampler.flush()]), whole)


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100, 48_000, 96_000])
def test_resampling_keeps_what_16_khz_can_hold_and_nothing_else(rate: int) -> None:
    time, wanted = np.arange(rate) / rate, np.arange(RATE) / RATE
    for hertz in (100, 1_000, 3_000, 7_000, 10_000, 15_000):
        if hertz < 0.45 * rate:
            resampler = StreamingResampler()
            tone = np.sin(2 * np.pi * hertz * time).astype(np.float32)
            heard = np.concatenate([resampler(tone, rate), resampler.flush()])
            middle = slice(1_000, 15_000)
            if hertz < RATE / 2:  # within 0.1 ms of its place
                phase = np.exp(-2j * np.pi * hertz * wanted[middle])
                gain = 2 * np.mean(heard[middle] * phase)
                assert abs(gain) == pytest.approx(1, abs=0.01)
                late = -np.angle(gain * 1j) / (2 * np.pi * hertz) % (1 / hertz)
                assert min(late, 1 / hertz - late) < 2e-4
            else:
                assert np.abs(heard[middle]).max() < 1e-4


@pytest.mark.parametrize(("rate", "lag"), [(8_000, 0.031), (24_000, 0.015), (44_100, 0.015), (48_000, 0.015)])
def test_resampling_lags_little(rate: int, lag: float) -> None:
    resampler, made = StreamingResampler(), 0
    for number in range(1, 100):
        made += len(resampler(np.zeros(rate // 50, np.float32), rate))
        assert number * (rate // 50) / rate - made / RATE < lag


def test_the_rate_may_change() -> None:
    resampler = StreamingResampler()
    pieces = [resampler(noise(rate / RATE), rate) for rate in (16_000, 48_000, 8_000, 16_000)]
    assert sum(map(len, pieces)) == 4 * RATE


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 60)), max_size=30))
def test_the_buffer_keeps_what_is_asked_for(steps: list[tuple[int, int]]) -> None:
    """Against a list of all samples; it keeps at most 100."""
    buffer, everything, begin, end = SpeechBuffer(100), np.zeros(0, np.float32), 0, 0
    for added, forgotten in steps:
        new = np.arange(len(everything), len(everything) + added, dtype=np.float32)
        everything = np.concatenate([everything, new])
        buffer.append(new)
        end = end if end < len(everything) - added else min(len(everything), begin + 100)  # once full, until emptied
        held = buffer.between(0, len(everything))
        assert buffer.position == len(everything) and len(held) <= 100
        assert np.array_equal(held, everything[begin : begin + len(held)])
        assert begin + len(held) == end
        begin = max(begin, min(begin + forgotten, len(everything)))
        buffer.forget_before(begin)
        if begin >= end:
            begin = end = len(everything)


def test_push_to_talk() -> None:
    one, heard = live_input(None)
    sound = noise(1.0)
    one.add((sound[:4000], RATE), (sound[4000:10_000], RATE), one.flush, one.commit)
    one.add((sound[10_000:], RATE), one.flush, one.commit, one.flush, one.commit, one.flush, one.end)
    listen(one)
    assert [call[0] for call in heard.told] == ["sound_committed", "sound_committed", "failed", "input_ended"]
    assert heard.told[0][1:] == (0, 10_000, True) and heard.told[1][1:] == (10_000, 16_000, True)
    assert np.array_equal(np.concatenate(heard.sounds), sound)


def test_nothing_is_lost_in_the_resampler_when_sound_is_committed() -> None:
    one, heard = live_input(None)
    one.add((noise(3.0), 48_000), one.flush, one.commit)
    listen(one)
    assert heard.told == [("sound_committed", 0, RATE, True)]


def test_cleared_sound_is_forgotten() -> None:
    one, heard = live_input(None)
    one.add((noise(1.0), RATE), one.flush, one.clear, (SOUND, RATE), one.flush, one.commit)
    listen(one)
    assert heard.told == [("cleared",), ("sound_committed", RATE, RATE + len(SOUND), True)]


def test_speech_that_is_committed_ends_there(repository: Path) -> None:
    speech = recording(repository, "examples/sum.wav")
    one, heard = live_input()
    one.add((speech[:16_100], RATE), one.flush, one.commit, (speech[16_100:], RATE), (silence(1.5), RATE))
    listen(one)
    calls = [call for call in heard.told if call[0] not in ("speech_paused", "speech_resumed")]
    assert [call[0] for call in calls] == ["speech_began", "speech_ended", "sound_committed"] * 2
    assert calls[1][1:] == (16_100, 16_100) and calls[2][1:] == (0, 16_100, True)
    assert calls[5][1] == 16_100 and calls[5][3] is False  # the rest is the next item, and begins there


def test_speech_that_is_cleared_is_over(repository: Path) -> None:
    speech = recording(repository, "examples/sum.wav")
    one, heard = live_input()
    one.add((speech[:16_100], RATE), one.flush, one.clear, (silence(2), RATE))
    listen(one)
    assert [call[0] for call in heard.told] == ["speech_began", "cleared"]


def test_speech_ends_with_the_input(repository: Path) -> None:
    speech = recording(repository, "examples/sum.wav")
    heard = hear(speech[:20_000])
    assert [call[0] for call in heard.told] == ["speech_began", "speech_ended", "sound_committed", "input_ended"]
    assert heard.told[2][1:] == (0, 20_000, False) and np.array_equal(heard.sounds[-1], speech[:20_000])


def test_speech_beyond_the_window_is_counted_and_not_kept() -> None:
    voice = Said([0.9] * 100 + [0.0] * 40)
    one, heard = live_input(Detection(soft_end=None), most=1.0, voice=voice)
    sound = noise(140 * WINDOW / RATE)
    one.add((sound, RATE))
    listen(one, voice=voice)
    (_, begin, end, _) = heard.told[-1]
    assert (begin, end) == (0, 98 * WINDOW + 1600)
    assert np.array_equal(heard.sounds[0], sound[: round(1.2 * RATE)])  # a little more than it hears


def test_detection_may_change_on_the_way(repository: Path) -> None:
    """To push-to-talk in mid-sentence, and back."""
    speech = recording(repository, "examples/sum.wav")
    one, heard = live_input()
    one.add((speech[:16_000], RATE), lambda: one.change(None), (speech[16_000:], RATE), one.flush, one.commit)
    one.add(lambda: one.change(Detection(silence=1.0, soft_end=None)), (speech, RATE), (silence(2), RATE))
    listen(one)
    names = [call[0] for call in heard.told]
    names.remove("speech_resumed")
    assert names == ["speech_began", "sound_committed", "speech_began", "speech_ended", "sound_committed"]
    assert np.array_equal(heard.sounds[0], speech)
    at, decided = next(call for call in heard.told if call[0] == "speech_ended")[1:]
    assert 1.0 <= (decided - at) / RATE < 1.04


def test_settings_of_a_detection_may_change_in_mid_sentence(repository: Path) -> None:
    speech = recording(repository, "examples/sum.wav")
    one, heard = live_input(Detection(soft_end=None))
    one.add((speech[:16_000], RATE), lambda: one.change(Detection(silence=1.0, soft_end=None)))
    one.add((speech[16_000:], RATE), (silence(2), RATE))
    listen(one)
    assert [call[0] for call in heard.told] == ["speech_began", "speech_ended", "sound_committed"]
    at, decided = heard.told[1][1:]
    assert 1.0 <= (decided - at) / RATE < 1.04


def test_what_two_threads_add_is_counted() -> None:
    """One of them comes where the other is in the middle of it."""
    one, _ = live_input(None)

    class Frame(np.ndarray):
        def __len__(self) -> int:
            other = threading.Thread(target=one.add, args=((silence(1.0), RATE),))
            other.start()
            other.join()
            return super().__len__()

    one.add((silence(0.5).view(Frame), RATE))
    assert one.unheard == 1.5


def test_what_is_not_heard_yet_is_counted() -> None:
    one, _ = live_input()
    assert one.unheard == 0.0
    one.add((np.zeros(8_000, np.float32), 8_000), one.flush)
    one.add((np.zeros(24_000, np.float32), 48_000))
    assert one.unheard == pytest.approx(1.5)
    assert one.due()
    assert one.unheard == pytest.approx(1.5, abs=0.05)  # the resampler holds some back
    listen(one)
    assert one.unheard < 2 * WINDOW / RATE
