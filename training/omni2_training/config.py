"""What a training run is made of: one YAML file, checked when it is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from omni2_engine.model.config import (
    DecoderConfig,
    EncoderConfig,
    EstimatorConfig,
    FlowEncoderConfig,
    Frozen,
    FusionConfig,
    VocoderConfig,
)
from omni2_training.loop import Schedule
from omni2_training.models.critic import CriticConfig
from omni2_training.models.tokenizer import TokenizerConfig

LETTERS = re.compile(r"\b[A-Z], [A-Z]\b")
CONFIGS = Path(__file__).parent / "configs"


class CorpusSettings(Frozen):
    """Texts: see `domain.draw_corpus`."""

    sizes: dict[str, int]
    test_share: float = Field(gt=0, lt=1)


class TeacherSettings(Frozen):
    """The voice that speaks the answers."""

    voice: str = Field(description="file of style vectors, without `.bin`")
    speed: float = Field(gt=0)
    spelling: float = Field(gt=0, description="speed of answers in which letters are spelled")

    def speed_of(self, text: str) -> float:
        """How fast an answer is spoken."""
        return self.spelling if LETTERS.search(text) else self.speed

    def name_of(self, text: str) -> str:
        """Tells the voice at the speed of an answer from the same at another."""
        return f"{self.voice}-{self.speed_of(text):g}"


class TokenizerSettings(Frozen):
    """Units from mel frames."""

    model: TokenizerConfig
    frames: int = Field(gt=0, multiple_of=2, description="mel frames of a crop")
    mel_weight: float = Field(ge=0, description="of the mel's distance beside the phonemes' cross-entropy")
    schedule: Schedule
    variants: int = Field(ge=0, description="of every answer, that the speech language model learns as well")


class VocoderSettings(Frozen):
    """Sound from mel frames."""

    model: VocoderConfig
    frames: int = Field(gt=0, description="mel frames of a crop")
    mel_weight: float = Field(ge=0)
    schedule: Schedule
    critic: CriticConfig
    finish: Schedule


class FlowSettings(Frozen):
    """Mel frames from units."""

    encoder: FlowEncoderConfig
    estimator: EstimatorConfig
    scale: float = Field(gt=0, description="the flow's mel divided by the vocoder's; its noise stays as it is")
    schedule: Schedule


class DecoderSettings(Frozen):
    """Dimensions of a Qwen2 decoder that are chosen; the vocabulary follows from the tokenizers."""

    hidden: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    ffn: int = Field(gt=0)
    rope_theta: float = Field(gt=0)

    def decoder(self, vocab: int) -> DecoderConfig:
        """All dimensions."""
        return DecoderConfig(
            **self.model_dump(),
            vocab=vocab,
            head_dim=self.hidden // self.heads,
            rms_eps=1e-6,
            max_positions=32_768,
        )


class SpeechLMSettings(Frozen):
    """Units from text."""

    model: DecoderSettings
    noise: float = Field(ge=0, lt=1, description="share of the units fed in training that are exchanged for others")
    dropout: float = Field(ge=0, lt=1, description="of what goes into the decoder and comes out of it")
    schedule: Schedule


class ListeningSettings(Frozen):
    """The frozen encoder, and what it hears."""

    encoder: EncoderConfig
    ways: int = Field(gt=0, description="how many voices, speeds and noises every question to train is asked in")
    more: int = Field(default=0, ge=0, description="questions that are heard beside the corpus', exercises among them")
    common: int = Field(default=0, ge=0, description="greetings and the like in their usual wordings, in many voices")
    silent: int = Field(default=0, ge=0, description="turns without a word: silence, noise, music")


class LLMSettings(Frozen):
    """Answers from questions."""

    model: DecoderSettings
    turns: list[float] = Field(min_length=1, description="share of the batches of one, two … turns a conversation")
    follow_ups: float = Field(ge=0, le=1, description="how often two turns belong together, where there is room")
    history_turns: int = Field(default=1, ge=0, description="earlier turns that the model asks to be given")
    typed_share: float = Field(ge=0, lt=1, description="share of the conversations without sound that are typed")
    read_share: float = Field(ge=0, lt=1, description="share of the batches that are still read while listening")
    noise: float = Field(ge=0, description="standard deviation of what is added to the encoder's output in training")
    dropout: float = Field(ge=0, lt=1, description="of what the encoder heard, and around the decoder")
    transcript_weight: float = Field(ge=0)
    learnt: float = Field(default=1, gt=0, le=1, description="of the way from released weights, in `refine`")
    answers: dict[str, str] = Field(
        default={}, description="pattern of an answer → what is answered in its place, where the voice lacks it"
    )
    reading: Schedule
    listening: Schedule


class Settings(Frozen):
    """A whole run."""

    seed: int
    corpus: CorpusSettings
    teacher: TeacherSettings
    tokenizer: TokenizerSettings
    vocoder: VocoderSettings
    flow: FlowSettings
    merges: int = Field(gt=0, description="of the text tokenizer")
    read: int = Field(gt=0, description="R")
    write: int = Field(gt=0, description="W")
    fusion: FusionConfig
    speech_lm: SpeechLMSettings
    listening: ListeningSettings
    llm: LLMSettings
    join: Schedule
    refit: Schedule
    sharpness: float = Field(gt=0, description="of the units' distribution in the exported head: 1 / temperature")

    @classmethod
    def load(cls, name: str) -> Settings:
        """Settings of a file, or of one of those in `configs/` by its name."""
        return cls.model_validate(_fields(name))


def _fields(name: str) -> dict[str, Any]:
    """Fields of a file over those of the file that it names as its `base`."""
    path = Path(name) if name.endswith(".yaml") else CONFIGS / f"{name}.yaml"
    fields: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = fields.pop("base", None)
    return _over(_fields(base), fields) if base else fields


def _over(base: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    nested = {k: _over(base[k], v) for k, v in fields.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return base | fields | nested
