"""The formats of the interface: 16-bit PCM at 24 kHz, and G.711 at 8 kHz."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

import numpy as np
import soxr
from numpy.typing import NDArray

from omni2_serve.protocol.errors import RequestError
from omni2_serve.sound import g711

Floats = NDArray[np.float32]
FULL_SCALE = 32_768.0


@dataclass(frozen=True)
class SoundFormat:
    """How samples are written.

    Args:
        name: "audio/pcm", "audio/pcmu" or "audio/pcma".
        rate: Hz.
        width: bytes a sample.
    """

    name: str
    rate: int
    width: int

    def seconds(self, size: int) -> float:
        """How long `size` bytes of it sound."""
        return size / (self.rate * self.width)

    def decode(self, data: bytes) -> Floats:
        """Bytes → (n,) float32 in ±1 at `rate`.

        Raises:
            RequestError: they are no whole number of samples.
        """
        if len(data) % self.width:
            raise RequestError(
                f"{len(data)} bytes are no whole number of {8 * self.width}-bit samples",
                "send whole samples",
                code="invalid_value",
                param="audio",
            )
        if self.name == PCM.name:
            samples = np.frombuffer(data, "<i2")
        else:
            table = g711.ULAW if self.name == PCMU.name else g711.ALAW
            samples = g711.decode(np.frombuffer(data, np.uint8), table)
        return samples.astype(np.float32) / np.float32(FULL_SCALE)

    def encode(self, samples: Floats) -> bytes:
        """(n,) float32 at `rate` → bytes; saturates at ±1."""
        whole = np.clip(np.rint(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
        if self.name == PCM.name:
            return bytes(whole.astype("<i2"))
        return bytes(g711.encode(whole, g711.ULAW_CODES if self.name == PCMU.name else g711.ALAW_CODES))


PCM = SoundFormat("audio/pcm", 24_000, 2)
PCMU = SoundFormat("audio/pcmu", 8_000, 1)
PCMA = SoundFormat("audio/pcma", 8_000, 1)
FORMATS = {known.name: known for known in (PCM, PCMU, PCMA)}


def from_base64(text: str) -> bytes:
    """The bytes that a client's event carries.

    Raises:
        RequestError: the text is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("the audio is not base64", "", code="invalid_value", param="audio") from None


def to_base64(data: bytes) -> str:
    """Bytes for an event."""
    return base64.b64encode(data).decode("ascii")


@dataclass
class Encoder:
    """One answer's sound → bytes, at another rate where the format has another.

    Args:
        to: the format.
        rate: of the samples that come, Hz.

    Attributes:
        written: bytes so far.
    """

    to: SoundFormat
    rate: int
    written: int = 0
    _stream: soxr.ResampleStream | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.rate != self.to.rate:
            self._stream = soxr.ResampleStream(self.rate, self.to.rate, 1, dtype="float32")

    def encode(self, samples: Floats, last: bool = False) -> bytes:
        """(n,) float32 in about ±1 → bytes; with `last` also what the resampler still holds."""
        if self._stream is not None:
            samples = self._stream.resample_chunk(np.ascontiguousarray(samples, np.float32), last=last)
        data = self.to.encode(samples)
        self.written += len(data)
        return data

    @property
    def seconds(self) -> float:
        """How long what was written sounds."""
        return self.to.seconds(self.written)
