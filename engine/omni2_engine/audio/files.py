"""Audio files → mono samples, through libsndfile; what that does not know goes to `media`."""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from omni2_engine.audio import media
from omni2_engine.audio.lengths import corrections
from omni2_engine.audio.samples import DAMAGED, LEAST, Floats, Recording, check_rate, mono
from omni2_engine.errors import AudioError

FRAMES_AT_ONCE = 4096  # a header may promise more than memory holds; and what precedes a damaged block is kept
LONGEST = 1e6  # seconds: a header that promises more than ten days does not know the length
CONVERT = "convert it with `ffmpeg -i INPUT output.wav`"
RAW = "for raw samples give --input-rate (in Python a NumPy array with sample_rate=)"
UNREADABLE = (soundfile.SoundFileError, OSError, TypeError, ValueError, OverflowError, MemoryError, EOFError)
log = logging.getLogger("omni2_engine.audio")


class _Forgiving(io.IOBase):
    """Seeks to no place that does not exist: a damaged header sends libsndfile there, which prints a traceback."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As usual, but stays where it is if there is no such place."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self.tell()


class _InMemory(_Forgiving, io.BytesIO):
    """Bytes."""


class _OnDisk(_Forgiving, io.BufferedReader):
    """A file that can be sought in."""

    name = ""  # of which soundfile would draw conclusions


def in_memory(data: bytes | bytearray | memoryview) -> BinaryIO:
    """The bytes of an audio file, for `read_file`."""
    return _InMemory(bytes(data))


def on_disk(path: Path) -> BinaryIO:
    """An audio file, for `read_file`; a pipe is read to its end.

    Raises:
        OSError, ValueError: it cannot be opened.
    """
    file = _OnDisk(io.FileIO(path))
    if file.seekable():
        return file
    with file:
        return in_memory(file.read())


def read_file(name: str, content: BinaryIO, limit_seconds: float | None) -> Recording:
    """Read an audio file.

    One that breaks off or is damaged is heard up to there; where a decoder notices, a warning is logged.

    Args:
        name: what to call it in messages.
        content: of `in_memory` or `on_disk`.
        limit_seconds: read a little more than this at most; None for all.

    Raises:
        AudioError: it is not audio.
    """
    try:
        with _Sequential(_corrected(content)) as file:
            return _read(name, file, limit_seconds)
    except UNREADABLE as error:
        reason = _reason(error)
    unreadable = f"{name} is not audio this can read: {reason}"
    if not media.installed():
        raise AudioError(unreadable, f"`{media.INSTALL}` to read WebM, M4A and the like, or {CONVERT}; {RAW}")
    try:
        return media.read_media(name, content, limit_seconds)
    except UNREADABLE as error:
        raise AudioError(f"{unreadable}; FFmpeg: {_reason(error)}", f"{CONVERT}; {RAW}") from None


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """A file read from its beginning to its end. `SoundFile` seeks after each block, which fails at a wrong length."""

    def seekable(self) -> bool:
        """Never, so that it does not."""
        return False


def _corrected(content: BinaryIO) -> BinaryIO:
    """The file with a header that knows its length."""
    changes = corrections(content)
    if not changes:
        return content
    data = bytearray(content.read())
    for place, correct in changes.items():
        data[place : place + len(correct)] = correct
    return in_memory(data)


def _read(name: str, file: soundfile.SoundFile, limit_seconds: float | None) -> Recording:
    rate = file.samplerate
    check_rate(rate)
    limit = math.inf if limit_seconds is None else int(limit_seconds * rate) + 1
    pieces: list[Floats] = [np.zeros(0, np.float32)]
    total = 0
    while total < limit:
        wanted = int(min(FRAMES_AT_ONCE, limit - total))
        try:
            samples = file.read(wanted, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            if total < LEAST * rate:
                raise
            log.warning(DAMAGED, name, total / rate, _reason(error))
            break
        pieces.append(mono(samples))
        total += len(samples)
        if len(samples) < wanted:
            break
    seconds = total / rate
    if total >= limit:
        seconds = max(seconds, file.frames / rate)
    return Recording(np.concatenate(pieces), rate, seconds if seconds < LONGEST else math.inf)


def _reason(error: BaseException) -> str:
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).strip().rstrip(".") or type(error).__name__
