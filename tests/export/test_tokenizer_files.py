"""tokenizer.json of a checkpoint directory, completed or made from vocab.json and merges.txt; same ids either way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from omni2_engine.errors import CheckpointError
from omni2_engine.text import TextTokenizer, UnitTable
from omni2_engine.text.tokenizer import BYTES
from omni2_export.tokenizer_files import chat_template, load_tokenizer, special_tokens, write_tokenizer

TEXTS = [
    "Hello, what can I do for you?", "it'S we'll THEY'RE 'twas", "digits 0123456789 4567 ١٢٣ ４５ ²",
    "naïve e\u0301 Å Å",
    "你好，世界！", "日本語のテスト。", "Привет, мир", "हिन्दी नमस्ते", "😀👩‍👩‍👧🏳️‍🌈",
    "  spaces   and\ttabs \n\n new\r\n lines  \n",
    "<|im_start|>user\n<speech><|im_end|>\n", "<12><0><sep> <|endoftext|>x", "", " ", "\n", "a\u00a0b\u3000c",
    "{'k': [1, 2.5]};;--",
]  # fmt: skip
GIVEN = ["omni2_tiny", "omni2_tiny/tts_tokenizer"]
FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({k: v for k, v in (content | changes).items() if v is not None}), encoding="utf-8")


def made(directory: Path) -> Path:
    """A small directory without tokenizer.json; added tokens follow the vocabulary of 259 entries."""
    directory.mkdir(parents=True)
    vocab = dict(BYTES)
    merges = ["h e", "l l", "he ll"]
    for merge in merges:
        vocab[merge.replace(" ", "")] = len(vocab)
    (directory / "vocab.json").write_text(json.dumps(vocab))
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    edit(
        directory / "tokenizer_config.json",
        tokenizer_class="Qwen2Tokenizer",
        eos_token="<end>",
        unk_token="<end>",
        pad_token="<end>",
    )
    return directory


def added(**tokens: int) -> dict[str, Any]:
    """An `added_tokens_decoder`; names ending in _s are special."""
    return {
        str(token_id): {"content": f"<{name.removesuffix('_s')}>", "special": name.endswith("_s"), "normalized": False}
        for name, token_id in tokens.items()
    }


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("config", ["with added tokens", "older layout"])
def test_both_ways_equal_transformers(shared: Path, tmp_path: Path, name: str, config: str) -> None:
    source = shared / "checkpoints" / "tiny" / name
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in FILES:
        shutil.copyfile(source / file, bare / file)
    if config == "older layout":  # ids stand in added_tokens.json alone
        edit(bare / "tokenizer_config.json", added_tokens_decoder=None)
    taken, built = load_tokenizer(source), load_tokenizer(bare)
    theirs = AutoTokenizer.from_pretrained(source)
    assert taken.eos == built.eos == theirs.eos_token_id and taken.pad == built.pad == theirs.pad_token_id
    for text in TEXTS:
        wanted = theirs(text, add_special_tokens=False).input_ids
        assert taken.tokenizer.encode(text) == wanted
        assert built.tokenizer.encode(text) == wanted
        assert built.tokenizer.decode(wanted) == theirs.decode(wanted, skip_special_tokens=True)
    for token_id in range(len(theirs)):
        assert built.tokenizer.token_bytes(token_id) == taken.tokenizer.token_bytes(token_id)


@given(text=st.text(st.characters(codec="utf-8")))
@settings(deadline=None)
def test_any_text_equals_transformers(shared: Path, text: str) -> None:
    ours, theirs = _pair(shared / "checkpoints" / "tiny" / "omni2_tiny")
    ids = ours.encode(text)
    assert ids == theirs(text, add_special_tokens=False).input_ids
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


_PAIRS: dict[Path, tuple[TextTokenizer, Any]] = {}


def _pair(directory: Path) -> tuple[TextTokenizer, Any]:
    if directory not in _PAIRS:
        _PAIRS[directory] = load_tokenizer(directory).tokenizer, AutoTokenizer.from_pretrained(directory)
    return _PAIRS[directory]


def test_made_with_transformers_as_witness(tmp_path: Path) -> None:
    directory = made(tmp_path / "t")
    edit(directory / "tokenizer_config.json", added_tokens_decoder=added(end_s=259, u7=260, u12=261, sep=262))
    ours, theirs = load_tokenizer(directory).tokenizer, AutoTokenizer.from_pretrained(directory)
    for text in [*TEXTS, "hello<u7>hell o<u12> <sep><end>"]:
        ids = ours.encode(text)
        assert ids == theirs(text, add_special_tokens=False).input_ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert UnitTable.build(ours).units([260, 261, 259, 262, 260]) == [7, 12, 7]


def test_added_tokens_keep_their_ids_across_gaps(tmp_path: Path) -> None:
    directory = made(tmp_path / "t")
    edit(directory / "tokenizer_config.json", added_tokens_decoder=added(end_s=300, u7=1000, u12=270))
    tokenizer = load_tokenizer(directory).tokenizer
    assert tokenizer.encode("he<u7>l<end><u12>") == [256, 1000, BYTES["l"], 300, 270]
    assert tokenizer.decode([270, 300, 1000]) == "<u12><u7>"
    assert tokenizer.size == 1001
    edit(directory / "tokenizer_config.json", added_tokens_decoder=added(end_s=5))
    with pytest.raises(CheckpointError, match="two tokens"):
        load_tokenizer(directory)


def test_tokenizer_json_is_completed(tmp_path: Path) -> None:
    directory = made(tmp_path / "t")
    edit(directory / "tokenizer_config.json", added_tokens_decoder=added(end_s=259, sep=260))
    document = json.loads(load_tokenizer(directory).source)
    document["added_tokens"] = [token | {"special": False} for token in document["added_tokens"] if token["id"] == 259]
    (directory / "tokenizer.json").write_text(json.dumps(document))
    edit(directory / "added_tokens.json", **{"<late>": 261})
    loaded = load_tokenizer(directory)
    assert loaded.tokenizer.encode("<sep><late><end>") == [260, 261, 259]
    assert loaded.tokenizer.decode([260, 261, 259]) == "<sep><late>"  # and the end token is special, as configured


def test_named_tokens_are_special_and_there(tmp_path: Path) -> None:
    directory = made(tmp_path / "t")
    edit(
        directory / "tokenizer_config.json",
        added_tokens_decoder=added(end=259),
        eos_token={"content": "<end>", "lstrip": False},
        pad_token="<new>",
        additional_special_tokens=["<more>"],
    )
    loaded = load_tokenizer(directory)
    assert loaded.eos == 259 and loaded.pad is not None and loaded.pad > 259
    assert loaded.tokenizer.decode([259, loaded.pad, BYTES["a"]]) == "a"
    assert special_tokens(directory)["additional_special_tokens"] == ["<more>"]


def test_names_from_the_older_file(tmp_path: Path) -> None:
    directory = made(tmp_path / "t")
    edit(directory / "tokenizer_config.json", eos_token=None, added_tokens_decoder=added(end=259, stop=260))
    edit(directory / "special_tokens_map.json", eos_token={"content": "<stop>"})
    assert load_tokenizer(directory).eos == 260


def test_written_file_is_the_one_used(tmp_path: Path) -> None:
    directory = made(tmp_path / "t")
    loaded = write_tokenizer(directory, tmp_path / "tokenizer.json")
    again = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert again.encode("hello 12") == loaded.tokenizer.encode("hello 12")


def test_chat_template_places(tmp_path: Path) -> None:
    directory = made(tmp_path / "t")
    with pytest.raises(CheckpointError, match="chat template"):
        chat_template(directory)
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    edit(directory / "tokenizer_config.json", chat_template=named)
    assert chat_template(directory) == "D"
    edit(directory / "tokenizer_config.json", chat_template="C")
    assert chat_template(directory) == "C"
    edit(directory / "chat_template.json", chat_template="J")
    assert chat_template(directory) == "J"
    (directory / "chat_template.jinja").write_text("F")
    assert chat_template(directory) == "F"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("vocab.json", "[]"), ("vocab.json", '{"a": "b"}'), ("vocab.json", '{"a": -1}'), ("merges.txt", "a\n"),
        ("merges.txt", "x y\n"), ("merges.txt", "a b c\n"), ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "y"}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"7": {"special": true}}}'),
        ("tokenizer_config.json", '{"eos_token": 3}'),
        ("tokenizer_config.json", '{"tokenizer_class": "BertTokenizer"}'),
        ("tokenizer_config.json", '{"additional_special_tokens": 5}'), ("added_tokens.json", '{"a": 1.5}'),
        ("tokenizer.json", "{}"), ("tokenizer.json", '{"model": {"vocab": []}}'),
        ("tokenizer.json", '{"model": {"vocab": {}}, "added_tokens": [3]}'),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}'),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": [{"content": "a"}]}'),
    ],
)  # fmt: skip
def test_broken_files(tmp_path: Path, file: str, content: str) -> None:
    directory = made(tmp_path / "t")
    (directory / file).write_text(content)
    with pytest.raises(CheckpointError):
        load_tokenizer(directory)
