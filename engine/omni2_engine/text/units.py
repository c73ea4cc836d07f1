"""Speech units out of generated ids by the string rule of spec §6: decode without special tokens, then every digit run.

Most ids decide alone what unit they are, so a table built once answers; ids whose digits may join a neighbour's go by
the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from omni2_engine.errors import EngineDirectoryError
from omni2_engine.text.tokenizer import TextStream, TextTokenizer

NO_UNIT = -1  # the id's text has no digit
BY_TEXT = -2  # only the text with its neighbours tells
RUN = re.compile(r"\d+")
TRAILING_RUN = re.compile(r"\d+\Z")
LONGEST_RUN = 4000  # digits; Python itself refuses to read much longer ones
BEYOND = int(np.iinfo(np.int64).max)


def _unit(run: str) -> int:
    """A digit run as a number, cut to what an int64 holds: beyond any unit vocabulary it makes no difference."""
    return min(int(run), BEYOND) if len(run) <= LONGEST_RUN else BEYOND


def units_of_text(text: str) -> list[int]:
    """Every digit run of a text as a number (spec §6)."""
    return [_unit(run) for run in RUN.findall(text)]


def _classify(piece: bytes) -> int:
    """Table entry of one id's bytes: its unit, NO_UNIT, or BY_TEXT if neighbours may change what it says."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:  # part of a character, which may turn out to be a digit
        return BY_TEXT
    runs = list(RUN.finditer(text))
    if not runs:
        return NO_UNIT
    alone = len(runs) == 1 and runs[0].start() > 0 and runs[0].end() < len(text)
    value = _unit(runs[0].group()) if alone else BEYOND
    return value if value <= np.iinfo(np.int32).max else BY_TEXT


class UnitTable:
    """id → unit for one speech tokenizer.

    Args:
        table: (V,) int32: a unit, `NO_UNIT` or `BY_TEXT`.
        tokenizer: the speech tokenizer, for ids the table leaves to the text.
    """

    def __init__(self, table: npt.NDArray[np.int32], tokenizer: TextTokenizer) -> None:
        self.table = table
        self.tokenizer = tokenizer

    @classmethod
    def build(cls, tokenizer: TextTokenizer) -> UnitTable:
        """Work the table out from a speech tokenizer. The spelling of its units and their place do not matter."""
        pieces = (tokenizer.token_bytes(token_id) for token_id in range(tokenizer.size))
        return cls(np.fromiter(map(_classify, pieces), np.int32), tokenizer)

    @classmethod
    def load(cls, path: Path, tokenizer: TextTokenizer) -> UnitTable:
        """Read a table `save` wrote.

        Raises:
            EngineDirectoryError: the file is missing or no such table.
        """
        try:
            table = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise EngineDirectoryError(f"{path} cannot be read: {error}", "build the engine again") from error
        if not isinstance(table, np.ndarray) or table.dtype != np.int32 or table.ndim != 1:
            raise EngineDirectoryError(f"{path} is not a unit table", "build the engine again")
        return cls(table, tokenizer)

    def save(self, path: Path) -> None:
        """Write the table as a `.npy` file."""
        with path.open("wb") as file:
            np.save(file, self.table)

    def entry(self, token_id: int) -> int:
        """What one id says by itself: a unit, `NO_UNIT` or `BY_TEXT`; ids without a token say nothing."""
        return int(self.table[token_id]) if 0 <= token_id < len(self.table) else NO_UNIT

    def units(self, ids: Sequence[int]) -> list[int]:
        """Units of one write's ids (spec §6), those beyond the unit vocabulary included: the range is the caller's."""
        entries = [self.entry(token_id) for token_id in ids]
        if BY_TEXT in entries:
            return units_of_text(self.tokenizer.decode(ids))
        return [entry for entry in entries if entry >= 0]


class UnitStream:
    """Units of one write while its ids come; what comes out in all equals `UnitTable.units` of all of them.

    Bare digits wait until it is known what follows them. Make a new one, or `flush`, at every write.
    """

    def __init__(self, table: UnitTable) -> None:
        self._table = table
        self._text = TextStream(table.tokenizer)
        self._run = ""  # digits the next id may continue

    def push(self, token_id: int) -> list[int]:
        """Feed one id; returns the units now certain."""
        entry = self._table.entry(token_id)
        if entry != BY_TEXT and not self._run and not self._text.waiting:
            return [entry] if entry >= 0 else []
        text = self._run + self._text.push(token_id)
        trailing = TRAILING_RUN.search(text)
        self._run = trailing.group() if trailing else ""
        return units_of_text(text[: len(text) - len(self._run)])

    def flush(self) -> list[int]:
        """End the write; returns the units still waiting."""
        rest = self._run + self._text.flush()
        self._run = ""
        return units_of_text(rest)
