"""Random checkpoints: the released names and shapes at real size, the same bytes for one seed, answers that end."""

from __future__ import annotations

import json
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from omni2_bench.random_checkpoint import PRESETS, Dimensions, write_checkpoint
from omni2_bench.random_checkpoint.draw import Rule, draw
from omni2_bench.random_checkpoint.vocabulary import learn_vocabulary, whole_words
from omni2_bench.random_checkpoint.write import flow_tensors, model_tensors, vocoder_tensors
from omni2_engine import Engine
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.errors import SettingError
from omni2_engine.model.config import Capabilities
from omni2_engine.text.units import UnitTable
from omni2_export.build import BuildRequest, build_engine
from omni2_export.checkpoint import open_checkpoint
from omni2_export.checkpoint.safetensors_file import SafetensorsFile
from omni2_export.checkpoint_writer.paths import CheckpointPaths
from omni2_export.checkpoint_writer.safetensors_stream import Tensor, write_file
from omni2_export.checkpoint_writer.tokenizer import SPECIALS
from omni2_export.tokenizer_files import load_tokenizer

PARAMETERS = {"0.5B": 0.494e9, "1.5B": 1.544e9, "3B": 3.086e9, "7B": 7.616e9, "14B": 14.770e9, "32B": 32.764e9}


def small() -> Dimensions:
    """Every module tiny and no two sizes alike, nothing as released."""
    return PRESETS["tiny"].changed(
        encoder={"mel_bins": 80, "context": 250, "width": 48, "heads": 3, "layers": 1, "ffn": 80, "stack": 4},
        llm={"vocab": 640, "hidden": 72, "heads": 6, "kv_heads": 3, "layers": 1, "ffn": 100},
        speech_lm={"vocab": 1000, "hidden": 56, "heads": 4, "kv_heads": 1, "head_dim": 12, "layers": 1, "ffn": 90},
        fusion={"hidden": 44},
        flow_encoder={
            "units": 300,
            "width": 40,
            "heads": 2,
            "ffn": 60,
            "up_ffn": 50,
            "blocks": 1,
            "up_blocks": 2,
            "mel": 64,
        },
        estimator={
            "width": 24,
            "heads": 3,
            "head_dim": 10,
            "ffn": 70,
            "time_hidden": 36,
            "mid_blocks": 1,
            "speaker": 100,
        },
        vocoder={
            "base": 32,
            "harmonics": 4,
            "upsample_rates": (5, 8, 3),
            "upsample_kernels": (11, 16, 7),
            "resblock_kernels": (3, 7),
            "resblock_dilations": ((1, 3), (1, 2)),
            "f0_width": 20,
            "f0_layers": 3,
        },
        read=2,
        write=9,
        text_tokens=16,
    )


def shapes(tensors: list[Tensor]) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.shape) for tensor in tensors}


def manifest(shared: Path, name: str) -> dict[str, list[int]]:
    return json.loads((shared / "spec" / "manifests" / f"{name}.json").read_text())


def test_names_and_shapes_are_the_released_ones(shared: Path) -> None:
    d = PRESETS["0.5B"]
    expected = manifest(shared, "llama_omni2_0.5b_state_dict")
    assert shapes(model_tensors(d.changed(tie_llm=False), learn_vocabulary(), 0)) == expected
    del expected["lm_head.weight"]  # tied heads are not stored
    assert shapes(model_tensors(d, learn_vocabulary(), 0)) == expected
    assert shapes(flow_tensors(d, 0)) == manifest(shared, "flow_pt")
    assert shapes(vocoder_tensors(d, 0)) == manifest(shared, "hift_pt")


@pytest.mark.parametrize("size", PARAMETERS)
def test_language_models_have_the_published_number_of_parameters(size: str) -> None:
    tensors = model_tensors(PRESETS[size], learn_vocabulary(), 0)
    count = sum(
        int(np.prod(tensor.shape, dtype=np.int64))
        for tensor in tensors
        if tensor.name.startswith(("model.embed", "model.layers", "model.norm", "lm_head"))
    )
    assert count == pytest.approx(PARAMETERS[size], rel=2e-3)


