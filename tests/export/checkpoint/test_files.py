"""Files that lie: truncated, flipped or hostile ones end in a CheckpointError or are read, and nothing in them runs."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni2_engine.errors import CheckpointError
from omni2_export.checkpoint import open_checkpoint
from omni2_export.checkpoint.names import expected_shapes
from omni2_export.checkpoint.plain_yaml import TAG, read_yaml
from omni2_export.checkpoint.safetensors_file import SafetensorsFile
from omni2_export.checkpoint.torch_file import TorchFile
from omni2_export.fields import read_json

from .conftest import Paths, Synthetic

FILES = [
    "omni2/model.safetensors",
    "omni2/config.json",
    "omni2/generation_config.json",
    "omni2/tokenizer_config.json",
    "omni2/vocab.json",
    "omni2/tts_tokenizer/tokenizer_config.json",
    "decoder/cosyvoice.yaml",
    "decoder/flow.pt",
    "decoder/hift.pt",
    "whisper/large.pt",
]
SLOW = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def read_all(paths: Paths) -> None:
    checkpoint = open_checkpoint(paths.model, decoder=paths.decoder)
    for module, shapes in expected_shapes(checkpoint.config).items():
        for name in shapes:
            checkpoint.modules[module].read(name)


def read_or_refuse(paths: Paths) -> None:
    try:
        read_all(paths)
    except CheckpointError as error:
        assert error.problem and "\n" not in error.problem


@pytest.mark.parametrize("name", FILES)
@SLOW
@given(data=st.data())
def test_truncated_files(synthetic: Synthetic, tmp_path_factory: pytest.TempPathFactory, name: str, data: Any) -> None:
    root = tmp_path_factory.mktemp("truncated")
    paths = synthetic.write(root)
    content = (root / name).read_bytes()
    (root / name).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    read_or_refuse(paths)
    shutil.rmtree(root)


@pytest.mark.parametrize("name", FILES)
@SLOW
@given(data=st.data())
def test_flipped_bytes(synthetic: Synthetic, tmp_path_factory: pytest.TempPathFactory, name: str, data: Any) -> None:
    root = tmp_path_factory.mktemp("flipped")
    paths = synthetic.write(root)
    content = bytearray((root / name).read_bytes())
    # Headers, archives' directories and texts are where a flip does harm: most of the flips go to both ends.
    end = st.integers(1, min(4000, len(content)))
    place = st.one_of(end.map(lambda n: n - 1), end.map(lambda n: len(content) - n), st.integers(0, len(content) - 1))
    for index, byte in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)):
        content[index] = byte
    (root / name).write_bytes(content)
    with np.errstate(all="ignore"):
        read_or_refuse(paths)
    shutil.rmtree(root)


@SLOW
@given(text=st.text(max_size=60))
def test_any_text_is_yaml_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(("a: &x !ref <b>\nb: " + text).encode("utf-8", "surrogatepass"))
    with contextlib.suppress(CheckpointError):
        read_yaml(path)


@SLOW
@given(
    header=st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_header_is_refused_or_read(tmp_path: Path, header: Any) -> None:
    text = json.dumps({"a": {"dtype": "F32", "shape": header, "data_offsets": [0, 4]}, "b": header}).encode()
    path = tmp_path / "any.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(CheckpointError):
        SafetensorsFile(path)


class Malice:
    """Makes a file when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("where", ["decoder/flow.pt", "decoder/hift.pt", "whisper/large.pt"])
def test_code_in_a_pickle_does_not_run(synthetic: Synthetic, tmp_path: Path, where: str) -> None:
    paths = synthetic.write(tmp_path)
    mark = tmp_path / "ran"
    torch.save({"encoder.conv1.weight": torch.zeros(1), "x": Malice(mark)}, tmp_path / where)
    with pytest.raises(CheckpointError, match=Path(where).name):
        read_all(paths)
    (tmp_path / where).write_bytes(pickle.dumps(Malice(mark)))  # and the same without the archive around it
    with pytest.raises(CheckpointError, match=Path(where).name):
        read_all(paths)
    assert not mark.exists()


@pytest.mark.parametrize(
    "line",
    [
        "x: !!python/object/apply:os.mkdir ['{}']",
        "x: !apply:os.mkdir ['{}']",
        "x: !new:os.mkdir ['{}']",
        "x: !apply:os.system 'mkdir {}'",
        "x: !ref <sample_rate> * __import__('os').mkdir('{}')",
    ],
)
def test_code_in_a_yaml_does_not_run(tmp_path: Path, line: str) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "evil.yaml"
    path.write_text("sample_rate: 3\n" + line.format(mark) + "\n")
    try:
        content = read_yaml(path)
    except CheckpointError:
        assert "!!python" in line
    else:
        assert isinstance(content, dict) and isinstance(content["x"], (str, list))
    assert not mark.exists()


def test_yaml_references(tmp_path: Path) -> None:
    path = tmp_path / "refs.yaml"
    path.write_text(
        "n: 3\nname: ab\nt: {u: {v: 7}}\nwhole: !ref <t>\ninner: !ref <t[u][v]>\nproduct: !ref <n> * (2 + <n>)\n"
        "joined: !ref <name>/<n>\nchain: !ref <product>\nclass: !new:a.b.C\n    k: !ref <n>\n"
        "f: !name:g.h\nl: !tuple (1, 2)\n"
    )
    assert read_yaml(path) == {
        "n": 3, "name": "ab", "t": {"u": {"v": 7}}, "whole": {"u": {"v": 7}}, "inner": 7, "product": 15,
        "joined": "ab/3", "chain": 15, "class": {TAG: "new:a.b.C", "k": 3}, "f": "", "l": "(1, 2)",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "a: !ref <b>\nb: !ref <a>",
        "a: &x [*x]",
        "a: &x {k: !ref <a>}",
        "a: !ref <nothing>",
        "[" * 5000,
        "a: !new:C {<<: *no}",
        "? [1]\n: 2",
        "x: 2024-99-99",
        "a: \x00",
    ],
)
def test_broken_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"broken\.yaml"):
        read_yaml(path)


def test_aliases_cannot_blow_up(tmp_path: Path) -> None:
    path = tmp_path / "laughs.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    path.write_text("\n".join(lines))
    assert isinstance(read_yaml(path), dict)  # shared, not copied: 9³⁰ items would not fit anywhere


def test_deep_json(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"deep\.json"):
        read_json(path)


def test_torch_files_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.arange(6.0).reshape(2, 3).t(), "step": 3}, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert np.array_equal(TorchFile(path).read("a"), [[0, 3], [1, 4], [2, 5]])
    for content in (
        [torch.zeros(1)],
        {"a": 1},
        {"a": torch.zeros(2).to_sparse()},
        {"a": torch.zeros(2, dtype=torch.cfloat)},
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"weights\.pt"):
            TorchFile(path)


def test_unknown_storage_type(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match="F8_E4M3"):
        SafetensorsFile(path)
