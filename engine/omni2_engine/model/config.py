"""Dimensions of a model: everything a graph builder or a stage needs to know besides the weights.

Read from a checkpoint by `omni2_export.checkpoint`, kept in the engine directory's manifest, read back by the engine.
Nothing here is a released number typed in; the properties are the formulas of spec §1.3, §8 and §9.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field

WHISPER_SAMPLE_RATE = 16_000  # Hz, spec §2
WHISPER_FFT = 400  # samples, spec §2
WHISPER_HOP = 160  # samples per log-mel frame, spec §2
EULER_STEPS = 10  # hard-coded upstream, spec §8.2
VOCODER_OVERLAP_FRAMES = 8  # mel frames kept between vocoder calls, spec §10


class Frozen(BaseModel):
    """A frozen record that refuses unknown fields, so that a manifest of another version cannot be half-read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderConfig(Frozen):
    """Whisper encoder and the projector behind it (spec §3)."""

    mel_bins: int = Field(gt=0)
    context: int = Field(gt=0, description="positions after the stride-2 convolution; rows of positional_embedding")
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    layers: int = Field(gt=0)
    ffn: int = Field(gt=0)
    stack: int = Field(gt=0, description="consecutive encoder positions joined into one vector (ds_rate, k)")
    projector_hidden: int = Field(gt=0)
    output: int = Field(gt=0, description="the language model's hidden size")

    @property
    def frames(self) -> int:
        """Log-mel frames of one window."""
        return 2 * self.context

    @property
    def samples(self) -> int:
        """16 kHz samples of one window."""
        return self.frames * WHISPER_HOP

    @property
    def positions(self) -> int:
        """Language-model positions one utterance takes."""
        return self.context // self.stack


class DecoderConfig(Frozen):
    """A Qwen2 decoder: the language model or the speech language model (spec §5)."""

    vocab: int = Field(gt=0)
    hidden: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    ffn: int = Field(gt=0)
    rms_eps: float = Field(gt=0)
    rope_theta: float = Field(gt=0)
    max_positions: int = Field(gt=0)


class FusionConfig(Frozen):
    """Gate fusion of hidden states and token embeddings (spec §6)."""

    llm_hidden: int = Field(gt=0)
    hidden: int = Field(gt=0, description="rows of input_proj.0")
    speech_hidden: int = Field(gt=0)


class FlowEncoderConfig(Frozen):
    """Units → μ: the up-sampling conformer encoder (spec §8.1)."""

    units: int = Field(gt=0, description="rows of input_embedding; unit ids at or beyond it have no sound")
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    ffn: int = Field(gt=0)
    blocks: int = Field(gt=0)
    up_blocks: int = Field(ge=0)
    up_ffn: int = Field(gt=0)
    mel: int = Field(gt=0)
    unit_rate: int = Field(gt=0, description="units per second (input_frame_rate)")
    ratio: int = Field(gt=0, description="mel frames per unit (token_mel_ratio)")
    lookahead: int = Field(ge=0, description="units a non-final call sees but does not synthesise (pre_lookahead_len)")

    @property
    def block_units(self) -> int:
        """Units of one attention block: two seconds of them (spec §8)."""
        return 2 * self.unit_rate

    @property
    def block_frames(self) -> int:
        """Mel frames of one attention block."""
        return self.block_units * self.ratio


class EstimatorConfig(Frozen):
    """The flow's velocity network and the steps of its original solver (spec §8.2, §8.3)."""

    mel: int = Field(gt=0)
    in_channels: int = Field(
        gt=0, description="x, μ, speaker and condition channels together; also the time embedding's width"
    )
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    ffn: int = Field(gt=0)
    time_hidden: int = Field(gt=0)
    transformers: int = Field(gt=0, description="transformer blocks behind each resnet (n_blocks)")
    mid_blocks: int = Field(ge=0)
    speaker: int = Field(gt=0, description="width of the speaker vector before its affine layer")
    guidance: float = Field(description="inference_cfg_rate: v = (1+g)·f_cond − g·f_uncond")
    steps: int = Field(default=EULER_STEPS, gt=0)


class VocoderConfig(Frozen):
    """HiFT: mel → F0 → harmonic source → waveform (spec §9)."""

    mel: int = Field(gt=0)
    sample_rate: int = Field(gt=0)
    base: int = Field(gt=0, description="channels of conv_pre")
    harmonics: int = Field(ge=0, description="overtones beside the fundamental (nb_harmonics)")
    sine_amplitude: float
    noise_sigma: float
    voiced_threshold: float
    upsample_rates: tuple[int, ...]
    upsample_kernels: tuple[int, ...]
    fft: int = Field(gt=0)
    fft_hop: int = Field(gt=0)
    resblock_kernels: tuple[int, ...]
    resblock_dilations: tuple[tuple[int, ...], ...]
    source_kernels: tuple[int, ...]
    source_dilations: tuple[tuple[int, ...], ...]
    leaky_slope: float
    audio_limit: float
    f0_width: int = Field(gt=0)
    f0_layers: int = Field(gt=0)

    @property
    def hop(self) -> int:
        """Samples per mel frame: product of the up-sampling rates × iSTFT hop."""
        return math.prod(self.upsample_rates) * self.fft_hop

    @property
    def overlap(self) -> int:
        """Samples cross-faded between two calls, and kept of the source (spec §9, §10)."""
        return VOCODER_OVERLAP_FRAMES * self.hop


class TokenConfig(Frozen):
    """Ids the read/write loop steers by (spec §1.1, §1.2, §6)."""

    eos: tuple[int, ...] = Field(description="ids that end the text")
    repetition_penalty: float = Field(gt=0)
    speech: int = Field(description="the `<speech>` placeholder's id in the text tokenizer")
    sep: int = Field(description="`<sep>` in the speech tokenizer")
    speech_eos: int
    context_limit: int | None = Field(default=None, description="tokenizer_model_max_length, in prompt positions")


class Capabilities(Frozen):
    """What a model was taught of what the engine can do; a released checkpoint says nothing, and was taught all."""

    typed_turns: bool = Field(default=True, description="it answers typed turns")
    history_turns: int | None = Field(
        default=None, ge=0, description="earlier turns it should be given; None is all that fit"
    )
    open_domain: bool = Field(default=True, description="it answers questions of any kind")


class ModelConfig(Frozen):
    """A whole LLaMA-Omni2 model with its decoder."""

    name: str
    read: int = Field(gt=0, description="R: text tokens read per round")
    write: int = Field(gt=0, description="W: speech tokens written per round")
    encoder: EncoderConfig
    llm: DecoderConfig
    fusion: FusionConfig
    speech_lm: DecoderConfig
    flow_encoder: FlowEncoderConfig
    estimator: EstimatorConfig
    vocoder: VocoderConfig
    tokens: TokenConfig
    capabilities: Capabilities = Capabilities()
