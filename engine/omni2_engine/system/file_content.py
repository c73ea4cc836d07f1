"""What a file holds in truth: text in the encoding its byte-order mark names, or something in the place of the file.

Downloads and copies leave things under the right name: git-lfs pointers, web pages, macOS attributes, links to nothing.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from pathlib import Path

HEAD = 512  # bytes that tell what a file is
APPLE_DOUBLE = (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")  # and AppleSingle
LFS_POINTER = re.compile(rb"version https?://(git-lfs|hawser)\.github\.com/spec/v\d")
WEB_PAGE = re.compile(rb"\s*<(!doctype\s+html|html|head|body|\?xml)\b", re.IGNORECASE)
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
AGAIN = "download the file again"


def read_text(path: Path) -> str:
    """A text file without its byte-order mark: UTF-8, or UTF-16 or UTF-32 where the mark says so.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not text in that encoding.
    """
    with path.open("rb") as file:
        head = file.read(4)
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")
    return path.read_text(encoding=encoding)


def placeholder(path: Path, *, text: bool) -> tuple[str, str] | None:
    """What is at `path` in the place of the file that should be there.

    Args:
        path: the file.
        text: whether it should hold text; a file of weights or sound should not.

    Returns:
        The problem and its remedy, for an error; None where the file may be what its name says, or does not exist.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with path.open("rb") as file:
            head = file.read(HEAD)
    except FileNotFoundError:
        return _dangling(path) if path.is_symlink() else None
    except (OSError, ValueError):
        return None
    if LFS_POINTER.match(head):
        return f"{path} is a git-lfs pointer, not the file itself", "run `git lfs pull` in that repository"
    if head.startswith(APPLE_DOUBLE):
        whole = path.name.removeprefix("._")
        return f"{path} is an AppleDouble file: what macOS notes about another file", f"delete it, and use {whole}"
    if WEB_PAGE.match(head):
        return f"{path} is a web page, not the file itself", f"{AGAIN}, logged in if the page asks for it"
    if not text and _is_text(head):
        first = head.decode("utf-8", "replace").strip().split("\n")[0]
        return f"{path} is a text file that begins with {first!r:.60}", AGAIN
    return None


def is_apple_double(path: Path) -> bool:
    """Whether a file is what macOS notes about another one, as it leaves it on disks of other systems."""
    try:
        with path.open("rb") as file:
            return file.read(4) in APPLE_DOUBLE
    except OSError:
        return False


def _dangling(path: Path) -> tuple[str, str]:
    goal = Path(os.readlink(path))
    if goal.parent.name == "blobs":  # a snapshot of the Hugging Face cache
        return f"{path} is a link to {goal.name}, which the Hugging Face cache has lost", "download the model again"
    return f"{path} is a link to {goal}, which does not exist", f"{AGAIN}, or mend the link"


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # whose last character may be cut
    except UnicodeDecodeError:
        return False
    return len(text) >= 8 and all(character.isprintable() or character.isspace() for character in text)
