"""Output audio: chunks of PCM as they are made → a WAV file, or raw 16-bit samples on a stream; resampled if asked."""

from __future__ import annotations

import contextlib
import os
import sys
import wave
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import soxr
from numpy.typing import NDArray

from omni2_engine.errors import AudioError, SettingError
from omni2_kernels.audio import pack_pcm16

Floats = NDArray[np.float32]

STDOUT = "-"
RATES = range(1_000, 768_001)  # Hz
SUFFIXES = ("", ".wav", ".wave")
SAMPLE_BYTES = 2


class ReaderGone(AudioError):
    """Whoever read the raw samples has stopped; nothing is wrong, there is nobody left to write for."""


class PcmWriter(ABC):
    """Takes float PCM chunk by chunk; a context manager that finishes on success and discards on any exception.

    Args:
        sample_rate: of the chunks, Hz.
        rate: of the output, Hz; the chunks' own if None.

    Raises:
        SettingError: a rate nobody plays.
    """

    def __init__(self, sample_rate: int, rate: int | None = None) -> None:
        self.rate = sample_rate if rate is None else rate
        if self.rate not in RATES:
            raise SettingError(f"rate is {rate}", f"use {RATES[0]} to {RATES[-1]} Hz")
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

    Args:
        path: where the file goes; an older one there is replaced when the new one is whole.
        sample_rate, rate: see `PcmWriter`.

    Raises:
        AudioError: the file cannot be made there; found before anything is computed.
    """

    def __init__(self, path: Path, sample_rate: int, rate: int | None = None) -> None:
        super().__init__(sample_rate, rate)
        if not path.name:
            raise AudioError(f"{path} is no file name", "name a .wav file")
        self.path = path
        self._partial = path.with_name(path.name + ".partial")
        if path.suffix.lower() not in SUFFIXES:
            raise AudioError(f"{path} does not end in .wav", "answers are written as WAV; convert them with ffmpeg")
        if not path.parent.is_dir():
            raise AudioError(f"{path} cannot be written: there is no folder {path.parent}", "make the folder first")
        try:
            if path.exists() and not path.is_file():  # renaming would replace a device or a pipe
                raise AudioError(
                    f"{path} is not a regular file", "name a .wav file, or - for raw samples on standard output"
                )
            self._file = self._partial.open("wb")
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from None
        self._wave = wave.open(self._file, "wb")  # noqa: SIM115 - closed with the file
        self._wave.setnchannels(1)
        self._wave.setsampwidth(SAMPLE_BYTES)
        self._wave.setframerate(self.rate)

    def _unwritable(self, error: OSError | ValueError) -> AudioError:
        reason = getattr(error, "strerror", None) or error
        return AudioError(f"{self.path} cannot be written: {reason}", "choose another place with -o")

    def _write_bytes(self, samples: bytes) -> None:
        try:
            self._wave.writeframesraw(samples)
        except OSError as error:
            raise self._unwritable(error) from None

    def _finish(self) -> None:
        try:
            self._wave.close()
            self._file.close()
            os.replace(self._partial, self.path)
        except OSError as error:
            raise self._unwritable(error) from None

    def discard(self) -> None:
        """Remove the unfinished file; an older one of the final name stays."""
        for file in (self._wave, self._file):
            with contextlib.suppress(OSError):  # what cannot be flushed is thrown away here
                file.close()
        self._partial.unlink(missing_ok=True)


class RawWriter(PcmWriter):
    """Raw mono samples, 16-bit little-endian, on a binary stream, each chunk as soon as it is there.

    Args:
        stream: left open when the writer is closed.
        sample_rate, rate: see `PcmWriter`.
    """

    def __init__(self, stream: BinaryIO, sample_rate: int, rate: int | None = None) -> None:
        super().__init__(sample_rate, rate)
        self._stream = stream

    def _write_bytes(self, samples: bytes) -> None:
        try:
            self._stream.write(samples)
            self._stream.flush()
        except BrokenPipeError:
            self._silence()
            raise ReaderGone("the program that read the audio has ended") from None
        except OSError as error:
            raise AudioError(
                f"the audio stream cannot be written: {error.strerror or error}", "check where it goes"
            ) from None

    def _silence(self) -> None:
        """Let the interpreter's own flush at exit find an open end: otherwise it reports the broken pipe once more."""
        if self._stream is getattr(sys.stdout, "buffer", None):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def _finish(self) -> None:
        """Every chunk was flushed."""

    def discard(self) -> None:
        """Samples that were heard cannot be taken back."""


def open_writer(target: str | os.PathLike[str] | BinaryIO, sample_rate: int, rate: int | None = None) -> PcmWriter:
    """The writer for a target: a path (WAV), "-" (raw samples on standard output) or a binary stream (raw samples).

    Raises:
        AudioError: the target cannot be written, or standard output is a terminal.
        SettingError: a rate nobody plays.
    """
    if target == STDOUT:
        if sys.stdout is None:
            raise AudioError("there is no standard output to write to", "give it one, or name a .wav file")
        if sys.stdout.isatty():
            raise AudioError(
                "raw samples would fill the terminal",
                "pipe them into a player: … -o - | ffplay -f s16le -ar 24000 -i -",
            )
        return RawWriter(sys.stdout.buffer, sample_rate, rate)
    if isinstance(target, (str, os.PathLike)):
        return WavWriter(Path(target), sample_rate, rate)
    return RawWriter(target, sample_rate, rate)
