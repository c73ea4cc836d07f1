"""What a queue needs to know of a run whose steps it takes."""

from __future__ import annotations

from typing import Protocol


class StepRunner(Protocol):
    """A turn, or earlier turns that are fed. These are the steps that both have; the others are a turn's alone."""

    def encode(self) -> None:
        """Turn a question into vectors (positions, hidden) for the prompt."""
        ...

    def prefill(self, tokens: int) -> None:
        """Feed a prompt, and choose `tokens` text tokens, 0 or 1."""
        ...
