"""The speech encoder: Whisper's tensors from the model directory, a Whisper file, or both (spec §1.1, §1.3)."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omni2_engine.errors import CheckpointError
from omni2_engine.model.config import EncoderConfig
from omni2_export.checkpoint.tensors import (
    Arrays,
    Float32,
    Selection,
    Tensors,
    agreed_dimension,
    overlaid,
    renamed,
    under_prefix,
)
from omni2_export.checkpoint.torch_file import open_weights, torch_installed, warn_if_older
from omni2_export.fields import MOST_LAYERS, Fields
from omni2_export.input_files import require_content

HEAD_WIDTH = 64  # of every released encoder: the last resort where nothing says how many heads there are (spec §1.3)
WINDOW = 1500  # positions of Whisper's 30 s, where neither table nor dims say it (spec §1.3)
LONGEST_PERIOD = 10_000.0  # of the sinusoids, spec §3
POSITIONS = "positional_embedding"
BLOCK = re.compile(r"blocks\.(\d{1,6})\.")


@dataclass
class WhisperFile:
    """A Whisper checkpoint's encoder and the dimensions it states."""

    path: Path
    tensors: Tensors
    dims: Fields


@dataclass
class EncoderTensors:
    """Encoder and projector, and the Whisper file that had a part in them, if any."""

    config: EncoderConfig
    tensors: Selection
    file: Path | None


