"""Output audio: chunks of PCM as they are made → a WAV file, or raw 16-bit samples on a stream; resampled if asked."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import struct
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO

import numpy as np
import soxr
from numpy.typing import NDArray

from omni2_engine.errors import AudioError
from omni2_engine.settings import integer
from omni2_engine.system.locked_file import LockedFile, open_locked
from omni2_kernels.audio import pack_pcm16

Floats = NDArray[np.float32]

STDOUT = "-"
RATES = range(1_000, 768_001)  # Hz
SUFFIXES = ("", ".wav", ".wave")
SAMPLE_BYTES = 2
HEADER_BYTES = 44  # of the WAV files written here
LARGEST = (1 << 32) - 1 - 36  # bytes of samples that a WAV header can name


class ReaderGone(AudioError):
    """The reader of the raw samples has stopped: writing ends, without an error."""


class PcmWriter(ABC):
    """Takes float PCM chunk by chunk; a context manager that finishes on success and discards on any exception.

    Args:
        sample_rate: of the chunks, Hz.
        rate: of the output, Hz; the chunks' own if None.

    Raises:
        SettingError: a sample rate outside the range that players take.
    """

    def __init__(self, sample_rate: int, rate: int | None = None) -> None:
        use = f"{RATES[0]} to {RATES[-1]} Hz"
        self.rate = sample_rate if rate is None else integer("rate", rate, use, least=RATES[0], most=RATES[-1])
        self._resampler: soxr.ResampleStream | None = None
        if self.rate != sample_rate:
            self._resampler = soxr.ResampleStream(sample_rate, self.rate, 1, dtype="float32", quality="HQ")

    def write(self, pcm: Floats) -> None:
        """Add a chunk: (n,) float32; beyond ±1 it saturates, NaN becomes silence.

        Raises:
            AudioError: the disk is full or the reader has gone.
        """
        self._put(self._resampled(pcm, last=False))

    def close(self) -> None:
        """Write what is left and make the output whole.

        Raises:
            AudioError: as `write`.
        """
        if self._resampler is not None:
            self._put(self._resampled(np.zeros(0, np.float32), last=True))
        self._finish()

    def __enter__(self) -> PcmWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise

    def _resampled(self, pcm: Floats, last: bool) -> Floats:
        if self._resampler is None:
            return pcm
        # a NaN would stay in the resampler's memory and silence everything after it
        resampled: Floats = self._resampler.resample_chunk(np.nan_to_num(pcm), last=last)
        return resampled

    def _put(self, pcm: Floats) -> None:
        if len(pcm):
            self._write_bytes(pack_pcm16(pcm).astype("<i2", copy=False).tobytes())

    @abstractmethod
    def _write_bytes(self, samples: bytes) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def discard(self) -> None:
        """Leave nothing half-written behind."""


class WavWriter(PcmWriter):
    """A mono 16-bit WAV file, under the name `<path>.partial` until it is whole.

    That file is locked: a second run with the same output is refused. One that a killed run left behind is used again;
    anything else of that name is left alone.

    Args:
        path: where the file goes, behind a link the file it leads to; an older one there is replaced when the new one
            is whole.
        sample_rate, rate: see `PcmWriter`.

    Raises:
        AudioError: the file cannot be made there, or another run is writing it; found before anything is computed.
    """

    def __init__(self, path: Path, sample_rate: int, rate: int | None = None) -> None:
        super().__init__(sample_rate, rate)
        if not path.name:
            raise AudioError(f"{path} is no file name", "name a .wav file")
        self.path = path
        if path.suffix.lower() not in SUFFIXES:
            raise AudioError(f"{path} does not end in .wav", "answers are written as WAV; convert them with ffmpeg")
        try:
            self._target = Path(os.path.realpath(path))
            self._check_target()
            self._partial = self._open_partial()
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from None
        self._partial.file.write(_header(self.rate, 0))
        self._written = 0

    def _check_target(self) -> None:
        path, target = self.path, self._target
        if not target.parent.is_dir():
            raise AudioError(f"{path} cannot be written: there is no folder {target.parent}", "make the folder first")
        if not target.exists():
            return
        if not target.is_file():
            raise AudioError(
                f"{path} is not a regular file", "name a .wav file, or - for raw samples on standard output"
            )
        if not os.access(target, os.W_OK):
            raise AudioError(f"{path} is write-protected", "choose another name with -o, or remove the protection")

    def _open_partial(self) -> LockedFile:
        name = self._target.with_name(self._target.name + ".partial")
        partial = open_locked(name)
        if partial is None:
            raise AudioError(f"another run is writing {self.path}", "let it finish, or choose another name with -o")
        if not _is_unfinished(partial.file.read(HEADER_BYTES)):
            partial.file.close()
            raise AudioError(
                f"{name} is in the way: no unfinished answer, but a file of another kind",
                "move it elsewhere, or choose another name with -o",
            )
        partial.file.seek(0)
        partial.file.truncate()
        return partial

    def _unwritable(self, error: OSError | ValueError) -> AudioError:
        reason = getattr(error, "strerror", None) or error
        return AudioError(f"{self.path} cannot be written: {reason}", "choose another place with -o")

    def _write_bytes(self, samples: bytes) -> None:
        try:
            self._partial.file.write(samples)
            self._written += len(samples)
        except OSError as error:
            raise self._unwritable(error) from None

    def _finish(self) -> None:
        try:
            self._partial.file.seek(0)
            self._partial.file.write(_header(self.rate, self._written))
            try:
                self._partial.rename(self._target)
            except OSError:
                if not self._target.is_file():
                    raise
                self._write_in_place()
        except OSError as error:
            raise self._unwritable(error) from None

    def _write_in_place(self) -> None:
        """Copy the whole answer into a file that no other can replace: a mount point, or one of another owner in a
        folder like /tmp."""
        with self._partial.path.open("rb") as whole, self._target.open("r+b") as file:
            shutil.copyfileobj(whole, file)
            file.truncate()
        self._partial.remove()

    def discard(self) -> None:
        """Remove the unfinished file; an older one of the final name stays."""
        with contextlib.suppress(OSError):  # what cannot be flushed is thrown away here
            self._partial.remove()


def _header(rate: int, size: int) -> bytes:
    """The beginning of a mono 16-bit WAV file with `size` bytes of samples; 0 as long as it grows."""
    size = min(size, LARGEST)
    byte_rate, bits = rate * SAMPLE_BYTES, 8 * SAMPLE_BYTES
    form = (1, 1, rate, byte_rate, SAMPLE_BYTES, bits)  # PCM, one channel
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, *form, b"data", size)


def _is_unfinished(header: bytes) -> bool:
    """Whether a file that begins like this was left by a killed run: it is empty, or has a header without a length."""
    rate = int.from_bytes(header[24:28], "little")
    return not header or (rate in RATES and header == _header(rate, 0))


class RawWriter(PcmWriter):
    """Raw mono samples, 16-bit little-endian, on a binary stream, each chunk as soon as it is there.

    Args:
        stream: left open when the writer is closed, unless the writer owns it.
        sample_rate, rate: see `PcmWriter`.
        owned: close the stream with the writer.
    """

    def __init__(self, stream: BinaryIO, sample_rate: int, rate: int | None = None, owned: bool = False) -> None:
        super().__init__(sample_rate, rate)
        self._stream = stream
        self._owned = owned

    def _write_bytes(self, samples: bytes) -> None:
        try:
            self._stream.write(samples)
            self._stream.flush()
        except BrokenPipeError:
            silence(self._stream)
            raise ReaderGone("the program that read the audio has ended") from None
        except OSError as error:
            raise AudioError(
                f"the audio stream cannot be written: {error.strerror or error}", "check where it goes"
            ) from None

    def _finish(self) -> None:
        """Every chunk was flushed."""
        if self._owned:
            self._stream.close()

    def discard(self) -> None:
        """Samples that were heard cannot be taken back."""
        with contextlib.suppress(OSError):
            self._finish()


def open_writer(target: str | os.PathLike[str] | BinaryIO, sample_rate: int, rate: int | None = None) -> PcmWriter:
    """The writer for a target: a path (WAV), "-" (raw samples on standard output) or a binary stream (raw samples).

    A path that is a pipe or a character device, such as /dev/null, gets raw samples.

    Raises:
        AudioError: the target cannot be written, or it is a terminal.
        SettingError: a sample rate outside the range that players take.
    """
    if target == STDOUT:
        if sys.stdout is None:
            raise AudioError("there is no standard output to write to", "give it one, or name a .wav file")
        _refuse_terminal(sys.stdout.buffer)
        return RawWriter(sys.stdout.buffer, sample_rate, rate)
    if not isinstance(target, (str, os.PathLike)):
        return RawWriter(target, sample_rate, rate)
    path = Path(target)
    if not _takes_raw_samples(path):
        return WavWriter(path, sample_rate, rate)
    stream = _open_stream(path)
    try:
        _refuse_terminal(stream)
        return RawWriter(stream, sample_rate, rate, owned=True)
    except BaseException:
        stream.close()
        raise


def _takes_raw_samples(path: Path) -> bool:
    """Whether a path is a character device or a pipe: it cannot be replaced by a file. A block device is a disk."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _open_stream(path: Path) -> BinaryIO:
    def without_waiting(name: str, flags: int) -> int:  # for a program that reads the pipe
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    try:
        stream = open(path, "wb", opener=without_waiting)  # noqa: SIM115 - closed with the writer
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise AudioError(f"no program reads {path}", "start the program that plays it first") from None
        reason = error.strerror or error
        raise AudioError(f"{path} cannot be written: {reason}", "choose another place with -o") from None
    if sys.platform != "win32":
        os.set_blocking(stream.fileno(), True)
    return stream


def _refuse_terminal(stream: BinaryIO) -> None:
    if stream.isatty():
        raise AudioError(
            "raw samples would fill the terminal",
            "pipe them into a player: … -o - | ffplay -f s16le -ar 24000 -i -",
        )


def silence(stream: IO[Any]) -> None:
    """Send standard output or error to nowhere once its reader has gone: the interpreter's own flush at exit would
    report the broken pipe once more. Other streams stay as they are."""
    for standard in (sys.stdout, sys.stderr):
        if standard is not None and stream in (standard, getattr(standard, "buffer", None)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
