"""Raw PCM: samples without a header."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from omni2_engine.audio.raw import ALSA, FORMATS, RawFormat, record
from omni2_engine.errors import AudioError, SettingError

RATE = 16_000
STEP = {"u8": 2**-7, "s8": 2**-7, "alaw": 2**-5, "mulaw": 2**-5}  # how coarse a format is; else 2^-15


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", [*FORMATS, *ALSA])
def test_every_format(tone: Callable[..., np.ndarray], name: str, channels: int) -> None:
    plain = ALSA.get(name, name)
    subtype, endian, _ = FORMATS[plain]
    samples = np.stack([tone(0.1), -0.5 * tone(0.1)][:channels], axis=1)
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="RAW", subtype=subtype, endian=endian)
    layout = RawFormat(RATE, name, channels)
    assert len(file.getvalue()) == len(samples) * layout.frame_bytes
    decoded = layout.decode(file.getvalue())
    assert decoded.shape == samples.shape
    assert np.abs(decoded - samples).max() <= STEP.get(plain, 2**-15)


def test_numpy_knows_the_same_numbers() -> None:
    numbers = np.arange(-100, 100)
    for name, dtype in [("s16le", "<i2"), ("s16be", ">i2"), ("s32be", ">i4"), ("f32be", ">f4"), ("f64le", "<f8")]:
        full = 1 if "f" in name else -float(np.iinfo(dtype).min)
        decoded = RawFormat(RATE, name).decode(numbers.astype(dtype).tobytes())
        np.testing.assert_array_equal(decoded[:, 0], (numbers / full).astype(np.float32))


@given(st.binary(max_size=50), st.sampled_from(sorted(FORMATS)), st.integers(1, 5))
def test_an_incomplete_frame_is_left_out(data: bytes, name: str, channels: int) -> None:
    layout = RawFormat(RATE, name, channels)
    assert layout.decode(data).shape == (len(data) // layout.frame_bytes, channels)


def test_layouts_that_make_no_sense() -> None:
    for rate, name, channels, kind in [
        (RATE, "s12", 1, SettingError),
        (RATE, "S24_LE", 1, SettingError),  # ALSA's has four bytes
        (RATE, "s16le", 0, SettingError),
        (RATE, "s16le", 65, SettingError),
        (16, "s16le", 1, AudioError),
    ]:
        with pytest.raises(kind) as caught:
            RawFormat(rate, name, channels)
        assert caught.value.remedy


class Endless(io.RawIOBase):
    """A microphone: gives 100 bytes a time, for ever or until something is raised."""

    def __init__(self, error: BaseException | None = None, after: int = 0) -> None:
        self.error, self.after, self.read_ = error, after, 0

    def read(self, size: int = -1) -> bytes:
        if self.error is not None and self.read_ >= self.after:
            raise self.error
        self.read_ += 100
        return bytes(100)


def test_a_recording_ends_when_there_is_enough_of_it() -> None:
    microphone = Endless()
    data = record(microphone, RawFormat(RATE, "s16le", 2), 1.0)
    assert RATE * 4 < len(data) <= RATE * 4 + 104
    assert microphone.read_ == len(data) or microphone.read_ - len(data) < 100


def test_ctrl_c_ends_a_recording_and_not_the_program() -> None:
    layout = RawFormat(RATE)
    assert record(Endless(KeyboardInterrupt(), after=500), layout, 1.0) == bytes(500)
    with pytest.raises(KeyboardInterrupt):
        record(Endless(KeyboardInterrupt()), layout, 1.0)

    class Terminated(KeyboardInterrupt):
        pass

    with pytest.raises(Terminated):
        record(Endless(Terminated(), after=500), layout, 1.0)
    with pytest.raises(AudioError, match="standard input cannot be read"):
        record(Endless(OSError("gone"), after=500), layout, 1.0)
