"""The question of `omni2-engine stream`: a file, or what comes through standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from omni2_engine.audio.raw import RawFormat, record
from omni2_engine.audio.source import SLACK
from omni2_engine.errors import AudioError, SettingError
from omni2_engine.model.manifest import is_engine

STDIN = "-"


def raw_format(rate: int | None, name: str | None, channels: int | None) -> RawFormat | None:
    """The layout of raw samples; None where the question is a file.

    Raises:
        AudioError, SettingError: a value makes no sense, or there is no rate.
    """
    if rate is None:
        if name is not None or channels is not None:
            raise SettingError("--input-format and --input-channels are of raw samples", "give --input-rate as well")
        return None
    return RawFormat(rate, name or "s16le", 1 if channels is None else channels)


def check_order(engine: Path, audio: str | None) -> None:
    """Refuse arguments that were swapped.

    Raises:
        SettingError: the second is an engine directory, and the first is none.
    """
    if audio is not None and audio != STDIN and is_engine(Path(audio)) and not is_engine(engine):
        raise SettingError(
            f"{engine} and {audio} look swapped", f"put the engine first: omni2-engine stream {audio} {engine}"
        )


def open_question(audio: str | None, raw: RawFormat | None, window: float) -> str | bytes | NDArray[Any] | None:
    """What to hand to a session. Standard input is read here: before the engine is loaded, which would keep a
    recorder waiting and have it drop samples.

    Args:
        audio: a file's name, or "-" for standard input.
        raw: layout of raw samples; None if it is an audio file.
        window: seconds that the model hears.

    Raises:
        AudioError: it cannot be read.
    """
    if audio is None or (audio != STDIN and raw is None):
        return audio
    if audio != STDIN:
        assert raw is not None
        try:
            with Path(audio).open("rb") as file:
                return _samples(record(file, raw, window + SLACK), raw)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AudioError(f"{audio} cannot be read: {reason}", "name a file of raw samples") from None
    if sys.stdin is None:
        raise AudioError("there is no standard input to read from", "give it one, or name an audio file")
    if raw is not None:
        return _samples(record(sys.stdin.buffer, raw, window + SLACK), raw)
    if not (data := sys.stdin.buffer.read()):
        raise AudioError("standard input holds nothing", "pipe an audio file into it")
    return data


def _samples(data: bytes, raw: RawFormat) -> bytes | NDArray[Any]:
    """Raw samples as an array; what begins as a WAV file is left to be read as one, as `arecord` writes it."""
    return data if data[:4] == b"RIFF" and data[8:12] == b"WAVE" else raw.decode(data)
