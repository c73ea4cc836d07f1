"""The unfinished engine directory: stages are built one by one in `ENGINE.partial` and kept with a key of their inputs.

A finished stage is reused by the next run with the same inputs; a half-written one is removed. Only when all are there
does the directory get its name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from omni2_engine.errors import Omni2Error
from omni2_engine.manifest import MANIFEST, FileEntry, Manifest, StageEntry, sha256

RECORD = "stages.json"
SCRATCH = "unfinished"


class Workspace:
    """`ENGINE.partial` while an engine is being built.

    Args:
        target: the engine directory to make.

    Raises:
        Omni2Error: the target is something else than an engine directory, or cannot be written to.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".partial")
        if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
            raise Omni2Error(f"{target} exists and is not an engine directory", "choose another name with -o")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Omni2Error(
                f"cannot create {self.path}: {error.strerror}", "choose a writable place with -o"
            ) from error
        self._stages: dict[str, dict] = self._read_record()
        self._remove_leftovers()

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

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest and give the directory its name; an engine of that name is replaced in the same moment."""
        (self.path / RECORD).unlink(missing_ok=True)
        (self.path / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        retired = self.target.with_name(self.target.name + ".replaced")
        shutil.rmtree(retired, ignore_errors=True)
        if self.target.exists():
            os.replace(self.target, retired)
        os.replace(self.path, self.target)
        shutil.rmtree(retired, ignore_errors=True)

    def discard(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _read_record(self) -> dict[str, dict]:
        try:
            stages = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
            return {
                stage: record
                for stage, record in stages.items()
                if all(self._is_whole(name, entry) for name, entry in record["files"].items())
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _is_whole(self, name: str, entry: dict) -> bool:
        file = self.path / name
        return file.is_file() and file.stat().st_size == entry["size"]

    def _write_record(self) -> None:
        temporary = self.path / f"{RECORD}.new"
        temporary.write_text(json.dumps(self._stages, indent=1), encoding="utf-8")
        os.replace(temporary, self.path / RECORD)

    def _remove_leftovers(self) -> None:
        known = {self.path / name for record in self._stages.values() for name in record["files"]}
        for file in self.path.rglob("*"):
            if file.is_file() and file not in known and file.name != RECORD:
                file.unlink()

    def _forget(self, stage: str) -> None:
        for name in self._stages.pop(stage, {"files": {}})["files"]:
            (self.path / name).unlink(missing_ok=True)

    def _adopt(self, stage: str, key: str) -> bool:
        """Link a stage's files from the existing engine if it was built from the same inputs."""
        try:
            old = Manifest.model_validate_json((self.target / MANIFEST).read_text(encoding="utf-8"))
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
