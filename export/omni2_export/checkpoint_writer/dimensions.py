"""How large a random checkpoint is: the released sizes, a tiny one, and any change of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from omni2_engine.errors import SettingError
from omni2_engine.model.config import (
    Capabilities,
    DecoderConfig,
    EncoderConfig,
    EstimatorConfig,
    FlowEncoderConfig,
    Frozen,
    FusionConfig,
    ModelConfig,
    TokenConfig,
    VocoderConfig,
)

STORAGE = ("F32", "F16", "BF16")
INPUTS = 4  # x, μ, speaker and condition channels of the estimator, spec §8.3


@dataclass(frozen=True)
class Dimensions:
    """Everything that decides the files of a checkpoint but the random weights.

    Args:
        name: of the model.
        encoder, llm, fusion, speech_lm, flow_encoder, estimator, vocoder: dimensions of the modules.
        read, write: R and W.
        tie_llm: the language model's head is its embedding, and absent from the file.
        tie_speech: likewise for the speech LM (spec §1.1: readers must warn).
        repetition_penalty: of the text, for `generation_config.json`.
        text_tokens: about how many tokens the text has before it ends.
        last_units: about how many units the final write has before it ends.
        storage: how the LLaMA-Omni2 directory stores weights, "F32", "F16" or "BF16".
        decoder_storage: likewise for flow and vocoder.
        shard_bytes: the directory's weights are split into files of about this size; 0 keeps one file.
        capabilities: what `config.json` says the model was taught; nothing, like a released one, if it was taught all.
    """

    name: str
    encoder: EncoderConfig
    llm: DecoderConfig
    fusion: FusionConfig
    speech_lm: DecoderConfig
    flow_encoder: FlowEncoderConfig
    estimator: EstimatorConfig
    vocoder: VocoderConfig
    read: int = 3
    write: int = 10
    tie_llm: bool = True
    tie_speech: bool = False
    repetition_penalty: float = 1.1
    text_tokens: int = 32
    last_units: int = 24
    storage: str = "BF16"
    decoder_storage: str = "F32"
    shard_bytes: int = 5_000_000_000
    capabilities: Capabilities = field(default_factory=Capabilities)

    def __post_init__(self) -> None:
        for storage in (self.storage, self.decoder_storage):
            if storage not in STORAGE:
                raise SettingError(f"unknown storage {storage!r}", f"use one of {', '.join(STORAGE)}")

    def changed(self, **changes: Any) -> Dimensions:
        """These dimensions with some fields changed.

        Args:
            **changes: a field and its value; for a module a dict of its fields. What follows from other modules (widths
                that meet, `fusion.hidden`, a head's width, the number of mel bins) follows unless it is given.

        Raises:
            SettingError: a field that does not exist.
        """
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        modules = {key: value.model_dump() for key, value in own.items() if isinstance(value, Frozen)}
        for key, value in changes.items():
            known = modules.get(key, own)
            for name in value if key in modules else [key]:
                if name not in known:
                    raise SettingError(f"a checkpoint has no dimension {key}.{name}", "see omni2_engine.model.config")
            if key in modules:
                modules[key] |= value
        _follow(modules, changes)
        plain = {key: value for key, value in changes.items() if key not in modules}
        return replace(self, **plain, **{key: type(own[key])(**value) for key, value in modules.items()})

    def model_config(self, tokens: TokenConfig) -> ModelConfig:
        """The whole model with the ids of its tokenizers."""
        own = {key: getattr(self, key) for key in ModelConfig.model_fields if key != "tokens"}
        return ModelConfig(**own, tokens=tokens)


def _follow(modules: dict[str, dict[str, Any]], changes: dict[str, Any]) -> None:
    """Where a dimension has changed, set what it says about others that were not given with it."""

    def default(module: str, **values: Any) -> None:
        given = changes.get(module, {})
        modules[module] |= {key: value for key, value in values.items() if key not in given}

    def changed(module: str, *names: str) -> bool:
        return not changes.get(module, {}).keys().isdisjoint(names)

    for lm in ("llm", "speech_lm"):
        if changed(lm, "hidden", "heads"):
            default(lm, head_dim=modules[lm]["hidden"] // modules[lm]["heads"])
    if changed("llm", "hidden"):
        hidden = modules["llm"]["hidden"]
        default("encoder", output=hidden)
        default("fusion", llm_hidden=hidden, hidden=2 * hidden)
    if changed("speech_lm", "hidden"):
        default("fusion", speech_hidden=modules["speech_lm"]["hidden"])
    if changed("flow_encoder", "mel"):
        mel = modules["flow_encoder"]["mel"]
        default("estimator", mel=mel, in_channels=INPUTS * mel)
        default("vocoder", mel=mel)


def _qwen(vocab: int, hidden: int, layers: int, heads: int, kv_heads: int, ffn: int) -> DecoderConfig:
    return DecoderConfig(
        vocab=vocab,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        ffn=ffn,
        rms_eps=1e-6,
        rope_theta=1e6,
        max_positions=32_768,
    )


def _whisper(width: int, heads: int, layers: int, output: int, projector_hidden: int) -> EncoderConfig:
    return EncoderConfig(
        mel_bins=128,
        context=1500,
        width=width,
        heads=heads,
        layers=layers,
        ffn=4 * width,
        stack=5,
        projector_hidden=projector_hidden,
        output=output,
    )


def _estimator(width: int, heads: int, head_dim: int, transformers: int, mid_blocks: int) -> EstimatorConfig:
    return EstimatorConfig(
        mel=80,
        in_channels=INPUTS * 80,
        width=width,
        heads=heads,
        head_dim=head_dim,
        ffn=4 * width,
        time_hidden=4 * width,
        transformers=transformers,
        mid_blocks=mid_blocks,
        speaker=192,
        guidance=0.7,
    )


def _flow_encoder(width: int, heads: int, ffn: int, blocks: int) -> FlowEncoderConfig:
    return FlowEncoderConfig(
        units=6561,
        width=width,
        heads=heads,
        ffn=ffn,
        blocks=blocks,
        up_blocks=4,
        up_ffn=ffn,
        mel=80,
        unit_rate=25,
        ratio=2,
        lookahead=3,
    )


def _vocoder(base: int, f0_width: int) -> VocoderConfig:
    return VocoderConfig(
        mel=80,
        sample_rate=24_000,
        base=base,
        harmonics=8,
        sine_amplitude=0.1,
        noise_sigma=0.003,
        voiced_threshold=10.0,
        upsample_rates=(8, 5, 3),
        upsample_kernels=(16, 11, 7),
        fft=16,
        fft_hop=4,
        resblock_kernels=(3, 7, 11),
        resblock_dilations=((1, 3, 5),) * 3,
        source_kernels=(7, 7, 11),
        source_dilations=((1, 3, 5),) * 3,
        leaky_slope=0.1,
        audio_limit=0.99,
        f0_width=f0_width,
        f0_layers=5,
    )


def _released(name: str, llm: DecoderConfig, tie: bool, penalty: float) -> Dimensions:
    """A released size: Qwen2.5 of that size around Whisper large-v3, the 0.5B speech LM and the CosyVoice2 decoder."""
    units = 6561
    speech_lm = _qwen(151_936 + units + 1, 896, 24, 14, 2, 4864)
    return Dimensions(
        name=name,
        encoder=_whisper(1280, 20, 32, llm.hidden, 2048),
        llm=llm,
        fusion=FusionConfig(llm_hidden=llm.hidden, hidden=2 * llm.hidden, speech_hidden=speech_lm.hidden),
        speech_lm=speech_lm,
        flow_encoder=_flow_encoder(512, 8, 2048, 6),
        estimator=_estimator(256, 8, 64, 4, 12),
        vocoder=_vocoder(512, 512),
        tie_llm=tie,
        repetition_penalty=penalty,
    )


def _tiny() -> Dimensions:
    """Small enough that build and answer take seconds on two processors."""
    llm, speech_lm = _qwen(768, 128, 3, 4, 2, 256), _qwen(7424, 128, 3, 4, 2, 256)
    return Dimensions(
        name="tiny",
        encoder=_whisper(64, 2, 2, llm.hidden, 128),
        llm=llm,
        fusion=FusionConfig(llm_hidden=llm.hidden, hidden=2 * llm.hidden, speech_hidden=speech_lm.hidden),
        speech_lm=speech_lm,
        flow_encoder=_flow_encoder(64, 2, 128, 2),
        estimator=_estimator(64, 2, 32, 1, 2),
        vocoder=_vocoder(128, 64),
        tie_llm=False,
        repetition_penalty=1.3,
        text_tokens=36,
    )


PRESETS: dict[str, Dimensions] = {
    "tiny": _tiny(),
    "0.5B": _released("0.5B", _qwen(151_936, 896, 24, 14, 2, 4864), True, 1.1),
    "1.5B": _released("1.5B", _qwen(151_936, 1536, 28, 12, 2, 8960), True, 1.1),
    "3B": _released("3B", _qwen(151_936, 2048, 36, 16, 2, 11_008), True, 1.05),
    "7B": _released("7B", _qwen(152_064, 3584, 28, 28, 4, 18_944), False, 1.05),
    "14B": _released("14B", _qwen(152_064, 5120, 48, 40, 8, 13_824), False, 1.05),
    "32B": _released("32B", _qwen(152_064, 5120, 64, 40, 8, 27_648), False, 1.05),
}
