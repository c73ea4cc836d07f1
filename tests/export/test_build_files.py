"""Checkpoints as downloads and copies leave them, through `build`: read for what they are, or named with a remedy."""

from __future__ import annotations

import codecs
import json
import shutil
from collections.abc import Callable

import pytest

from omni2_engine.cli.app import run as command
from omni2_export.checkpoint.safetensors_file import INDEX

from .conftest import TOKENIZERS, Copy, write_tokenizer_json

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 988097536\n"
APPLE = bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(64)
PAGE = b"\n<!DOCTYPE html>\n<html class=''><head><title>Hugging Face</title></head></html>\n"
REFUSAL = b'{"error":"Access to model ICTNLP/cosy2_decoder is restricted"}'
WEIGHTS = ("omni2/model.safetensors", "decoder/flow.safetensors", "decoder/hift.safetensors", "decoder/campplus.onnx")
TEXTS = (
    "omni2/config.json", "omni2/generation_config.json", "omni2/tokenizer_config.json", "omni2/vocab.json",
    "omni2/merges.txt", "omni2/added_tokens.json", "omni2/special_tokens_map.json",
    "omni2/tts_tokenizer/tokenizer_config.json", "omni2/tts_tokenizer/vocab.json", "omni2/tts_tokenizer/merges.txt",
    "omni2/tts_tokenizer/added_tokens.json", "omni2/tts_tokenizer/special_tokens_map.json", "decoder/cosyvoice.yaml",
)  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_texts_with_a_byte_order_mark(copy: Copy, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert copy.build() == 0
    plain = {path.name: path.read_bytes() for path in sorted((copy.engine / "text").iterdir())}
    shutil.rmtree(copy.engine)
    copy.shard()
    for name in TOKENIZERS:
        write_tokenizer_json(copy.root / name)
    template = json.loads((copy.model / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
    (copy.model / "chat_template.jinja").write_text(template, encoding="utf-8")
    extra = (f"omni2/{INDEX}", "omni2/chat_template.jinja", *(f"{name}/tokenizer.json" for name in TOKENIZERS))
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""  # which Python writes for the other two
    for name in (*TEXTS, *extra):
        path = copy.root / name
        path.write_bytes(mark + path.read_text(encoding="utf-8").encode(encoding))
    assert copy.build() == 0, capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in sorted((copy.engine / "text").iterdir())} == plain
    manifest = copy.engine / "manifest.json"
    manifest.write_bytes(mark + manifest.read_text(encoding="utf-8").encode(encoding))
    assert command(["inspect", str(copy.engine)]) == 0
    capsys.readouterr()
    assert copy.build() == 0  # and the stages of that engine are found to be the same


INSTEAD: dict[str, tuple[bytes | str, tuple[str, ...]]] = {  # content, or where a link leads to, and what is said
    "pointer": (LFS, ("git-lfs pointer", "git lfs pull")),
    "page": (PAGE, ("web page", "download")),
    "apple": (APPLE, ("AppleDouble", "delete it")),
    "link": ("gone", ("is a link to", "does not exist", "download the file again")),
    "snapshot": ("blobs", ("is a link to", "Hugging Face cache", "download the model again")),
}
NAMES = [*WEIGHTS, *TEXTS, f"omni2/{INDEX}", "omni2/chat_template.jinja", "whisper.pt"]
OF_EACH_KIND = ("omni2/model.safetensors", "omni2/config.json", "omni2/merges.txt", "decoder/campplus.onnx")


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in NAMES for kind in INSTEAD if kind == "pointer" or name in OF_EACH_KIND]
)
def test_what_stands_in_a_files_place_is_named(copy: Copy, refused: Callable[..., str], name: str, kind: str) -> None:
    content, named = INSTEAD[kind]
    path = copy.root / name
    if name.endswith(INDEX):
        copy.shard()
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.symlink_to(copy.root / content / ("0" * 40))
    message = refused(*(["--speech-encoder", str(path)] if name == "whisper.pt" else []))
    assert all(word in message for word in (str(path), *named)), message


