"""What sessions ask of a recogniser."""

from __future__ import annotations

from typing import Protocol

from omni2_serve.sound.formats import Floats

RATE = 16_000  # Hz


class Recogniser(Protocol):
    """Writes down speech."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    async def transcribe(self, speech: Floats, language: str | None, prompt: str | None) -> list[str]:
        """What was said, in pieces that follow one another.

        Args:
            speech: (n,) float32 in ±1 at 16 kHz.
            language: that is spoken, as "en"; None to have it found.
            prompt: words that may be said, or what was said before; None for none.

        Raises:
            RequestError: too many wait already, or the recogniser cannot do it.
        """
        ...
