"""Input audio: whatever a user hands in → mono float32 samples, at their own rate or resampled to 16 kHz."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from omni2_engine.config import WHISPER_SAMPLE_RATE
from omni2_engine.errors import AudioError, SettingError

Floats = NDArray[np.float32]
AudioInput = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any]

RATES = range(1_000, 768_001)  # Hz; outside of it a header is damaged rather than a recording unusual
MOST_CHANNELS = 64  # in an array: more means that its axes are swapped
LOUDEST = 16.0  # float samples far beyond ±1 are integers that were never scaled
SAMPLES_AT_ONCE = 1 << 20  # read from a file, over all channels: a header may promise more than memory holds
CONVERT = "convert it with `ffmpeg -i INPUT output.wav`"


def read_audio(source: AudioInput, sample_rate: int | None, limit_seconds: float, long: str = "error") -> Floats:
    """Read a spoken question.

    Args:
        source: a path, an open binary file or the bytes of one, in any format libsndfile reads; or samples, float in ±1
            or integer, (n,) or (n, channels).
        sample_rate: of samples, Hz; files say theirs.
        limit_seconds: what the model's window holds.
        long: "error" or "truncate", what happens to audio beyond the limit.

    Returns:
        (n,) float32 in about ±1, 16 kHz mono (the channels' mean), n ≥ 1.

    Raises:
        AudioError: it is missing, not audio, empty, not finite, or too long with `long="error"`.
        SettingError: another word for `long`.
    """
    if long not in ("error", "truncate"):
        raise SettingError(f"long is {long!r}", 'use "error" or "truncate"')
    audio, rate, seconds = _read(source, sample_rate, limit_seconds)
    if seconds > limit_seconds and long == "error":
        raise AudioError(
            f"the audio lasts {seconds:.1f} s and the model hears {limit_seconds:g} s",
            'shorten it, or keep its beginning with --long truncate (in Python long="truncate")',
        )
    audio = audio[: round(limit_seconds * rate)]
    if rate != WHISPER_SAMPLE_RATE:
        audio = soxr.resample(audio, rate, WHISPER_SAMPLE_RATE, quality="HQ")
    return audio if len(audio) else np.zeros(1, np.float32)  # a sample or two may resample to none


def read_native(source: AudioInput, sample_rate: int | None = None) -> tuple[Floats, int]:
    """Read a recording of any length at its own rate.

    Returns:
        (n,) float32 in about ±1, mono, n ≥ 1, and its rate in Hz.

    Raises:
        AudioError: as `read_audio`.
    """
    audio, rate, _ = _read(source, sample_rate, None)
    return audio, rate


def _read(source: AudioInput, sample_rate: int | None, limit_seconds: float | None) -> tuple[Floats, int, float]:
    """Mono samples (a little beyond the limit at most), their rate, and how many seconds there are in all."""
    if isinstance(source, np.ndarray):
        if sample_rate is None:
            raise AudioError("samples do not say their rate", "pass sample_rate= with them")
        _check_rate(sample_rate)
        audio, rate = _mono(_scaled(source)), int(sample_rate)
        seconds = len(audio) / rate
    else:
        audio, rate, seconds = _read_file(source, limit_seconds)
    if len(audio) == 0:
        raise AudioError("the audio is empty", "record something: it holds no samples")
    if not np.isfinite(audio).all():
        raise AudioError(
            "the audio holds values that are not numbers (NaN or infinite)", "save it again from its origin"
        )
    loudest = float(np.abs(audio).max())
    if loudest > LOUDEST:
        raise AudioError(
            f"the audio's float samples reach {loudest:g} where ±1 is full scale",
            "divide them, or pass int16 or int32 samples",
        )
    return audio, rate, seconds


def _check_rate(rate: int) -> None:
    if rate not in RATES:
        raise AudioError(f"the sample rate is {rate} Hz", f"use audio of {RATES[0]} to {RATES[-1]} Hz")


# -- samples -----------------------------------------------------------------------------------------------------------


def _scaled(samples: NDArray[Any]) -> Floats:
    """Samples of any usual type as float32 in ±1, (n,) or (n, channels)."""
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MOST_CHANNELS):
        raise AudioError(f"audio samples have shape {samples.shape}", "pass (samples,) or (samples, channels)")
    kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which is refused in words
            return samples.astype(np.float32)
    if kind == "i" and bits in (8, 16, 32):
        return (samples / 2.0 ** (bits - 1)).astype(np.float32)
    if kind == "u" and bits == 8:  # the one unsigned format of WAV files, its silence is 128
        return ((samples - 128.0) / 128.0).astype(np.float32)
    raise AudioError(f"audio samples are of type {samples.dtype}", "pass float32, int16 or int32 samples")


def _mono(samples: Floats) -> Floats:
    if samples.ndim == 1:
        return samples
    with np.errstate(invalid="ignore"):  # infinities of both signs make NaN, which is refused in words
        mean: Floats = samples.mean(axis=1, dtype=np.float64).astype(np.float32)
    return mean


# -- files -------------------------------------------------------------------------------------------------------------


def _read_file(source: Any, limit_seconds: float | None) -> tuple[Floats, int, float]:
    name, content = _open(source)
    try:
        with soundfile.SoundFile(content) as file:
            _check_rate(file.samplerate)
            limit = None if limit_seconds is None else int(limit_seconds * file.samplerate) + 1
            audio = _read_blocks(file, limit)
            more = limit is not None and len(audio) >= limit
            frames = max(file.frames, len(audio)) if more else len(audio)
            return audio, file.samplerate, frames / file.samplerate
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, OverflowError, MemoryError) as error:
        reason = getattr(error, "error_string", None) or str(error)
        raise AudioError(f"{name} is not audio this can read: {reason.strip().rstrip('.')}", CONVERT) from None


class _Content(io.BytesIO):
    """A file in memory; a damaged header sends libsndfile before its beginning, which must not print a traceback."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As `BytesIO.seek`, but stays where it is if there is no such place."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _open(source: Any) -> tuple[str, str | _Content]:
    """What to call the source in a message, and a path or content that can be sought in."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the input", _Content(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            with path.open("rb") as file:
                return str(path), str(path) if file.seekable() else _Content(file.read())
        except FileNotFoundError:
            raise AudioError(f"there is no file {path}", "check the name") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise AudioError(f"{path} cannot be read: {reason}", "name a readable audio file") from None
    if hasattr(source, "read"):
        content = source.read()
        if isinstance(content, bytes):
            return str(getattr(source, "name", "the input")), _Content(content)
        raise AudioError("the input file is open as text", 'open it with mode "rb"')
    raise AudioError(
        f"audio cannot be read from {type(source).__name__}",
        "pass a path, an open file, bytes, or a NumPy array with sample_rate=",
    )


def _read_blocks(file: soundfile.SoundFile, limit: int | None) -> Floats:
    """Mono samples up to the limit, or to where the file really ends."""
    block = max(1, SAMPLES_AT_ONCE // file.channels)
    pieces: list[Floats] = []
    total = 0
    while limit is None or total < limit:
        wanted = block if limit is None else min(block, limit - total)
        samples = file.read(wanted, dtype="float32", always_2d=True)
        pieces.append(_mono(samples))
        total += len(samples)
        if len(samples) < wanted:
            break
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
