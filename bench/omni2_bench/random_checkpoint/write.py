"""Writes a random checkpoint: every file of a LLaMA-Omni2 directory and of its decoder directory (spec §1)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from omni2_bench.random_checkpoint.draw import Floats, Rule, draw
from omni2_bench.random_checkpoint.language import (
    decoder_rule,
    encoder_rule,
    fusion_rule,
    speech_marks,
    text_marks,
)
from omni2_bench.random_checkpoint.sound import flow_rule, vocoder_rule
from omni2_bench.random_checkpoint.speaker import write_campplus
from omni2_bench.random_checkpoint.vocabulary import MERGES, learn_vocabulary
from omni2_engine.errors import SettingError
from omni2_engine.model.config import TokenConfig
from omni2_export.checkpoint.names import expected_shapes
from omni2_export.checkpoint_writer.config_json import model_fields
from omni2_export.checkpoint_writer.decoder_yaml import decoder_yaml
from omni2_export.checkpoint_writer.dimensions import Dimensions
from omni2_export.checkpoint_writer.paths import CheckpointPaths
from omni2_export.checkpoint_writer.safetensors_stream import Tensor, write_file, write_model
from omni2_export.checkpoint_writer.tokenizer import (
    SPECIALS,
    Vocabulary,
    write_speech_tokenizer,
    write_text_tokenizer,
)

BYTES_AND_ADDED = 256 + len(SPECIALS) + 1  # tokens besides the merges
NARROWEST_HEAD = 4  # the marks in `language` need a slow rotary pair


def write_checkpoint(path: Path, dimensions: Dimensions, seed: int = 0) -> CheckpointPaths:
    """Write `path/omni2` and `path/decoder`; memory stays far below the weights' size.

    Args:
        path: a directory, made if it is not there.
        dimensions: how large; `PRESETS`, or one of them `.changed(...)`.
        seed: names the random numbers; the same seed writes the same bytes.

    Raises:
        SettingError: a vocabulary has fewer rows than its tokenizer has tokens, or heads are too narrow.
    """
    d = dimensions
    paths = CheckpointPaths.below(path)
    vocabulary = learn_vocabulary(max(0, min(MERGES, d.llm.vocab - BYTES_AND_ADDED)))
    _check(d, vocabulary)
    for directory in (paths.model, paths.decoder):
        directory.mkdir(parents=True, exist_ok=True)
    write_text_tokenizer(paths.model, vocabulary)
    write_speech_tokenizer(paths.model / "tts_tokenizer", vocabulary, d.flow_encoder.units)
    _write_json(paths.model / "config.json", model_fields(d, vocabulary))
    end, pad = vocabulary.id(SPECIALS[2]), vocabulary.id(SPECIALS[0])
    generation = {"eos_token_id": [end, pad], "pad_token_id": pad, "repetition_penalty": d.repetition_penalty}
    _write_json(paths.model / "generation_config.json", {"do_sample": False, **generation})
    write_model(paths.model, model_tensors(d, vocabulary, seed), d.storage, d.shard_bytes)
    (paths.decoder / "cosyvoice.yaml").write_text(decoder_yaml(d), encoding="utf-8")
    write_file(paths.decoder / "flow.safetensors", flow_tensors(d, seed), d.decoder_storage)
    write_file(paths.decoder / "hift.safetensors", vocoder_tensors(d, seed), d.decoder_storage)
    write_campplus(paths.decoder / "campplus.onnx", d.estimator.speaker, seed)
    return paths


def model_tensors(d: Dimensions, vocabulary: Vocabulary, seed: int) -> list[Tensor]:
    """Every tensor of the LLaMA-Omni2 directory, as it is spelled there (spec §1.1)."""
    shapes = _shapes(d)
    text, speech = text_marks(d, vocabulary), speech_marks(d, vocabulary)
    tensors: list[Tensor] = []

    def add(prefix: str, name: str, shape: tuple[int, ...], rule: Rule) -> None:
        tensors.append(Tensor(prefix + name, shape, partial(draw, prefix + name, shape, rule, seed)))

    for name, shape in shapes["llm"].items():
        if name == "lm_head.weight" and d.tie_llm:
            continue
        add("" if name == "lm_head.weight" else "model.", name, shape, decoder_rule(name, d.llm, text, d.tie_llm))
    for name, shape in shapes["encoder"].items():
        inner = name.removeprefix("projector.")
        prefix = "model.speech_encoder." if inner == name else "model.speech_projector."
        add(prefix, inner, shape, encoder_rule(name, shape, d))
    for name, shape in shapes["speech_lm"].items():
        if name == "lm_head.weight" and d.tie_speech:
            continue
        prefix = "speech_generator.model." + ("" if name == "lm_head.weight" else "model.")
        add(prefix, name, shape, decoder_rule(name, d.speech_lm, speech, d.tie_speech))
    for name, shape in shapes["fusion"].items():
        add("speech_generator.", name, shape, fusion_rule(name, d))
    return tensors


def flow_tensors(d: Dimensions, seed: int) -> list[Tensor]:
    """Every tensor of `flow.pt`."""
    return [
        Tensor(name, shape, partial(draw, name, shape, flow_rule(name, shape, d), seed))
        for name, shape in _shapes(d)["flow"].items()
    ]


def vocoder_tensors(d: Dimensions, seed: int) -> list[Tensor]:
    """Every tensor of `hift.pt`, weight norm spelled as the original's (spec §1.4)."""
    tensors: list[Tensor] = []
    for name, shape in _shapes(d)["vocoder"].items():
        pieces = partial(draw, name, shape, vocoder_rule(name, shape, d.vocoder), seed)
        if not _weight_normed(name, shape):
            tensors.append(Tensor(name, shape, pieces))
            continue
        magnitude = (shape[0],) + (1,) * (len(shape) - 1)
        tensors.append(Tensor(f"{name}_g", magnitude, partial(_magnitudes, pieces, len(shape))))
        tensors.append(Tensor(f"{name}_v", shape, pieces))
    return tensors


def _weight_normed(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and not name.startswith("source_downs.")


def _magnitudes(pieces: Callable[[], Iterator[Floats]], rank: int) -> Iterator[Floats]:
    """‖v‖ over every axis but the first: with it w = g·v/‖v‖ is v."""
    for piece in pieces():
        energy = np.square(piece, dtype=np.float64).sum(axis=tuple(range(1, rank)), keepdims=True)
        yield np.sqrt(energy).astype(np.float32)


def _shapes(d: Dimensions) -> dict[str, dict[str, tuple[int, ...]]]:
    no_tokens = TokenConfig(eos=(), repetition_penalty=1.0, speech=0, sep=0, speech_eos=0)
    return expected_shapes(d.model_config(no_tokens))


def _check(d: Dimensions, vocabulary: Vocabulary) -> None:
    needs = (("llm", d.llm, vocabulary.size), ("speech_lm", d.speech_lm, vocabulary.size + 1 + d.flow_encoder.units))
    for name, c, tokens in needs:
        if c.vocab < tokens:
            raise SettingError(f"{name} has {c.vocab} vocabulary rows for {tokens} tokens", f"give it {tokens} or more")
        if c.head_dim < NARROWEST_HEAD:
            raise SettingError(f"{name} has heads of width {c.head_dim}", f"use {NARROWEST_HEAD} or more")


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2), encoding="utf-8")