@pytest.mark.parametrize("storage", ["F32", "F16", "BF16"])
def test_every_dimension_is_read_back(tmp_path: Path, storage: str) -> None:
    d = small().changed(storage=storage, decoder_storage=storage)
    paths = write_checkpoint(tmp_path, d, seed=3)
    opened = open_checkpoint(paths.model, decoder=paths.decoder)
    assert opened.warnings == []
    assert opened.config.model_dump(exclude={"name", "tokens"}) == d.model_config(opened.config.tokens).model_dump(
        exclude={"name", "tokens"}
    )
    assert opened.config.tokens.repetition_penalty == d.repetition_penalty
    for module, tensors in opened.modules.items():
        for name in tensors.names():
            assert np.isfinite(tensors.read(name)).all(), f"{module}:{name}"


def test_what_a_model_was_taught_is_read_back(tmp_path: Path) -> None:
    taught = {"typed_turns": False, "history_turns": 2, "open_domain": False}
    paths = write_checkpoint(tmp_path, small().changed(capabilities=taught), seed=1)
    opened = open_checkpoint(paths.model, decoder=paths.decoder)
    assert opened.config.capabilities == Capabilities(**taught)


def test_undoing_weight_norm_gives_what_was_drawn(tmp_path: Path) -> None:
    d = small()
    paths = write_checkpoint(tmp_path, d, seed=3)
    vocoder = open_checkpoint(paths.model, decoder=paths.decoder).modules["vocoder"]
    stored = SafetensorsFile(paths.decoder / "hift.safetensors")
    np.testing.assert_allclose(
        vocoder.read("conv_post.weight"), stored.read("conv_post.weight_v"), rtol=1e-5, atol=1e-7
    )


def test_tied_speech_head_is_left_out_and_warned_about(tmp_path: Path) -> None:
    paths = write_checkpoint(tmp_path, small().changed(tie_speech=True))
    opened = open_checkpoint(paths.model, decoder=paths.decoder)
    assert len(opened.warnings) == 1
    assert "speech language model" in opened.warnings[0]


def test_one_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    def content(name: str, seed: int) -> dict[str, bytes]:
        write_checkpoint(tmp_path / name, small(), seed)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}

    first, again, other = content("a", 5), content("b", 5), content("c", 6)
    assert first == again
    differing = {name for name in first if first[name] != other[name]}
    weights = {
        "omni2/model.safetensors",
        "decoder/flow.safetensors",
        "decoder/hift.safetensors",
        "decoder/campplus.onnx",
    }
    assert differing == weights


def test_shards_hold_what_one_file_holds(tmp_path: Path) -> None:
    d = small()
    whole = write_checkpoint(tmp_path / "whole", d, seed=2)
    split = write_checkpoint(tmp_path / "split", d.changed(shard_bytes=40_000), seed=2)
    assert len(list(split.model.glob("model-*.safetensors"))) > 3
    assert (split.model / "model.safetensors.index.json").is_file()
    a, b = (open_checkpoint(paths.model, decoder=paths.decoder).modules for paths in (whole, split))
    for module, tensors in a.items():
        assert sorted(tensors.names()) == sorted(b[module].names())
        for name in tensors.names():
            np.testing.assert_array_equal(tensors.read(name), b[module].read(name))


def test_a_large_tensor_is_never_held_whole(tmp_path: Path) -> None:
    shape = (60_000, 1024)  # 246 MB in float32
    large = Tensor("large", shape, partial(draw, "large", shape, Rule(1.0), 0))
    tracemalloc.start()
    try:
        write_file(tmp_path / "large.safetensors", [large], "BF16")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64e6
    values = SafetensorsFile(tmp_path / "large.safetensors").read("large")
    assert values.shape == shape
    assert abs(values.mean()) < 1e-3
    assert values.std() == pytest.approx(1.0, abs=1e-3)
    assert not np.array_equal(values[:4096], values[4096:8192])  # no piece repeats another


def test_tokenizers_share_ids_and_spell_every_unit(tiny_checkpoint: CheckpointPaths) -> None:
    text = load_tokenizer(tiny_checkpoint.model)
    speech = load_tokenizer(tiny_checkpoint.model / "tts_tokenizer")
    sentence = "Hello there, it's 12 o'clock in München: 你好 🎉\n  two  spaces<|im_end|>"
    ids = text.tokenizer.encode(sentence)
    assert text.tokenizer.decode(ids, skip_special=False) == sentence
    assert speech.tokenizer.encode(sentence) == ids
    assert text.eos == speech.eos == text.tokenizer.token_id(SPECIALS[2])
    table = UnitTable.build(speech.tokenizer)
    sep = speech.tokenizer.token_id("<sep>")
    assert sep is not None
    assert table.units(range(sep + 1, sep + 1 + 6561)) == list(range(6561))


