"""Tokenizer directories of a checkpoint → the one `tokenizer.json` the engine reads, special tokens and chat template.

A `tokenizer.json` in the directory is taken and completed. Without one it is made from `vocab.json` and `merges.txt`
with Qwen's split rule, NFC and byte-level BPE (spec §1.1, §1.2).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from omni2_engine.errors import CheckpointError, EngineDirectoryError
from omni2_engine.system.file_content import read_text
from omni2_engine.text import TextTokenizer
from omni2_export.fields import LARGEST, Fields, read_json
from omni2_export.input_files import is_there, require_content

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTED = ("additional_special_tokens", "extra_special_tokens")
QWEN_DEFAULTS = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
ORIGINAL = "take the file from the original model"
Document = dict[str, Any]  # the content of a tokenizer.json


@dataclass(frozen=True)
class LoadedTokenizer:
    """A checkpoint's tokenizer.

    Attributes:
        source: the text of a complete `tokenizer.json`.
        tokenizer: the same, ready to use.
        eos: id of the end token, if the directory names one.
        pad: id of the padding token, likewise.
    """

    source: str
    tokenizer: TextTokenizer
    eos: int | None
    pad: int | None


def load_tokenizer(directory: Path) -> LoadedTokenizer:
    """Read a tokenizer directory.

    Raises:
        CheckpointError: files are missing, broken, or describe another kind of tokenizer.
    """
    named = special_tokens(directory)
    document = _document(directory)
    source = _completed(document, _declared(document, directory, named), named)
    try:
        tokenizer = TextTokenizer(source)
    except EngineDirectoryError as error:
        raise CheckpointError(f"{directory}: {error.problem}", "use the tokenizer that came with the model") from error

    def token_id(role: str) -> int | None:
        token = named.get(role)
        return tokenizer.token_id(token) if isinstance(token, str) else None

    return LoadedTokenizer(source, tokenizer, token_id("eos_token"), token_id("pad_token"))


def write_tokenizer(directory: Path, target: Path) -> LoadedTokenizer:
    """Write the complete `tokenizer.json` of a tokenizer directory.

    Args:
        directory: the checkpoint's tokenizer directory.
        target: the file to write.

    Raises:
        CheckpointError: as `load_tokenizer`.
    """
    loaded = load_tokenizer(directory)
    target.write_text(loaded.source, encoding="utf-8")
    return loaded


def special_tokens(directory: Path) -> dict[str, str | list[str]]:
    """Named special tokens: `eos_token`, `pad_token`, … → text, `additional_special_tokens` → list of texts.

    Raises:
        CheckpointError: a file is broken.
    """
    config, older = _optional(directory, "tokenizer_config.json"), _optional(directory, "special_tokens_map.json")
    stated = older.values | config.values
    if str(stated.get("tokenizer_class", "Qwen2Tokenizer")).startswith("Qwen2"):
        stated = QWEN_DEFAULTS | stated
    tokens: dict[str, str | list[str]] = {}
    for role in NAMED:
        if stated.get(role) is not None:
            tokens[role] = _content(stated[role], f"{config.where}: `{role}`")
    texts: list[str] = []
    for role in LISTED:
        listed = stated.get(role) or []
        if not isinstance(listed, (dict, list)):
            raise CheckpointError(f"{config.where}: `{role}` is {listed!r:.80}, not a list", ORIGINAL)
        texts += [
            _content(token, f"{config.where}: `{role}`")
            for token in (listed.values() if isinstance(listed, dict) else listed)
        ]
    return tokens | ({LISTED[0]: texts} if texts else {})


def chat_template(directory: Path) -> str:
    """The chat template: `chat_template.jinja`, `chat_template.json`, or the one in `tokenizer_config.json`.

    Raises:
        CheckpointError: there is none.
    """
    own = directory / "chat_template.jinja"
    if is_there(own):
        return _text(own)
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _optional(directory, name).values.get("chat_template")
        if isinstance(template, list):  # several, each with a name
            template = next(
                (t.get("template") for t in template if isinstance(t, dict) and t.get("name") == "default"), None
            )
        if isinstance(template, str):
            return template
    raise CheckpointError(f"{directory} has no chat template", "its tokenizer_config.json needs `chat_template`")


def _optional(directory: Path, name: str) -> Fields:
    path = directory / name
    return read_json(path) if is_there(path) else Fields({}, str(path))


def _text(path: Path) -> str:
    require_content(path, text=True)
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", ORIGINAL) from error


def _content(token: object, where: str) -> str:
    """The text of a token written as text or as a table with its flags."""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str):
        raise CheckpointError(f"{where} is {token!r:.80}, not a token", ORIGINAL)
    return text


def _entry(token_id: int, content: str, flags: dict[str, bool]) -> Document:
    return {"id": token_id, "content": content} | dict.fromkeys(FLAGS, False) | flags


def _declared(document: Document, directory: Path, named: dict[str, str | list[str]]) -> dict[str, Document]:
    """Added tokens by text: the entries of every file that declares some, found to agree on the ids.

    Where several files have a token, its flags are those of `tokenizer_config.json`, then of `tokenizer.json`;
    `added_tokens.json` has none.
    """
    special = _texts(named)
    config, older = _optional(directory, "tokenizer_config.json"), _optional(directory, "added_tokens.json")
    decoder = config.section("added_tokens_decoder") if config.has("added_tokens_decoder") else Fields({}, config.where)
    declarations: list[tuple[str, Document]] = []  # file and entry, from the least to the most detailed
    for content, value in older.values.items():
        flags = {"special": content in special, "normalized": content not in special}
        declarations.append((older.where, _entry(_id(value, older), content, flags)))
    declarations += [(str(directory / "tokenizer.json"), entry) for entry in document["added_tokens"]]
    for key, token in decoder.values.items():
        content = _content(token, f"{decoder.where}: {key}")
        flags = {flag: bool(token[flag]) for flag in FLAGS if flag in token} if isinstance(token, dict) else {}
        declarations.append((decoder.where, _entry(_id(key, decoder), content, flags)))
    _require_agreement(declarations, document["model"]["vocab"], directory)
    return {entry["content"]: entry for _, entry in declarations}


def _require_agreement(declarations: list[tuple[str, Document]], vocabulary: dict[str, int], directory: Path) -> None:
    """Refuse two ids of one token and two tokens of one id, also from different files."""
    ids: dict[str, tuple[int, str]] = {}
    texts: dict[int, tuple[str, str]] = {}
    known = [(f"the vocabulary of {directory}", {"content": text, "id": number}) for text, number in vocabulary.items()]
    remedy = "take its files from one revision of the model"
    for where, entry in [*declarations, *known]:
        content, token_id = entry["content"], entry["id"]
        other_id, other_place = ids.setdefault(content, (token_id, where))
        if other_id != token_id:
            raise CheckpointError(f"`{content}` is token {token_id} by {where} and {other_id} by {other_place}", remedy)
        other, other_place = texts.setdefault(token_id, (content, where))
        if other != content:
            raise CheckpointError(
                f"{directory} gives one id to two tokens: {token_id} is `{content}` by {where} and `{other}` by "
                f"{other_place}",
                remedy,
            )


def _id(value: object, fields: Fields) -> int:
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value
    if not _is_id(number):
        raise CheckpointError(f"{fields.where}: {value!r:.40} is no token id", ORIGINAL)
    return number


def _is_id(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= LARGEST


def _texts(named: dict[str, str | list[str]]) -> set[str]:
    return {text for value in named.values() for text in ([value] if isinstance(value, str) else value)}


def _document(directory: Path) -> Document:
    """The directory's `tokenizer.json`, or one made from `vocab.json` and `merges.txt`."""
    path = directory / "tokenizer.json"
    document = dict(read_json(path).values) if is_there(path) else _made(directory)
    model, added = document.get("model"), document.get("added_tokens") or []
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise CheckpointError(f"{path} is not a byte-level BPE tokenizer", "use a checkpoint with Qwen2 tokenizers")
    vocabulary = Fields(model["vocab"], f"{directory}: vocabulary")
    for token in vocabulary.values:
        vocabulary.integer(token, least=0)
    if not isinstance(added, list) or not all(map(_is_entry, added)):
        raise CheckpointError(f"{path}: `added_tokens` is malformed", ORIGINAL)
    return document | {"added_tokens": added, "truncation": None, "padding": None}


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("content"), str) and _is_id(entry.get("id"))


