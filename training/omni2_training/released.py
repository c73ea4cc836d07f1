"""Stage `export`: trained modules as a checkpoint of the released file formats, float16 (spec §1)."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from omni2_bench.random_checkpoint.speaker import write_campplus
from omni2_engine.model.config import Capabilities
from omni2_export.checkpoint import open_checkpoint
from omni2_export.checkpoint_writer.config_json import model_fields
from omni2_export.checkpoint_writer.decoder_yaml import decoder_yaml
from omni2_export.checkpoint_writer.dimensions import Dimensions
from omni2_export.checkpoint_writer.paths import CheckpointPaths
from omni2_export.checkpoint_writer.safetensors_stream import Tensor as Stored
from omni2_export.checkpoint_writer.safetensors_stream import write_file, write_shards
from omni2_export.checkpoint_writer.tokenizer import Vocabulary, write_speech_tokenizer, write_text_tokenizer
from omni2_export.reference.build import load_reference
from omni2_export.reference.fusion import TorchFusion
from omni2_export.reference.qwen2 import Qwen2
from omni2_export.reference.solver import TorchFlow
from omni2_export.reference.vocoder import HiFT
from omni2_export.reference.whisper import TorchSpeechEncoder
from omni2_training.config import Settings
from omni2_training.flow_mels import load_flow
from omni2_training.listening.whisper_weights import load_encoder
from omni2_training.loop import load_averaged
from omni2_training.refined import refined_listener
from omni2_training.refit import STAGE as REFIT
from omni2_training.train_join import STAGE as JOIN
from omni2_training.train_llm import LISTENING, make_listener
from omni2_training.train_speech_lm import make_speech_lm
from omni2_training.train_vocoder import load_vocoder
from omni2_training.vocabulary import CHAT_TEMPLATE, TextIds, read_vocabulary
from omni2_training.workspace import Workspace

NAME = "omni2-demo"
STORAGE = "F16"


@dataclass(frozen=True)
class Modules:
    """Everything that is trained, in the reference's modules."""

    encoder: TorchSpeechEncoder
    llm: Qwen2
    fusion: TorchFusion
    speech_lm: Qwen2
    flow: TorchFlow
    vocoder: HiFT


def trained_modules(settings: Settings, workspace: Workspace) -> Modules:
    """The averaged weights of every stage.

    Raises:
        FileNotFoundError: a stage has not been trained.
    """
    ids = TextIds.load(workspace)
    listener = load_averaged(workspace, LISTENING, make_listener(settings, ids))
    encoder = load_encoder(settings.listening.encoder)
    encoder.projector.load_state_dict(listener.projector.state_dict())
    speech_lm, fusion = load_averaged(workspace, JOIN, make_speech_lm(settings, ids)).export(settings.sharpness)
    flow = load_flow(settings, workspace)
    vocoder = listening_to(load_vocoder(settings, workspace), settings.flow.scale)
    return Modules(encoder, listener.model, fusion, speech_lm, flow, vocoder)


def refined_modules(settings: Settings, workspace: Workspace, path: Path) -> Modules:
    """What understands, of stage `listen`; the voice of a released model, its fusion as stage `refit` left it.

    Raises:
        CheckpointError: there is no such model.
        FileNotFoundError: one of these stages has not run.
    """
    reference = load_reference(open_checkpoint(path / "omni2", decoder=path / "decoder"))
    encoder, listener = reference.encoder, refined_listener(settings, workspace)
    encoder.projector.load_state_dict(listener.projector.state_dict())
    fusion = reference.fusion.requires_grad_(True)
    load_averaged(workspace, REFIT, fusion)
    return Modules(encoder, listener.model, fusion, reference.speech_lm, reference.flow, reference.vocoder)


@torch.no_grad()
def listening_to(vocoder: HiFT, scale: float) -> HiFT:
    """The vocoder for mels that are `scale` times its own: the two convolutions that read them divide by it."""
    for reader in (vocoder.conv_pre, vocoder.f0_predictor.condnet[0]):
        reader.weight /= scale
    return vocoder


