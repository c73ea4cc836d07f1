"""Directories and Hugging Face ids; no test reaches for the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omni2_engine.errors import CheckpointError
from omni2_export.checkpoint import resolve


def test_resolve(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path
    for name in ("no/such/dir", "./here", "nodir", str(tmp_path / "absent")):
        with pytest.raises(CheckpointError, match="not a directory"):
            resolve(name)
    with pytest.raises(CheckpointError, match=r"huggingface\.co/ICTNLP/LLaMA-Omni2-0\.5B"):
        resolve("ICTNLP/LLaMA-Omni2-0.5B", cache=tmp_path)


def test_users_that_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("~nobody-of-this-name", "~nobody-of-this-name/model"):
        with pytest.raises(CheckpointError, match="there is no user nobody-of-this-name"):
            resolve(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model") == tmp_path / "model"


def test_resolve_hands_settings_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve("a/b", revision="v1", token="t", cache=tmp_path / "cache") == tmp_path
    assert (asked["name"], asked["revision"], asked["token"], asked["cache_dir"]) == (
        "a/b",
        "v1",
        "t",
        tmp_path / "cache",
    )


def test_resolve_reads_the_cache_offline(tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    (snapshot := repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text("{}")
    assert resolve("a/b", cache=tmp_path) == snapshot