def _made(directory: Path) -> Document:
    config = _optional(directory, "tokenizer_config.json")
    kind = config.text("tokenizer_class", "Qwen2Tokenizer")
    if not kind.startswith("Qwen2"):
        raise CheckpointError(f"{directory} has a {kind} without tokenizer.json", "add the model's tokenizer.json")
    vocabulary = read_json(directory / "vocab.json").values
    lines = _text(directory / "merges.txt").split("\n")
    pairs = [line.split() for line in lines[lines[0].startswith("#version") :] if line.strip()]
    prefix_space = config.flag("add_prefix_space", False)
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, [(left, right) for left, right in pairs]))
    except Exception as error:  # the library raises many kinds for tokens, ids and merges it dislikes
        raise CheckpointError(f"{directory}: vocab.json and merges.txt do not fit: {error}", ORIGINAL) from error
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    document: Document = json.loads(tokenizer.to_str())
    return document


def _completed(document: Document, declared: dict[str, Document], named: dict[str, str | list[str]]) -> str:
    """The document with every declared and named token in it: the former at their ids, the latter behind them."""
    vocabulary = document["model"]["vocab"]
    entries = {content: dict(entry) for content, entry in declared.items()}
    for text in sorted(_texts(named) - entries.keys()):
        highest = max([-1, *vocabulary.values(), *(entry["id"] for entry in entries.values())])
        entries[text] = _entry(vocabulary.get(text, highest + 1), text, {})
    for text in _texts(named):
        entries[text]["special"] = True
    added = sorted(entries.values(), key=lambda entry: int(entry["id"]))
    ids = {entry["content"]: entry["id"] for entry in added}
    # The library ignores the ids and numbers added tokens on from the vocabulary's end, in the order they stand in.
    # Those that the vocabulary holds keep its ids; there, without merges that lead to them, they change nothing else.
    model = document["model"] | {"vocab": vocabulary | ids}
    return json.dumps(document | {"added_tokens": added, "model": model}, ensure_ascii=False)