@pytest.mark.parametrize("name", ["flow.pt", "hift.pt"])
@pytest.mark.parametrize("content", [LFS, PAGE, REFUSAL, APPLE])
def test_torch_files_likewise(copy: Copy, refused: Callable[..., str], name: str, content: bytes) -> None:
    (copy.decoder / name).with_suffix(".safetensors").unlink()
    (copy.decoder / name).write_bytes(content)
    message = refused()
    kinds = {LFS: "git-lfs pointer", PAGE: "web page", REFUSAL: "Access to model", APPLE: "AppleDouble"}
    assert name in message and kinds[content] in message and "try: " in message


def test_a_refusal_saved_as_weights_is_quoted(copy: Copy, refused: Callable[..., str]) -> None:
    for name in WEIGHTS:
        path = copy.root / name
        kept = path.read_bytes()
        path.write_bytes(REFUSAL)
        message = refused()
        assert str(path) in message and "Access to model" in message and "download the file again" in message
        path.write_bytes(kept)


def test_shards_that_are_pointers_or_links_to_nothing(copy: Copy, refused: Callable[..., str]) -> None:
    first, second = copy.shard()
    kept = second.read_bytes()
    second.write_bytes(LFS)
    assert f"{second} is a git-lfs pointer" in refused()
    second.unlink()
    second.symlink_to(copy.root / "blobs" / "1234")
    assert f"{second} is a link to 1234" in refused()
    second.unlink()
    second.write_bytes(kept)
    assert copy.build() == 0 and first.is_file()


def test_a_snapshot_whose_directories_are_links_to_nothing(copy: Copy, refused: Callable[..., str]) -> None:
    speech = copy.model / "tts_tokenizer"
    speech.rename(copy.root / "away")
    speech.symlink_to(copy.root / "nowhere")
    assert f"{speech} is a link to" in refused()
    copy.model = copy.root / "link"
    copy.model.symlink_to(copy.root / "nowhere")
    assert f"{copy.model} is a link to" in refused()


def test_what_macos_leaves_is_ignored_and_told(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = copy.shard()
    (copy.model / INDEX).unlink()  # each file that ends in .safetensors is a shard then
    (copy.decoder / "cosyvoice.yaml").rename(copy.decoder / "mine.yaml")  # and the only .yaml is taken
    left = [first, copy.model / "config.json", copy.model / "tts_tokenizer" / "vocab.json", copy.decoder / "mine.yaml"]
    left = [path.with_name(f"._{path.name}") for path in left]
    for path in left:
        path.write_bytes(APPLE)
    assert copy.build() == 0
    warnings = capsys.readouterr().err
    assert all(f"{path} is ignored" in " ".join(warnings.split()) for path in left)
    (copy.engine / "voices" / "._voice.npy").write_bytes(APPLE)
    assert command(["inspect", str(copy.engine)]) == 0
    assert "._voice" not in capsys.readouterr().out


def test_engine_files_that_are_pointers(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    assert copy.build() == 0
    for name in ("graphs/llm.weights", "speech/units.npy", "manifest.json"):
        path = copy.engine / name
        kept = path.read_bytes()
        path.write_bytes(LFS)
        capsys.readouterr()
        assert command(["inspect", str(copy.engine)]) == 1
        message = " ".join(capsys.readouterr().err.split())
        assert f"{path} is a git-lfs pointer" in message and "git lfs pull" in message
        path.write_bytes(kept)


def test_voices_that_are_pointers(copy: Copy, refused: Callable[..., str]) -> None:
    copy.voice = copy.root / "voice.wav"
    copy.voice.write_bytes(LFS)
    assert f"{copy.voice} is a git-lfs pointer" in refused()
    copy.voice.unlink()
    copy.voice.symlink_to(copy.root / "gone.wav")
    assert f"{copy.voice} is a link to" in refused()
