"""What libsndfile does not read and browsers and phones record (WebM, M4A, AAC, AMR, …), through PyAV if installed."""

from __future__ import annotations

import logging
import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from omni2_engine.audio.samples import DAMAGED, LEAST, Floats, Recording, check_rate, mono
from omni2_engine.errors import AudioError

if TYPE_CHECKING:
    from av import AudioFrame, AudioResampler
    from av.container import InputContainer

log = logging.getLogger("omni2_engine.audio")
INSTALL = "pip install 'omni2-engine[media]'"
# Containers of sound. FFmpeg knows others that name further files, on the network too (playlists, lists of files).
CONTAINERS = (
    "3g2,3gp,aac,ac3,adts,aiff,amr,amrnb,amrwb,asf,au,avi,caf,eac3,flac,flv,m4a,matroska,mj2,mov,mp3,mp4,mpeg,mpegts,"
    "ogg,w64,wav,webm"
)


def installed() -> bool:
    """Whether PyAV is there."""
    return find_spec("av") is not None


def read_media(name: str, content: BinaryIO, limit_seconds: float | None) -> Recording:
    """Decode the first audio track of a media file.

    Args:
        name: what to call it in messages.
        content: can be sought in; read from its beginning.
        limit_seconds: decode a little more than this at most; None for all.

    Returns:
        The recording up to the first part that cannot be decoded.

    Raises:
        AudioError: it has no audio track, or one of an impossible rate.
        ValueError: FFmpeg cannot read it.
    """
    import av

    content.seek(0)
    try:
        with av.open(content, "r", options={"format_whitelist": CONTAINERS}, metadata_errors="replace") as container:
            return _read(name, container, limit_seconds)
    except av.FFmpegError as error:
        raise ValueError(error.strerror) from None


def _read(name: str, container: InputContainer, limit_seconds: float | None) -> Recording:
    from av import FFmpegError

    if not container.streams.audio:
        raise AudioError("the file has no audio track", "record it with sound")
    track = container.streams.audio[0]
    if track.codec_context is None:
        raise ValueError("no decoder for its audio")
    pieces: list[Floats] = [np.zeros(0, np.float32)]
    packed, total, rate, limit = _Packed(), 0, 0, math.inf
    try:
        for frame in container.decode(track):
            if not rate:  # a decoder may find another one than the container says
                rate = frame.sample_rate
                check_rate(rate)
                limit = math.inf if limit_seconds is None else limit_seconds * rate
            if frame.sample_rate != rate:
                raise AudioError(f"the sample rate changes from {rate} to {frame.sample_rate} Hz", "record it anew")
            pieces.append(packed.mono(frame))
            total += len(pieces[-1])
            if total > limit:
                break
    except FFmpegError as error:
        if total < LEAST * rate or not rate:
            raise
        log.warning(DAMAGED, name, total / rate, error.strerror)
    if not total:
        raise AudioError("the audio is empty", "record something: it holds no samples")
    seconds = total / rate
    if total > limit:
        says = (container.duration or 0) / 1e6
        seconds = says if says > seconds else math.inf
    return Recording(np.concatenate(pieces), rate, seconds)


class _Packed:
    """Turns frames into floats with their channels interleaved.

    PyAV looks for the channels of a frame that are not interleaved until it finds none, and so beyond the last where
    there are eight or more: FFmpeg's own converter is asked first.
    """

    def __init__(self) -> None:
        self._kind: tuple[object, ...] = ()
        self._converter: AudioResampler | None = None

    def mono(self, frame: AudioFrame) -> Floats:
        """The mean of a frame's channels, (n,) float32."""
        from av import AudioResampler

        kind = (frame.format.name, frame.layout.name, frame.layout.nb_channels, frame.sample_rate)
        if self._converter is None or kind != self._kind:
            self._kind, self._converter = kind, AudioResampler(format="flt")
        parts = [np.zeros(0, np.float32)]
        for part in self._converter.resample(frame):
            samples = part.to_ndarray().astype(np.float32, copy=False)
            parts.append(mono(samples.reshape(-1, frame.layout.nb_channels)))
        return np.concatenate(parts)
