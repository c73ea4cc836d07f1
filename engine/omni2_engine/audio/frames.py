"""Frames of sound as users have them → mono samples at 16 kHz."""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from omni2_engine.audio.samples import Floats, check_rate, mono, scaled
from omni2_engine.errors import AudioError
from omni2_engine.model.config import WHISPER_SAMPLE_RATE as RATE
from omni2_engine.settings import integer

Frame = NDArray[Any] | bytes | bytearray | memoryview


def mono_frame(frame: Frame) -> Floats:
    """A frame as mono float32, a copy.

    Args:
        frame: samples (n,) or (n, channels), float in ±1 or integer; or bytes, s16le mono.

    Raises:
        AudioError: it is no sound.
    """
    if isinstance(frame, (bytes, bytearray, memoryview)):
        data = bytes(frame)
        if len(data) % 2:
            raise AudioError(f"a frame has {len(data)} bytes", "pass whole 16-bit samples")
        frame = np.frombuffer(data, "<i2")
    if not isinstance(frame, np.ndarray):
        raise AudioError(f"a frame is a {type(frame).__name__}", "pass a NumPy array, or bytes of 16-bit samples")
    samples = mono(scaled(frame))
    if not np.isfinite(samples).all():
        raise AudioError("a frame holds values that are not numbers (NaN or infinite)", "check the recorder")
    return samples


class StreamingResampler:
    """Resamples a stream whose rate may change. The result does not depend on how the stream is cut into frames.

    Output lags behind input by up to 14 ms from 22 kHz and more, and by 30 ms from 8 kHz. That is with soxr's filters
    for variable rates (`vr`): its usual ones work in blocks, and lag by 40 and 115 ms.
    """

    def __init__(self) -> None:
        self._rate = RATE
        self._stream: soxr.ResampleStream | None = None  # None at 16 kHz

    def __call__(self, samples: Floats, rate: int) -> Floats:
        """The next samples.

        Args:
            samples: (n,) float32.
            rate: Hz, see `checked_rate`.

        Returns:
            (m,) float32 at 16 kHz: all that is certain by now.
        """
        before = np.zeros(0, np.float32)
        if rate != self._rate:
            before = self.flush()
            self._rate = rate
        if rate == RATE:
            return np.concatenate([before, samples]) if len(before) else samples
        if self._stream is None:
            self._stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ", vr=True)
        return np.concatenate([before, self._stream.resample_chunk(samples)])

    def flush(self) -> Floats:
        """What is left of the samples so far, as if nothing followed them."""
        stream, self._stream = self._stream, None
        rest: Floats = np.zeros(0, np.float32)
        return rest if stream is None else stream.resample_chunk(rest, last=True)


def checked_rate(sample_rate: int) -> int:
    """A frame's rate.

    Raises:
        AudioError: an impossible rate.
        SettingError: no whole number.
    """
    rate = integer("sample_rate", sample_rate, "a number of Hz")
    check_rate(rate)
    return rate
