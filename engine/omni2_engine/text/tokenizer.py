"""Text ↔ token ids with a byte-level BPE `tokenizer.json`, and text out of a stream of ids in whole characters.

Every id stands for some bytes; text is those bytes put together and read as UTF-8 (spec §1.1, §1.2).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders

from omni2_engine.errors import EngineDirectoryError
from omni2_engine.system.file_content import read_text


def _byte_alphabet() -> dict[str, int]:
    """The byte-level alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 onwards in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTES = _byte_alphabet()


class TextTokenizer:
    """A byte-level tokenizer; added tokens inside a text are recognised.

    Args:
        source: the tokenizer's JSON text (what a `tokenizer.json` holds).

    Attributes:
        added_tokens: texts that are one token at any place, control tokens among them.

    Raises:
        EngineDirectoryError: the text is no byte-level tokenizer.
    """

    def __init__(self, source: str) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(source)
        except Exception as error:  # the library raises bare Exception for any fault of the file
            raise EngineDirectoryError(f"the tokenizer cannot be read: {error}", "build the engine again") from error
        if not isinstance(self._tokenizer.decoder, decoders.ByteLevel):
            raise EngineDirectoryError("the tokenizer is not byte-level", "use a checkpoint with Qwen2 tokenizers")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder().values()
        self.added_tokens = frozenset(token.content for token in added)
        self._special = frozenset(token.content for token in added if token.special)

    @classmethod
    def load(cls, path: Path) -> TextTokenizer:
        """Read a `tokenizer.json`.

        Raises:
            EngineDirectoryError: the file is missing, unreadable or no byte-level tokenizer.
        """
        try:
            return cls(read_text(path))
        except (OSError, ValueError) as error:
            raise EngineDirectoryError(f"{path} cannot be read: {error}", "build the engine again") from error

    @property
    def size(self) -> int:
        """One more than the highest id."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; nothing is put before or after it."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD, ids without a token vanish."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special))

    def token_id(self, token: str) -> int | None:
        """The id of a token spelled as in the vocabulary, None if there is none."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def token_bytes(self, token_id: int, skip_special: bool = True) -> bytes:
        """The bytes one id adds to the text: none if it has no token, or a special one when those are skipped."""
        token: str | None = self._tokenizer.id_to_token(token_id)
        if token is None or (skip_special and token in self._special):
            return b""
        try:
            return bytes(BYTES[character] for character in token)
        except KeyError:  # an added token spelled outside the alphabet stands for itself
            return token.encode()


class TextStream:
    """Text from ids one at a time, never half a character; what comes out in all equals `TextTokenizer.decode`.

    Args:
        tokenizer: gives each id's bytes.
        skip_special: leave special tokens out of the text.
    """

    def __init__(self, tokenizer: TextTokenizer, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    @property
    def waiting(self) -> bool:
        """Whether bytes of an unfinished character are held back."""
        return bool(self._decoder.getstate()[0])

    def push(self, token_id: int) -> str:
        """Feed one id; returns the characters it completes, perhaps none."""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id, self._skip_special))

    def flush(self) -> str:
        """End the text: U+FFFD for an unfinished character, and the stream starts anew."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
