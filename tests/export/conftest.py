"""A checkpoint to spoil, and the command that builds it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from omni2_engine.cli.app import run as command
from omni2_export.checkpoint.safetensors_file import INDEX
from omni2_export.tokenizer_files import load_tokenizer

TOKENIZERS = ("omni2", "omni2/tts_tokenizer")


class Copy:
    """A checkpoint to spoil, and the command that builds it."""

    def __init__(self, root: Path, source: Any, voice: Path) -> None:
        self.root, self.voice, self.engine = root, voice, root / "engine"
        self.model = Path(shutil.copytree(source.model, root / "omni2"))
        self.decoder = Path(shutil.copytree(source.decoder, root / "decoder"))

    def build(self, *more: str) -> int:
        """`omni2-engine build`; its exit status."""
        places = [str(self.model), "--decoder", str(self.decoder), "--voice", str(self.voice), "-o", str(self.engine)]
        return command(["build", *places, *more])

    def shard(self) -> list[Path]:
        """Split the model's weights over two files and an index."""
        tensors = load_file(self.model / "model.safetensors")
        (self.model / "model.safetensors").unlink()
        names = sorted(tensors)
        shards = [names[::2], names[1::2]]
        files = [self.model / f"model-{i:05d}-of-00002.safetensors" for i in (1, 2)]
        for file, part in zip(files, shards, strict=True):
            save_file({name: tensors[name] for name in part}, file)
        weight_map = {name: file.name for file, part in zip(files, shards, strict=True) for name in part}
        (self.model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        return files


@pytest.fixture
def copy(tiny_checkpoint: Any, repository: Path, tmp_path: Path) -> Copy:
    return Copy(tmp_path, tiny_checkpoint, repository / "examples" / "voice.wav")


@pytest.fixture
def refused(copy: Copy, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Builds, expects an error of one line and a remedy, and returns it."""

    def refuse(*more: str) -> str:
        capsys.readouterr()
        assert copy.build(*more) == 1 and not copy.engine.exists()
        stages, error, message = capsys.readouterr().err.partition("error: ")
        assert error and "Traceback" not in stages + message
        return " ".join(message.split())

    return refuse


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit a JSON file in place, or replace its content by what `edit` returns."""
    content = json.loads(path.read_text(encoding="utf-8"))
    changed = edit(content)
    path.write_text(json.dumps(content if changed is None else changed, ensure_ascii=False), encoding="utf-8")


def write_tokenizer_json(directory: Path) -> None:
    """Give a directory the `tokenizer.json` that a build makes of its other files."""
    (directory / "tokenizer.json").write_text(load_tokenizer(directory).source, encoding="utf-8")
