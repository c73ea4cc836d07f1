"""Raw PCM: samples without a header, as `arecord -t raw` and `ffmpeg -f s16le` write them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import soundfile

from omni2_engine.audio.samples import MOST_CHANNELS, Floats, check_rate
from omni2_engine.errors import AudioError, SettingError

FORMATS = {  # FFmpeg's names → libsndfile's subtype and byte order, bytes of a sample
    "u8": ("PCM_U8", "LITTLE", 1),
    "s8": ("PCM_S8", "LITTLE", 1),
    "s16le": ("PCM_16", "LITTLE", 2),
    "s16be": ("PCM_16", "BIG", 2),
    "s24le": ("PCM_24", "LITTLE", 3),
    "s24be": ("PCM_24", "BIG", 3),
    "s32le": ("PCM_32", "LITTLE", 4),
    "s32be": ("PCM_32", "BIG", 4),
    "f32le": ("FLOAT", "LITTLE", 4),
    "f32be": ("FLOAT", "BIG", 4),
    "f64le": ("DOUBLE", "LITTLE", 8),
    "f64be": ("DOUBLE", "BIG", 8),
    "alaw": ("ALAW", "LITTLE", 1),
    "mulaw": ("ULAW", "LITTLE", 1),
}
ALSA = {  # `arecord`'s names
    "U8": "u8",
    "S8": "s8",
    "S16_LE": "s16le",
    "S16_BE": "s16be",
    "S24_3LE": "s24le",
    "S24_3BE": "s24be",
    "S32_LE": "s32le",
    "S32_BE": "s32be",
    "FLOAT_LE": "f32le",
    "FLOAT_BE": "f32be",
    "FLOAT64_LE": "f64le",
    "FLOAT64_BE": "f64be",
    "A_LAW": "alaw",
    "MU_LAW": "mulaw",
}
PIECE = 1 << 16  # bytes


@dataclass(frozen=True)
class RawFormat:
    """How raw samples are laid out, channels interleaved.

    Args:
        rate: Hz.
        name: one of `FORMATS` or `ALSA`.
        channels: of each frame.

    Raises:
        AudioError: an impossible rate.
        SettingError: another format, or a number of channels that makes no sense.
    """

    rate: int
    name: str = "s16le"
    channels: int = 1

    def __post_init__(self) -> None:
        check_rate(self.rate)
        name = ALSA.get(self.name.upper(), self.name.lower())
        if name not in FORMATS:
            raise SettingError(f"there is no sample format {self.name!r}", f"use one of {', '.join(FORMATS)}")
        object.__setattr__(self, "name", name)
        if not 1 <= self.channels <= MOST_CHANNELS:
            raise SettingError(f"channels is {self.channels}", f"use 1 to {MOST_CHANNELS}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of a sample of every channel."""
        return FORMATS[self.name][2] * self.channels

    def decode(self, data: bytes) -> Floats:
        """Bytes → (n, channels) float32; an incomplete frame at the end is left out."""
        subtype, endian, _ = FORMATS[self.name]
        whole = data[: len(data) // self.frame_bytes * self.frame_bytes]
        if not whole:
            return np.zeros((0, self.channels), np.float32)
        samples: Floats
        samples, _ = soundfile.read(
            io.BytesIO(whole),
            dtype="float32",
            always_2d=True,
            samplerate=self.rate,
            channels=self.channels,
            format="RAW",
            subtype=subtype,
            endian=endian,
        )
        return samples


def record(stream: BinaryIO, layout: RawFormat, most_seconds: float) -> bytes:
    """Read raw samples as they come, to the stream's end or until there are enough.

    Ctrl-C ends the recording and not the program: behind `arecord … |` that is how one says that the question is over.
    Before the first sample it interrupts.

    Args:
        stream: unbuffered, or with `read1`.
        layout: of the samples.
        most_seconds: leave it at this and one sample more.

    Raises:
        AudioError: it cannot be read.
    """
    most = (int(most_seconds * layout.rate) + 1) * layout.frame_bytes
    read = getattr(stream, "read1", stream.read)
    data = bytearray()
    try:
        while len(data) < most and (piece := read(min(PIECE, most - len(data)))):
            data += piece
    except KeyboardInterrupt as stop:
        if not data or type(stop) is not KeyboardInterrupt:  # a signal that ends the program is a child of it
            raise
    except (OSError, ValueError) as error:
        raise AudioError(f"standard input cannot be read: {error}", "check what is in front of the pipe") from None
    return bytes(data)
