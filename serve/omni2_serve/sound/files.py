"""An answer as an audio file."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from omni2_serve.sound.formats import PCM, Floats

PCM16 = "pcm16"
FILE_FORMATS = {  # libsndfile's format and subtype
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    PCM16: ("RAW", "PCM_16"),
}


def encode_file(samples: Floats, name: str) -> bytes:
    """The content of a file.

    Args:
        samples: (n,) float32 at 24 kHz in about ±1.
        name: one of `FILE_FORMATS`; "pcm16" has no header.
    """
    if name == PCM16:
        return PCM.encode(samples)
    kind, subtype = FILE_FORMATS[name]
    content = io.BytesIO()
    soundfile.write(content, np.clip(samples, -1, 1), PCM.rate, format=kind, subtype=subtype)
    return content.getvalue()
