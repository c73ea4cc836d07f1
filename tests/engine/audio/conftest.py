"""Recordings as programs and devices write them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

RATE = 16_000


@pytest.fixture(scope="session")
def tone() -> Callable[..., np.ndarray]:
    """Makes seconds of 440 Hz: (n,) float32."""

    def make(seconds: float, rate: int = RATE) -> np.ndarray:
        return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)

    return make


class Pipe(io.RawIOBase):
    """What goes through a pipe: nothing written can be changed."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.content += bytes(data)
        return len(data)


@pytest.fixture(scope="session")
def record() -> Callable[..., bytes]:
    """A media file written by FFmpeg: container, codec, samples, rate; through a pipe, or to a file."""
    av = pytest.importorskip("av", reason="needs PyAV; pip install '.[media]' to run this test")

    def write(
        container: str,
        codec: str,
        samples: np.ndarray,
        rate: int = RATE,
        *,
        piped: bool = False,
        channels: int = 1,
        video: bool = False,
        sound: bool = True,
        **options: str,
    ) -> bytes:
        out = Pipe() if piped else io.BytesIO()
        layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
        with av.open(out, "w", format=container, options=options) as file:
            pictures = file.add_stream("mpeg4", rate=10) if video else None
            track = file.add_stream(codec, rate=rate, layout=layout) if sound else None
            if pictures is not None:
                pictures.width = pictures.height = 32
                for number in range(10):
                    picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * number, np.uint8), format="rgb24")
                    file.mux(pictures.encode(picture))
                file.mux(pictures.encode(None))
            if track is not None:
                if not track.codec_context.is_open:
                    track.codec_context.open()
                interleaved = np.repeat(samples, channels)[None]
                frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
                frame.sample_rate = rate
                resampler, fifo = av.AudioResampler(track.codec_context.format.name, layout, rate), av.AudioFifo()
                for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                    fifo.write(piece)
                for piece in [*fifo.read_many(track.codec_context.frame_size or 1024), fifo.read(0, partial=True)]:
                    if piece is not None:
                        file.mux(track.encode(piece))
                file.mux(track.encode(None))
        return bytes(out.content) if isinstance(out, Pipe) else out.getvalue()

    return write
