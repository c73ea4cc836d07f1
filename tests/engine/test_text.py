"""Ids to text in whole characters, chat templates, units by spec §6; against transformers and the plain string rule."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from omni2_engine.errors import CheckpointError, EngineDirectoryError, SettingError
from omni2_engine.text import ChatTemplate, TextStream, TextTokenizer, UnitStream, UnitTable
from omni2_engine.text.tokenizer import BYTES
from omni2_engine.text.units import BY_TEXT, NO_UNIT

SPECIAL = ["<|im_end|>", "<|reserved_12|>"]
# Units in every spelling, out of order, between other tokens; look-alikes; digits of other scripts; an alphabet trap.
ADDED = ["<sep>", "<12>", "<unit_7>", "[U3]", "<0>", "unit9", "5five", "77", "<1><2>", "<007>", "<٤>", "<99999999999>",
         "<a>", "Ġ4Ġ", "日3本", "<3>", "x", " ", "<|x|>8<|y|>"]  # fmt: skip


def make_source(added: list[str], special: list[str]) -> str:
    """A byte-level tokenizer.json: the alphabet, a few merges, added tokens."""
    vocab = dict(BYTES)
    merges = [("1", "2"), ("Ġ", "1"), ("h", "i"), ("12", "3"), ("<", "1"), ("ï", "¼")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokens = [
        {"id": len(vocab) + i, "content": token, "special": token in special, **flags}
        for i, token in enumerate([*special, *added])
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": tokens,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {"type": "BPE", "vocab": vocab, "merges": [list(merge) for merge in merges]},
        }
    )


TOKENIZER = TextTokenizer(make_source(ADDED, SPECIAL))
TABLE = UnitTable.build(TOKENIZER)
SIZE = TOKENIZER.size
IDS = st.lists(
    st.one_of(
        st.integers(0, SIZE + 5),
        st.sampled_from([TOKENIZER.token_id(t) for t in [*SPECIAL, *ADDED]]),
        st.sampled_from([TOKENIZER.token_id(t) for t in ["1", "2", "12", "123", "ï", "¼", "ï¼", "<", ">", "Ĵ", "<1"]]),
    ),
    max_size=30,
)


def by_the_string(text: str) -> list[int]:
    """Spec §6, word by word."""
    return [int(run) for run in re.findall(r"\d+", text)]


@given(ids=IDS, skip=st.booleans())
@settings(deadline=None, max_examples=300)
def test_streamed_text_equals_decoded_text(ids: list[int], skip: bool) -> None:
    stream = TextStream(TOKENIZER, skip)
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) + stream.flush() == TOKENIZER.decode(ids, skip)
    assert not stream.waiting


@given(text=st.text())
def test_streamed_characters_are_whole(text: str) -> None:
    stream = TextStream(TOKENIZER)
    normal = TOKENIZER.decode(TOKENIZER.encode(text))
    pieces = [stream.push(token) for token in TOKENIZER.encode(text)]
    assert "".join(pieces) == normal and stream.flush() == ""
    assert "�" not in normal.replace("�", "", text.count("�"))


def test_a_character_waits_for_its_last_byte() -> None:
    stream = TextStream(TOKENIZER)
    ids = TOKENIZER.encode("é😀!")
    assert len(ids) == 2 + 4 + 1
    assert [stream.push(token) for token in ids] == ["", "é", "", "", "", "😀", "!"]
    stream.push(ids[0])
    assert stream.waiting and stream.flush() == "�" and stream.push(ids[-1]) == "!"


def test_streaming_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = 0
    original = TextTokenizer.token_bytes

    def counting(self: TextTokenizer, token_id: int, skip_special: bool = True) -> bytes:
        nonlocal looked_up
        looked_up += 1
        return original(self, token_id, skip_special)

    monkeypatch.setattr(TextTokenizer, "token_bytes", counting)
    stream = TextStream(TOKENIZER)
    for _ in range(500):
        stream.push(40)
    assert looked_up == 500


@given(ids=IDS)
@settings(deadline=None, max_examples=500)
def test_units_equal_the_string_rule(ids: list[int]) -> None:
    text = TOKENIZER.decode(ids)
    wanted = [min(unit, 2**63 - 1) for unit in by_the_string(text)]
    assert TABLE.units(ids) == wanted
    stream = UnitStream(TABLE)
    pushed = [unit for token in ids for unit in stream.push(token)]
    assert pushed + stream.flush() == wanted


@given(first=IDS, second=IDS)
@settings(deadline=None)
def test_a_flush_separates_writes(first: list[int], second: list[int]) -> None:
    stream = UnitStream(TABLE)
    units: list[int] = []
    for write in (first, second):
        for token in write:
            units += stream.push(token)
        units += stream.flush()
    assert units == TABLE.units(first) + TABLE.units(second)


@pytest.mark.parametrize(
    ("token", "entry"),
    [
        ("<12>", 12), ("<unit_7>", 7), ("[U3]", 3), ("<007>", 7), ("<٤>", 4), ("Ġ4Ġ", 4), ("日3本", 3),
        ("<sep>", NO_UNIT), ("<a>", NO_UNIT), ("<|reserved_12|>", NO_UNIT), ("hi", NO_UNIT), ("²", BY_TEXT),
        ("77", BY_TEXT), ("unit9", BY_TEXT), ("5five", BY_TEXT), ("<1><2>", BY_TEXT), ("<99999999999>", BY_TEXT),
        ("12", BY_TEXT), ("ï¼", BY_TEXT), ("<1", BY_TEXT),
    ],
)  # fmt: skip
def test_table_entries(token: str, entry: int) -> None:
    token_id = TOKENIZER.token_id(token)
    assert token_id is not None and TABLE.entry(token_id) == entry


def test_units_come_as_soon_as_they_are_certain() -> None:
    ids = {token: TOKENIZER.token_id(token) or 0 for token in ["<12>", "77", "unit9", "<sep>", "<|im_end|>"]}
    stream = UnitStream(TABLE)
    order = ["<12>", "77", "<|im_end|>", "77", "<sep>", "unit9", "unit9", "<12>", "77"]
    assert [stream.push(ids[token]) for token in order] == [[12], [], [], [], [7777], [], [9], [9, 12], []]
    assert stream.flush() == [77]


def test_a_run_of_thousands_of_digits() -> None:
    assert TABLE.units([TOKENIZER.token_id("12") or 0] * 5000) == [2**63 - 1]


def test_unit_table_file(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "units.npy")
    loaded = UnitTable.load(tmp_path / "units.npy", TOKENIZER)
    assert loaded.table.dtype == np.int32 and np.array_equal(loaded.table, TABLE.table)
    np.save(tmp_path / "wrong.npy", np.zeros(3))
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "pickled.npy", np.array([{}], object))
    for name in ("wrong", "broken", "pickled", "absent"):
        with pytest.raises(EngineDirectoryError, match=name):
            UnitTable.load(tmp_path / f"{name}.npy", TOKENIZER)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "{}",
        "[]",
        '{"model": 3}',
        make_source([], []).replace('"decoder": {"type": "ByteLevel"', '"decoder": {"type": "Fuse"'),
    ],
)
def test_broken_tokenizers(tmp_path: Path, source: str) -> None:
    (tmp_path / "tokenizer.json").write_text(source)
    with pytest.raises(EngineDirectoryError):
        TextTokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(EngineDirectoryError, match="absent"):
        TextTokenizer.load(tmp_path / "absent.json")


TEXTS = [
    "Hello, what can you do?  ", "naïve Ångström é e\u0301", "你好，世界！123 ４５", "😀👩‍👩‍👧 \n\n\t tabs",
    "it's 3.14159 we'll",
    "<|im_start|>user\n<speech><|im_end|>\n", "<12>3<sep> <unit_7>", "a<0>b<1> <2>", "\r\n \r\n x", "עברית ٣٤٥ हिन्दी",
]  # fmt: skip


@pytest.mark.parametrize("directory", ["omni2_tiny", "omni2_tiny/tts_tokenizer"])
def test_given_tokenizers_equal_transformers(shared: Path, directory: str) -> None:
    path = shared / "checkpoints" / "tiny" / directory
    ours, theirs = TextTokenizer.load(path / "tokenizer.json"), AutoTokenizer.from_pretrained(path)
    assert ours.size == len(theirs)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs(text, add_special_tokens=False).input_ids
        for skip in (True, False):
            assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)
    numbers = np.random.default_rng(0)
    for _ in range(50):
        ids = numbers.integers(0, ours.size, 20).tolist()
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_given_units_equal_transformers(shared: Path) -> None:
    path = shared / "checkpoints" / "tiny" / "omni2_tiny" / "tts_tokenizer"
    ours, theirs = TextTokenizer.load(path / "tokenizer.json"), AutoTokenizer.from_pretrained(path)
    table = UnitTable.build(ours)
    numbers = np.random.default_rng(1)
    for size in (405, ours.size, 7040):  # text only, all tokens, and rows without a token
        for _ in range(50):
            ids = numbers.integers(0, size, 12).tolist()
            text = theirs.decode([t for t in ids if t < len(theirs)], skip_special_tokens=True)
            assert table.units(ids) == by_the_string(text)


def test_given_units_of_the_goldens(shared: Path) -> None:
    path = shared / "checkpoints" / "tiny" / "omni2_tiny" / "tts_tokenizer"
    table = UnitTable.build(TextTokenizer.load(path / "tokenizer.json"))
    golden = np.load(shared / "goldens" / "llm_4.npz")
    tokens, written = golden["f_tts_tokens"].ravel(), golden["f_group_unit_len"].ravel()
    units: list[int] = []
    for write in np.split(tokens, np.cumsum(written)[:-1]):
        units += table.units(write.tolist())
    assert units == by_the_string(str(golden["f_units_string"]))


def test_given_template_equals_transformers(shared: Path) -> None:
    path = shared / "checkpoints" / "tiny" / "omni2_tiny"
    theirs = AutoTokenizer.from_pretrained(path)
    source = json.loads((path / "tokenizer_config.json").read_text())["chat_template"]
    messages = [
        {"role": "user", "content": "<speech>"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "<speech>"},
    ]
    for turns in (messages[:1], messages, [{"role": "system", "content": "Be brief."}, *messages]):
        wanted = theirs.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert ChatTemplate(source).render(turns) == wanted
    golden = np.load(shared / "goldens" / "llm_1.npz")
    prompt = ChatTemplate(source).render(messages[:1])
    assert prompt == str(golden["prompt_text"])
    assert TextTokenizer.load(path / "tokenizer.json").encode(prompt) == golden["prompt_ids_raw"].ravel().tolist()


FEATURES = """
{%- if messages[0].role == 'system' %}
    {{- bos_token + messages[0].content|trim + '\\n' }}
{%- endif %}
{% for m in messages %}
  {% if loop.index > 3 %}{% break %}{% endif %}
    {{ m | tojson }}
  {% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}
{% endfor %}
{% if tools is not none %}{{ tools | tojson(indent=2) }}{% endif %}
{{ 'é' | tojson }}{{ strftime_now('%Y') }}
{% if add_generation_prompt %}go{% endif %}
"""


def test_template_surroundings_equal_transformers(shared: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(shared / "checkpoints" / "tiny" / "omni2_tiny")
    theirs.bos_token, theirs.chat_template = "<s>", FEATURES
    ours = ChatTemplate(FEATURES, {"bos_token": "<s>", "eos_token": "<|im_end|>"})
    messages = [{"role": "system", "content": " S "}] + [{"role": "user", "content": "ö"}] * 4
    for prompt in (True, False):
        wanted = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert ours.render(messages, add_generation_prompt=prompt) == wanted


def test_template_refusals() -> None:
    with pytest.raises(SettingError, match="alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}").render([])
    with pytest.raises(CheckpointError, match="template"):
        ChatTemplate("{% for %}")
    for hostile in (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ range(10**9)|list }}",
    ):
        with pytest.raises(SettingError):
            ChatTemplate(hostile).render([{"role": "user", "content": "x"}])


def test_template_files(tmp_path: Path) -> None:
    template = ChatTemplate("{{ eos_token }}ö", {"eos_token": "<é>", "additional_special_tokens": ["<a>"]})
    template.save(tmp_path)
    loaded = ChatTemplate.load(tmp_path)
    assert (loaded.source, loaded.special_tokens) == (template.source, template.special_tokens)
    assert loaded.render([]) == "<é>ö"
    files: list[tuple[Path, Any]] = [(path, path.read_bytes()) for path in tmp_path.iterdir()]
    for path, content in files:
        path.write_bytes(b"{% if" if path.suffix == ".jinja" else b"3")
        with pytest.raises(EngineDirectoryError, match="template"):
            ChatTemplate.load(tmp_path)
        path.write_bytes(content)