def test_campplus_keeps_the_released_contract(tiny_checkpoint: CheckpointPaths) -> None:
    graph = OnnxRuntimeBackend(1).load(tiny_checkpoint.decoder / "campplus.onnx")
    assert tuple(graph.inputs) == ("input",)
    fbank = np.random.default_rng(0).normal(size=(1, 250, 80)).astype(np.float32)
    (vector,) = graph.run({"input": fbank}).values()
    (other,) = graph.run({"input": 2 * fbank}).values()
    assert vector.shape == (1, 192)
    assert np.isfinite(vector).all()
    assert not np.allclose(vector, other)


def test_unusable_dimensions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"llm\.colour"):
        PRESETS["tiny"].changed(llm={"colour": 3})
    with pytest.raises(SettingError, match="colour"):
        PRESETS["tiny"].changed(colour=3)
    with pytest.raises(SettingError, match="INT3"):
        PRESETS["tiny"].changed(storage="INT3")
    with pytest.raises(SettingError, match="speech_lm has 500 vocabulary rows"):
        write_checkpoint(tmp_path, PRESETS["tiny"].changed(speech_lm={"vocab": 500}))


def spectrum_share(pcm: np.ndarray, sample_rate: int, low: float, high: float) -> float:
    """The part of a sound's energy between two frequencies."""
    power = np.square(np.abs(np.fft.rfft(pcm)))
    hertz = np.fft.rfftfreq(len(pcm), 1 / sample_rate)
    return float(power[(hertz >= low) & (hertz < high)].sum() / power.sum())


@pytest.mark.parametrize("seed", range(8))
def test_an_answer_ends_by_itself_and_babbles(tiny_engine: Engine, question: Path, seed: int) -> None:
    with tiny_engine.session(seed=seed) as session:
        pcm = np.concatenate([chunk.pcm for chunk in session.stream(question)])
    metrics = session.metrics
    assert metrics is not None
    assert metrics.finish_reason == "end"
    assert 6 <= metrics.text_tokens <= 40
    assert metrics.speech_tokens < 300  # the final write has ended well before its 1024 tokens
    assert metrics.units >= 0.9 * metrics.speech_tokens
    assert np.isfinite(pcm).all()
    assert 0.01 < pcm.std() < 0.5
    assert spectrum_share(pcm, tiny_engine.sample_rate, 80, 4000) > 0.5  # most of it; white noise has a third there


@pytest.mark.parametrize("tied", [False, True])
def test_other_dimensions_answer_too(tmp_path: Path, repository: Path, question: Path, tied: bool) -> None:
    paths = write_checkpoint(tmp_path, small().changed(tie_llm=tied, tie_speech=tied), seed=4)
    opened = open_checkpoint(paths.model, decoder=paths.decoder)
    build_engine(BuildRequest(opened, tmp_path / "engine", [repository / "examples" / "voice.wav"]))
    engine = Engine.load(tmp_path / "engine", threads=1, warm_up=False)
    with engine.session() as session:
        pcm = np.concatenate([chunk.pcm for chunk in session.stream(question, max_new_tokens=60)])
    metrics = session.metrics
    assert metrics is not None
    assert metrics.finish_reason == "end"
    assert len(pcm) == metrics.units * engine.sample_rate // 25
    assert np.isfinite(pcm).all()
    assert pcm.std() > 0.005


def test_the_vocabulary_is_learnt_by_frequency() -> None:
    vocabulary = learn_vocabulary()
    assert len(set(vocabulary.tokens)) == len(vocabulary.tokens) == 256 + len(vocabulary.merges)
    assert len(whole_words(vocabulary)) > 100
    assert learn_vocabulary(10).merges == vocabulary.merges[:10]
    tokens = set(vocabulary.tokens)
    assert all({left, right, left + right} <= tokens for left, right in vocabulary.merges)
