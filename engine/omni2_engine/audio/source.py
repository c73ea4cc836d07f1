"""Input audio: a file, bytes or samples → mono float32 samples, at their own rate or resampled to 16 kHz."""

from __future__ import annotations

import inspect
import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soxr
from numpy.typing import NDArray

from omni2_engine.audio.files import in_memory, on_disk, read_file
from omni2_engine.audio.samples import Floats, Recording, check_rate, mono, scaled
from omni2_engine.errors import AudioError
from omni2_engine.model.config import WHISPER_SAMPLE_RATE
from omni2_engine.settings import choice, integer
from omni2_engine.system.file_content import placeholder

AudioInput = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any]

LONG = ("error", "truncate")
LOUDEST = 16.0  # float samples far beyond ±1 are integers that were never scaled
SLACK = 0.1  # seconds beyond the window that are cut in silence: containers round a recording's length up


def read_audio(source: AudioInput, sample_rate: int | None, limit_seconds: float, long: str = "error") -> Floats:
    """Read a spoken question.

    Args:
        source: a path, an open binary file or the bytes of one, in any format that libsndfile reads, or PyAV where the
            extra `media` is installed; or samples, float in ±1 or integer, (n,) or (n, channels).
        sample_rate: of samples, Hz; files say theirs.
        limit_seconds: what the model's window holds; less than `SLACK` beyond it is cut.
        long: "error" or "truncate", what happens to audio beyond that.

    Returns:
        (n,) float32 in about ±1, 16 kHz mono (the channels' mean), n ≥ 1.

    Raises:
        AudioError: it is missing, not audio, empty, not finite, or too long with `long="error"`.
        SettingError: another word for `long`, or a sample rate that is no whole number.
    """
    choice("long", long, LONG)
    audio, rate, seconds = _read(source, sample_rate, limit_seconds + SLACK)
    if seconds - limit_seconds >= SLACK and long == "error":
        lasts = f"lasts {seconds:.1f} s" if np.isfinite(seconds) else f"lasts more than {limit_seconds + SLACK:.1f} s"
        raise AudioError(
            f"the audio {lasts} and the model hears {limit_seconds:g} s",
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
        AudioError, SettingError: as `read_audio`.
    """
    audio, rate, _ = _read(source, sample_rate, None)
    return audio, rate


def _read(source: AudioInput, sample_rate: int | None, limit_seconds: float | None) -> Recording:
    """Mono samples, a little beyond the limit at most."""
    if isinstance(source, np.ndarray):
        if sample_rate is None:
            raise AudioError("samples do not say their rate", "pass sample_rate= with them")
        rate = integer("sample_rate", sample_rate, "a number of Hz")
        check_rate(rate)
        audio = mono(scaled(source))
        recording = Recording(audio, rate, len(audio) / rate)
    else:
        name, content = _open(source)
        with content:
            recording = read_file(name, content, limit_seconds)
    _check(recording.samples)
    return recording


def _check(audio: Floats) -> None:
    """Refuse samples that are none."""
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


def _open(source: Any) -> tuple[str, BinaryIO]:
    """What to call the source in a message, and its content."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the input", in_memory(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if found := placeholder(path, text=True):
            raise AudioError(*found)
        try:
            return str(path), on_disk(path)
        except FileNotFoundError:
            raise AudioError(f"there is no file {path}", "check the name") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise AudioError(f"{path} cannot be read: {reason}", "name a readable audio file") from None
    if hasattr(source, "read"):
        return _open_object(source)
    if inspect.isawaitable(source):
        _drop(source)
        raise AudioError("the audio is still to be awaited", "pass the result of `await`")
    raise AudioError(
        f"audio cannot be read from {type(source).__name__}",
        "pass a path, an open file, bytes, or a NumPy array with sample_rate=",
    )


def _open_object(file: Any) -> tuple[str, BinaryIO]:
    """`_open` for an object with a method `read`."""
    name = str(getattr(file, "name", "the input"))
    if isinstance(file, io.TextIOBase):
        raise AudioError("the input file is open as text", 'open it with mode "rb"')
    if inspect.iscoroutinefunction(file.read):
        raise _asynchronous()
    try:
        content = file.read()
    except (OSError, ValueError) as error:  # closed, or open for writing only
        raise AudioError(f"{name} cannot be read: {error}", 'open it with mode "rb", and leave it open') from None
    if inspect.isawaitable(content):
        _drop(content)
        raise _asynchronous()
    if isinstance(content, str):
        raise AudioError("the input file is open as text", 'open it with mode "rb"')
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise AudioError(f"the input's read() gave {type(content).__name__}", "pass a file that gives bytes")
    if not content:
        raise AudioError(f"{name} has nothing left to read", "rewind it with seek(0), or record something")
    return name, in_memory(content)


def _asynchronous() -> AudioError:
    return AudioError("the input file is asynchronous", "pass its bytes: `await file.read()`")


def _drop(awaitable: Any) -> None:
    """Drop a coroutine that will not be awaited, without the interpreter's warning."""
    for method in ("close", "cancel"):  # of a coroutine, of a future
        if hasattr(awaitable, method):
            getattr(awaitable, method)()
            return
