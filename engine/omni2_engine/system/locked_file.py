"""A file that one process at a time writes, locked against the others as long as it is open."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

# Windows neither renames nor removes an open file: there the lock is given back first.
NAME_LAST = os.name != "nt"


class LockedFile:
    """An open file with a lock; made by `open_locked`.

    Attributes:
        path: its name.
        file: open for reading and writing, at its beginning.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file

    def rename(self, target: Path) -> None:
        """Give the file another name and close it; a file of that name is replaced.

        Raises:
            OSError: it cannot have that name; it keeps the one it has.
        """
        self.file.flush()
        if not NAME_LAST:
            self.file.close()
        os.replace(self.path, target)
        self.file.close()

    def remove(self) -> None:
        """Remove the file and close it."""
        if not NAME_LAST:
            self.file.close()
        self.path.unlink(missing_ok=True)
        self.file.close()


def open_locked(path: Path) -> LockedFile | None:
    """Open a file, made if it is missing, and lock it until it is closed.

    Returns:
        The file, whose content is left alone; None if another process, or another part of this one, has it.

    Raises:
        OSError: it cannot be opened; FileExistsError if something else than a regular file has the name, or if the file
            was there before in a file system without locks, so that it might be another's.
    """
    while True:
        file, new = _open(path)
        try:
            mine = lock_descriptor(file.fileno(), blocking=False)
        except OSError as error:
            mine = new
            if not new:
                file.close()
                reason = f"{path.name} exists, and this file system has no locks that tell whose it is"
                raise FileExistsError(errno.EEXIST, reason, str(path)) from error
        if mine and _has_name(file, path):
            return LockedFile(path, file)
        file.close()
        if not mine:
            return None


def _open(path: Path) -> tuple[BinaryIO, bool]:
    """The file, and whether it is new."""
    while True:
        with suppress(FileExistsError):
            return path.open("x+b"), True
        with suppress(FileNotFoundError):  # removed in between
            if not stat.S_ISREG(path.lstat().st_mode):
                raise FileExistsError(errno.EEXIST, f"{path.name} exists and is no regular file", str(path))
            return path.open("r+b"), False


def _has_name(file: BinaryIO, path: Path) -> bool:
    """Whether a file still has its name; its owner may have renamed or removed it before the lock was ours."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