def dimensions(settings: Settings, modules: Modules) -> Dimensions:
    """What the files say of the model."""
    return Dimensions(
        name=NAME,
        encoder=settings.listening.encoder,
        llm=modules.llm.config,
        fusion=settings.fusion,
        speech_lm=modules.speech_lm.config,
        flow_encoder=settings.flow.encoder,
        estimator=settings.flow.estimator,
        vocoder=settings.vocoder.model,
        read=settings.read,
        write=settings.write,
        tie_llm=True,
        repetition_penalty=1.0,
        storage=STORAGE,
        decoder_storage=STORAGE,
        capabilities=Capabilities(typed_turns=True, history_turns=settings.llm.history_turns, open_domain=False),
    )


def write_released(path: Path, d: Dimensions, modules: Modules, vocabulary: Vocabulary) -> CheckpointPaths:
    """Write `path/omni2` and `path/decoder`, the directories `omni2-engine build` takes.

    Args:
        path: made anew.
        d: dimensions that fit `modules`.
        vocabulary: of the text tokenizer.
    """
    shutil.rmtree(path, ignore_errors=True)
    paths = CheckpointPaths.below(path)
    for directory in (paths.model, paths.decoder):
        directory.mkdir(parents=True)
    write_text_tokenizer(paths.model, vocabulary, CHAT_TEMPLATE)
    write_speech_tokenizer(paths.model / "tts_tokenizer", vocabulary, d.flow_encoder.units)
    config = model_fields(d, vocabulary)
    _write_json(paths.model / "config.json", config)
    ends = {"eos_token_id": [config["eos_token_id"]], "pad_token_id": config["bos_token_id"]}
    _write_json(
        paths.model / "generation_config.json",
        {"do_sample": False, **ends, "repetition_penalty": d.repetition_penalty},
    )
    write_shards(paths.model, _shards(modules), d.storage)
    (paths.decoder / "cosyvoice.yaml").write_text(decoder_yaml(d), encoding="utf-8")
    write_file(paths.decoder / "flow.safetensors", _stored("", modules.flow), d.decoder_storage)
    write_file(paths.decoder / "hift.safetensors", _stored("", modules.vocoder), d.decoder_storage)
    write_campplus(paths.decoder / "campplus.onnx", d.estimator.speaker, seed=0)
    return paths


def export(settings: Settings, workspace: Workspace, console: Console, voice: Path | None = None) -> Path:
    """Stage `export`: write `released/` in the workspace.

    Args:
        voice: a released model whose voice was kept (`refine`); None for the run's own.
    """
    modules = refined_modules(settings, workspace, voice) if voice else trained_modules(settings, workspace)
    path = workspace.path("released")
    write_released(path, dimensions(settings, modules), modules, read_vocabulary(workspace))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    console.print(f"Wrote {path}: {size / 1e6:.1f} MB")
    return path


def _shards(modules: Modules) -> list[list[Stored]]:
    """Every tensor of the LLaMA-Omni2 directory, as it is spelled there (spec §1.1).

    The frozen encoder has a file of its own: it stays the same from one training to the next.
    """
    return [
        _stored("model.speech_encoder.", modules.encoder, without=("projector.",)),
        [
            *_stored("model.", modules.llm, without=("lm_head.",)),
            *_stored("model.speech_projector.", modules.encoder.projector),
            *_stored("speech_generator.model.model.", modules.speech_lm, without=("lm_head.",)),
            *_stored("speech_generator.model.lm_head.", modules.speech_lm.lm_head),
            *_stored("speech_generator.", modules.fusion),
        ],
    ]


def _stored(prefix: str, module: nn.Module, without: tuple[str, ...] = ()) -> list[Stored]:
    def one(name: str, value: Tensor) -> Stored:
        array = value.detach().numpy().astype(np.float32)
        return Stored(prefix + name, array.shape, lambda: [array])

    return [one(name, value) for name, value in module.state_dict().items() if not name.startswith(without)]


def _write_json(path: Path, fields: dict[str, object]) -> None:
    path.write_text(json.dumps(fields, indent=2), encoding="utf-8")
