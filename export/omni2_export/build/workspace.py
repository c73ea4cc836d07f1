"""The unfinished engine directory: stages are built one by one in `ENGINE.partial` and kept with a key of their inputs.

A finished stage is reused by the next run with the same inputs; a half-written one is removed. Only when all are there
does the directory get its name. Nothing is removed or replaced but what is known to be a build's: a folder with the
build's mark, and an engine directory that holds nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from omni2_engine.errors import Omni2Error
from omni2_engine.model.manifest import MANIFEST, RUNTIME_CACHE, TIMING_CACHE, FileEntry, Manifest, StageEntry, sha256
from omni2_engine.system.file_content import read_text
from omni2_engine.system.locked_file import NAME_LAST, LockedFile, open_locked

RECORD = "stages.json"
SCRATCH = "unfinished"
REPLACED = "replaced"  # where the engine that makes way is moved, below the unfinished one
MARK = "unfinished-build.txt"  # tells that the folder is a build's, and is locked as long as one works there
MARK_TEXT = "omni2-engine build makes an engine here. Run the build again, or remove this folder.\n"
KEPT = (MARK, RECORD, RUNTIME_CACHE, TIMING_CACHE)  # files that belong to no stage
OF_THE_SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini")  # file managers leave them in each folder they open


class Workspace:
    """`ENGINE.partial` while an engine is being built; a context manager, as long as which no other build can use it.

    Args:
        target: the engine directory to make; behind a link, the place it leads to.

    Raises:
        Omni2Error: the target is something else than an engine directory, cannot be written to, or is being built.
    """

    def __init__(self, target: Path) -> None:
        self.target = Path(os.path.realpath(target))
        if self.target in (Path.cwd(), *Path.cwd().parents):
            raise Omni2Error(f"{target} cannot be replaced from inside it", "name a folder of its own with -o")
        self.path = self.target.with_name(self.target.name + ".partial")
        _check_replaceable(self.target)
        self._mark = _claim(self.path)
        try:
            self._settle_replaced()
            _check_movable(self.target, self.path)
            self._stages: dict[str, dict[str, Any]] = self._read_record()
            self._remove_leftovers()
        except BaseException:
            self._leave()
            raise

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        """Leave the folder to the next build, or remove it where no stage was finished."""
        with contextlib.suppress(OSError):
            if [path.name for path in self.path.iterdir()] == [MARK]:
                self._mark.remove()
                self.path.rmdir()
        self._mark.file.close()

    def has(self, stage: str, key: str) -> bool:
        """Whether a stage with these inputs is there already, here or in the engine that is to be replaced."""
        record = self._stages.get(stage)
        if record is not None and record["key"] == key:
            return True
        return self._adopt(stage, key)

    def build(self, stage: str, key: str, make: Callable[[Path], None]) -> None:
        """Build a stage in a scratch directory and move its files in place once all are whole."""
        scratch = self.path / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            make(scratch)
            self._forget(stage)
            entries = {}
            for file in sorted(path for path in scratch.rglob("*") if path.is_file()):
                name = file.relative_to(scratch).as_posix()
                entries[name] = {"size": file.stat().st_size, "sha256": sha256(file)}
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, self.path / name)
            self._stages[stage] = {"key": key, "files": entries}
            self._write_record()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def entries(self) -> dict[str, FileEntry]:
        """Every finished file."""
        return {name: FileEntry(**entry) for record in self._stages.values() for name, entry in record["files"].items()}

    def stages(self) -> dict[str, StageEntry]:
        """Key and files of every finished stage."""
        return {
            stage: StageEntry(key=record["key"], files=tuple(record["files"])) for stage, record in self._stages.items()
        }

    def keep_only(self, stages: set[str]) -> None:
        """Drop stages that this engine does not have (a voice no longer asked for)."""
        for stage in set(self._stages) - stages:
            self._forget(stage)

    def carry_over(self, name: str) -> Path:
        """The place of a file that no stage owns and that outlives builds, such as a cache; with what the engine that
        is to be replaced has there."""
        place, old = self.path / name, self.target / name
        if not place.exists() and old.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old, place)
        return place

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest and give the directory its name; an engine of that name makes way at the last moment, and
        comes back if that fails.

        Raises:
            Omni2Error: the disk is full or the place cannot be written.
        """
        retired = self.path / REPLACED
        try:
            (self.path / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
            if self.target.exists():
                os.replace(self.target, retired)
            if not NAME_LAST:
                self._mark.remove()
            os.replace(self.path, self.target)
        except BaseException as error:
            if retired.exists() and not self.target.exists():
                os.replace(retired, self.target)
            if isinstance(error, OSError):
                raise Omni2Error(f"cannot finish {self.target}: {error}", "run the same build again") from error
            raise
        shutil.rmtree(self.target / REPLACED, ignore_errors=True)
        for name in (MARK, RECORD):
            (self.target / name).unlink(missing_ok=True)

    def _settle_replaced(self) -> None:
        """An engine that had made way when a build was killed comes back."""
        retired = self.path / REPLACED
        if (retired / MANIFEST).is_file() and not self.target.exists():
            os.replace(retired, self.target)
        shutil.rmtree(retired, ignore_errors=True)

    def _read_record(self) -> dict[str, dict[str, Any]]:
        try:
            stages = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
            return {
                stage: record
                for stage, record in stages.items()
                if all(self._is_whole(name, entry) for name, entry in record["files"].items())
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _is_whole(self, name: str, entry: dict[str, Any]) -> bool:
        file = self.path / name
        return file.is_file() and file.stat().st_size == entry["size"]

    def _write_record(self) -> None:
        temporary = self.path / f"{RECORD}.new"
        temporary.write_text(json.dumps(self._stages, indent=1), encoding="utf-8")
        os.replace(temporary, self.path / RECORD)

    def _remove_leftovers(self) -> None:
        known = {self.path / name for record in self._stages.values() for name in record["files"]}
        for file in self.path.rglob("*"):
            if file.is_file() and file not in known and file.name not in KEPT:
                file.unlink()

    def _forget(self, stage: str) -> None:
        for name in self._stages.pop(stage, {"files": {}})["files"]:
            (self.path / name).unlink(missing_ok=True)

    def _adopt(self, stage: str, key: str) -> bool:
        """Link a stage's files from the existing engine if it was built from the same inputs."""
        try:
            old = Manifest.model_validate_json(read_text(self.target / MANIFEST))
        except (OSError, ValueError):
            return False
        names = old.stages.get(stage)
        if names is None or names.key != key:
            return False
        for name in names.files:
            source, place = self.target / name, self.path / name
            if not source.is_file() or source.stat().st_size != old.files[name].size:
                return False
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            try:
                os.link(source, place)
            except OSError:
                shutil.copyfile(source, place)
        files = {name: old.files[name].model_dump() for name in names.files}
        self._stages[stage] = {"key": key, "files": files}
        self._write_record()
        return True


def _check_replaceable(target: Path) -> None:
    """Refuse a target that holds anything but an engine directory.

    Raises:
        Omni2Error: it does, or that cannot be told.
    """
    try:
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return
        if not (target / MANIFEST).is_file():
            raise Omni2Error(f"{target} exists and is not an engine directory", "choose another name with -o")
        listed = _listed(target / MANIFEST)
        strays = _strays(target, listed)
    except OSError as error:
        raise Omni2Error(f"{target} cannot be read: {error.strerror}", "choose another name with -o") from error
    if strays:
        more = f" and {len(strays) - 1} more files" if strays[1:] else ""
        raise Omni2Error(
            f"{target} would be replaced, and holds {strays[0]}{more}, which no build made",
            "move that elsewhere, or choose another name with -o",
        )


def _listed(manifest: Path) -> set[str]:
    """The files that a manifest of any version lists.

    Raises:
        Omni2Error: it is damaged, or none of ours.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(read_text(manifest))
        if "schema_version" in content:
            return set(content["files"])
    except (ValueError, TypeError, KeyError):
        pass
    raise Omni2Error(
        f"{manifest} does not say which files a build made", f"remove {manifest.parent}, or choose another name with -o"
    )


def _strays(target: Path, listed: set[str]) -> list[str]:
    """Files of an engine directory that no build put there."""
    own = {MANIFEST, *listed}
    strays = []
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if (path.is_dir() and not path.is_symlink()) or name in own or path.name in (*KEPT, *OF_THE_SYSTEM):
            continue
        cache = path.name.startswith(f".{RUNTIME_CACHE}.") or path.name == f"{TIMING_CACHE}.new"  # half-written
        left = name.startswith(f"{REPLACED}/") and (target / RECORD).is_file()  # by a build killed at its very end
        if not cache and not left:
            strays.append(name)
    return strays


def _claim(path: Path) -> LockedFile:
    """Make the folder of a build, or go on in one that a build left.

    Returns:
        The folder's mark, locked.

    Raises:
        Omni2Error: the folder cannot be made, another build works there, or it is not a build's.
    """
    try:
        if not _make(path) and not (path / MARK).is_file():
            raise Omni2Error(
                f"{path} is in the way: the build would work there, and no build made it",
                "move it elsewhere, or choose another name with -o",
            )
        mark = open_locked(path / MARK)
        if mark is None:
            raise Omni2Error(f"another build is writing {path}", "let it finish, or choose another name with -o")
        mark.file.write(MARK_TEXT.encode())
        mark.file.flush()
    except OSError as error:
        raise Omni2Error(f"cannot create {path}: {error.strerror}", "choose a writable place with -o") from error
    return mark


def _make(path: Path) -> bool:
    """Make a folder; False if it exists."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        return False
    return True


def _check_movable(target: Path, workspace: Path) -> None:
    """Refuse a target that could not make way: a mount point, or another owner's folder in one like /tmp.

    No system renames a folder onto one that holds something, as the workspace does; any other reason is told first.

    Raises:
        Omni2Error: it could not.
    """
    if not target.exists():
        return
    try:
        os.rename(target, workspace)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise Omni2Error(
                f"{target} cannot be replaced: {error.strerror}", "name a folder below it, or another place, with -o"
            ) from error
