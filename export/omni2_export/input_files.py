"""Files of a checkpoint, looked for and found to be what their names say before anything reads them."""

from __future__ import annotations

from pathlib import Path

from omni2_engine.errors import CheckpointError
from omni2_engine.system.file_content import placeholder


def require_content(path: Path, *, text: bool) -> None:
    """Refuse a file that something else stands in for.

    Args:
        path: the file; a missing one is left to its reader.
        text: whether it should hold text; else weights.

    Raises:
        CheckpointError: it is a git-lfs pointer, a web page, an AppleDouble file or a link to nothing.
    """
    if found := placeholder(path, text=text):
        raise CheckpointError(*found)


def is_there(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        CheckpointError: there is a link of that name to nothing; what it led to is not to be replaced by a default.
    """
    if path.is_file():
        return True
    require_content(path, text=True)
    return False
