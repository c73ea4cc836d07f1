"""Text on a terminal: characters that would garble it are replaced, and a reader that goes away is no error."""

from __future__ import annotations

import sys
import unicodedata
from typing import TextIO

from omni2_engine.audio.sink import silence

REPLACEMENT = "\ufffd"
LINE_ENDS = "\u2028\u2029"
DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # bidirectional controls


class Terminal:
    """Writes to a stream, a terminal or a file, what a person is to read.

    Args:
        out: the stream; None shows nothing.
    """

    def __init__(self, out: TextIO | None) -> None:
        self._out = out

    def write(self, text: str) -> None:
        """Show text at once.

        Raises:
            OSError: the disk is full.
        """
        if self._out is None:
            return
        try:
            self._out.write(printable(text))
            self._out.flush()
        except BrokenPipeError:  # `… | head -1`: an answer that goes into a file is finished without it
            silence(self._out)
            self._out = None


def printable(text: str) -> str:
    """Text without what moves the cursor or the direction of writing.

    Line breaks, tabs, spaces of every width and joining characters pass; control characters are shown as U+FFFD,
    bidirectional controls are left out.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def one_line(name: object) -> str:
    """A name, such as that of a file, as part of a line."""
    return printable(str(name)).replace("\n", REPLACEMENT).replace("\t", REPLACEMENT)


def replace_what_is_missing() -> None:
    """Let standard output and error show `?` for characters that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _shown(character: str) -> str:
    if character in "\n\t":
        return character
    if character in LINE_ENDS:
        return "\n"
    if character in DIRECTIONS:
        return ""
    return REPLACEMENT if unicodedata.category(character) in ("Cc", "Cs") else character