def open_whisper(path: Path) -> WhisperFile:
    """The encoder out of a Whisper `.pt` or its converted `.safetensors`; the decoder is left out.

    Raises:
        CheckpointError: unreadable, or not in OpenAI's format.
    """
    file = open_weights(path)
    tensors = under_prefix(file, "encoder.")
    if not tensors.names():
        raise CheckpointError(f"{path} holds no `encoder.` tensors", "give a Whisper file of OpenAI's format")
    try:
        dims = json.loads(file.metadata.get("dims", "{}"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its `dims` are not valid JSON", "convert the original .pt again") from error
    return WhisperFile(path, tensors, Fields(dims, f"{path}: dims"))


def find_whisper(model: Path, stated: str) -> Path | None:
    """The file `config.json` names as `speech_encoder`, if it can be found.

    The path was relative to the working directory of the training. So it, and then its shorter tails, are looked for
    in the model directory, in the two above it and in the working directory, as it is called and as `.safetensors`.
    """
    parts = [part for part in Path(stated).parts if part not in ("..", Path(stated).anchor)]
    places = [model, model.resolve().parent, model.resolve().parent.parent, Path()]
    if Path(stated).is_absolute():
        places.insert(0, Path(Path(stated).anchor))
    for candidate in (place.joinpath(*parts[i:]) for i in range(len(parts)) for place in places):
        for file in (candidate.with_suffix(".safetensors"), candidate):
            if os.path.isfile(file):  # unlike Path.is_file it takes any text for a path
                return file
            if os.path.islink(file):
                require_content(file, text=False)
    return None


def positional_table(context: int, width: int) -> Float32:
    """The sinusoidal table (context, width) of spec §3, [sin | cos], in float32 as Whisper computes it."""
    half = width // 2
    step = np.float32(np.log(LONGEST_PERIOD) / max(half - 1, 1))
    exponents = -step * np.arange(half, dtype=np.float32)
    # At position 1500 one unit in a frequency's last place is 1e-4 in the table: float32 exp itself must be exact.
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = np.arange(context, dtype=np.float32)[:, None] * frequencies[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def open_encoder(
    tensors: Tensors, config: Fields, model: Path, given: Path | None, warnings: list[str]
) -> EncoderTensors:
    """Encoder and projector, with the precedence of spec §1.1: the directory's keys win over the Whisper file's.

    Args:
        tensors: all tensors of the model directory.
        config: its config.json.
        model: the directory.
        given: a Whisper file the user named; else config.json's `speech_encoder` is looked for.
        warnings: gets what the user should know.

    Raises:
        CheckpointError: no encoder, or one whose file, configuration and tensors contradict each other.
    """
    own = under_prefix(tensors, "model.speech_encoder.")
    stated = Fields(config.values.get("speech_encoder_dims") or {}, f"{config.where}: speech_encoder_dims")
    file = _whisper_beside(own, config, stated, model, given)
    if file and not given:
        warn_if_older(file.path, file.path.with_suffix(".pt"), warnings)
    encoder = overlaid(own, *([file.tensors] if file else []))
    if not encoder.names():
        raise CheckpointError(
            f"{model} holds no speech encoder", "give the Whisper checkpoint with --speech-encoder large-v3.pt"
        )
    width = agreed_dimension(
        encoder, ("conv1.weight", 0), ("conv2.weight", 0), ("ln_post.weight", 0), ("conv1.bias", 0)
    )
    layers = 1 + max((int(found[1]) for name in encoder.names() if (found := BLOCK.match(name))), default=0)
    sources = [file.dims] if file else []
    sources.append(stated)
    for dims in sources:
        _agree(dims, "n_audio_state", width)
        _agree(dims, "n_audio_layer", layers)
    _agree(config, "speech_encoder_hidden_size", width)
    if POSITIONS not in encoder.names():
        context = next((dims.integer("n_audio_ctx") for dims in sources if dims.has("n_audio_ctx")), WINDOW)
        warnings.append(f"the encoder has no {POSITIONS}; Whisper's sinusoids for {context} positions are used")
        encoder = overlaid(encoder, Arrays({POSITIONS: positional_table(context, width)}))
    projector = renamed(under_prefix(tensors, "model.speech_projector."), lambda name: f"projector.{name}")
    module = overlaid(encoder, projector)
    dimensions = _encoder_config(module, config, sources, width, min(layers, MOST_LAYERS))
    return EncoderTensors(dimensions, module, file.path if file else None)


def _whisper_beside(
    own: Selection, config: Fields, stated: Fields, model: Path, given: Path | None
) -> WhisperFile | None:
    """The Whisper file. None if it is missing, or if it says nothing new and torch to read it is not installed."""
    path = given or find_whisper(model, config.text("speech_encoder", ""))
    if path is None:
        return None
    told = bool(own.names()) and stated.has("n_audio_head")
    if not given and told and path.suffix != ".safetensors" and not torch_installed():
        return None
    return open_whisper(path)


def _agree(fields: Fields, key: str, value: int) -> None:
    if fields.has(key) and fields.integer(key) != value:
        raise CheckpointError(
            f"{fields.where}: `{key}` is {fields.integer(key)}, but the encoder's tensors say {value}",
            "use the speech encoder this model was trained with",
        )


def _encoder_config(module: Selection, config: Fields, sources: list[Fields], width: int, layers: int) -> EncoderConfig:
    stated_heads = next((dims.integer("n_audio_head") for dims in sources if dims.has("n_audio_head")), None)
    heads = stated_heads or max(width // HEAD_WIDTH, 1)
    if width % heads or (stated_heads is None and width != heads * HEAD_WIDTH):
        raise CheckpointError(
            f"a speech encoder of width {width} cannot have {heads} heads"
            if stated_heads
            else f"nothing says how many heads the speech encoder of width {width} has",
            "give its Whisper file with --speech-encoder, or n_audio_head in config.json's speech_encoder_dims",
        )
    stacked = agreed_dimension(module, ("projector.linear1.weight", 1), default=width)
    c = EncoderConfig(
        mel_bins=agreed_dimension(module, ("conv1.weight", 1)),
        context=agreed_dimension(module, (POSITIONS, 0)),
        width=width,
        heads=heads,
        layers=layers,
        ffn=agreed_dimension(
            module,
            *(
                (f"blocks.{i}.mlp.{part}", axis)
                for i in range(layers)
                for part, axis in (("0.weight", 0), ("2.weight", 1))
            ),
        ),
        stack=config.integer("speech_encoder_ds_rate", max(stacked // width, 1)),
        projector_hidden=agreed_dimension(
            module, ("projector.linear1.weight", 0), ("projector.linear1.bias", 0), ("projector.linear2.weight", 1)
        ),
        output=config.integer("hidden_size"),
    )
    if c.positions < 1:
        raise CheckpointError(
            f"{config.where}: `speech_encoder_ds_rate` is {c.stack}", f"at most {c.context} fit the window"
        )
    return c
