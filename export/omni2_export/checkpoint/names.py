"""Which tensors a module must have and of what shape, from its dimensions; one error names all that do not fit.

Names and shapes are those of spec §1 after prefixes are stripped and weight norm is undone; PyTorch layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omni2_engine.errors import CheckpointError
from omni2_engine.model.config import (
    DecoderConfig,
    EncoderConfig,
    EstimatorConfig,
    FlowEncoderConfig,
    FusionConfig,
    ModelConfig,
    VocoderConfig,
)
from omni2_export.checkpoint.tensors import Tensors

Shapes = dict[str, tuple[int, ...]]
KERNEL = 3  # of Whisper's, the estimator's and the F0 predictor's convolutions: upstream types it in
END_KERNEL = 7  # of the vocoder's first and last convolution, likewise
NAMED = 20  # keys of each kind one error names


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _conv(name: str, out: int, into: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (out, into, kernel), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def encoder_shapes(c: EncoderConfig) -> Shapes:
    """Whisper encoder (names of spec §1.1) and `projector.*`."""
    shapes: Shapes = {"positional_embedding": (c.context, c.width)}
    shapes |= _conv("conv1", c.width, c.mel_bins, KERNEL) | _conv("conv2", c.width, c.width, KERNEL)
    for i in range(c.layers):
        block = f"blocks.{i}"
        shapes |= _linear(f"{block}.attn.query", c.width, c.width) | _linear(f"{block}.attn.value", c.width, c.width)
        shapes |= _linear(f"{block}.attn.out", c.width, c.width)
        shapes[f"{block}.attn.key.weight"] = (c.width, c.width)
        shapes |= _linear(f"{block}.mlp.0", c.ffn, c.width) | _linear(f"{block}.mlp.2", c.width, c.ffn)
        shapes |= _norm(f"{block}.attn_ln", c.width) | _norm(f"{block}.mlp_ln", c.width)
    shapes |= _norm("ln_post", c.width)
    shapes |= _linear("projector.linear1", c.projector_hidden, c.stack * c.width)
    return shapes | _linear("projector.linear2", c.output, c.projector_hidden)


def decoder_shapes(c: DecoderConfig) -> Shapes:
    """A Qwen2 decoder with its head."""
    shapes: Shapes = {name: (c.vocab, c.hidden) for name in ("embed_tokens.weight", "lm_head.weight")}
    shapes["norm.weight"] = (c.hidden,)
    for i in range(c.layers):
        layer = f"layers.{i}"
        shapes |= _linear(f"{layer}.self_attn.q_proj", c.heads * c.head_dim, c.hidden)
        shapes |= _linear(f"{layer}.self_attn.k_proj", c.kv_heads * c.head_dim, c.hidden)
        shapes |= _linear(f"{layer}.self_attn.v_proj", c.kv_heads * c.head_dim, c.hidden)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (c.hidden, c.heads * c.head_dim)
        shapes |= {f"{layer}.mlp.{part}_proj.weight": (c.ffn, c.hidden) for part in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (c.hidden, c.ffn)
        shapes |= {f"{layer}.{norm}_layernorm.weight": (c.hidden,) for norm in ("input", "post_attention")}
    return shapes


def fusion_shapes(c: FusionConfig) -> Shapes:
    """Gate fusion (spec §6)."""
    shapes = _linear("input_proj.0", c.hidden, c.llm_hidden) | _linear("input_proj.2", c.speech_hidden, c.hidden)
    return shapes | _linear("gate.0", c.speech_hidden, 2 * c.speech_hidden)


def _conformer_shapes(layer: str, width: int, heads: int, ffn: int) -> Shapes:
    shapes: Shapes = {f"{layer}.self_attn.pos_bias_{part}": (heads, width // heads) for part in "uv"}
    for part in ("q", "k", "v", "out"):
        shapes |= _linear(f"{layer}.self_attn.linear_{part}", width, width)
    shapes[f"{layer}.self_attn.linear_pos.weight"] = (width, width)
    shapes |= _linear(f"{layer}.feed_forward.w_1", ffn, width) | _linear(f"{layer}.feed_forward.w_2", width, ffn)
    return shapes | _norm(f"{layer}.norm_ff", width) | _norm(f"{layer}.norm_mha", width)


def flow_encoder_shapes(c: FlowEncoderConfig) -> Shapes:
    """Units → μ (spec §8.1)."""
    shapes: Shapes = {"input_embedding.weight": (c.units, c.width)}
    for embed in ("encoder.embed", "encoder.up_embed"):
        shapes |= _linear(f"{embed}.out.0", c.width, c.width) | _norm(f"{embed}.out.1", c.width)
    shapes |= _conv("encoder.pre_lookahead_layer.conv1", c.width, c.width, c.lookahead + 1)
    shapes |= _conv("encoder.pre_lookahead_layer.conv2", c.width, c.width, KERNEL)
    shapes |= _conv("encoder.up_layer.conv", c.width, c.width, 2 * c.ratio + 1)
    for i in range(c.blocks):
        shapes |= _conformer_shapes(f"encoder.encoders.{i}", c.width, c.heads, c.ffn)
    for i in range(c.up_blocks):
        shapes |= _conformer_shapes(f"encoder.up_encoders.{i}", c.width, c.heads, c.up_ffn)
    return shapes | _norm("encoder.after_norm", c.width) | _linear("encoder_proj", c.mel, c.width)


def estimator_shapes(c: EstimatorConfig) -> Shapes:
    """The velocity network and the speaker's affine layer (spec §7, §8.3)."""
    root, inner = "decoder.estimator", c.heads * c.head_dim
    shapes = _linear("spk_embed_affine_layer", c.mel, c.speaker)
    shapes |= _linear(f"{root}.time_mlp.linear_1", c.time_hidden, c.in_channels)
    shapes |= _linear(f"{root}.time_mlp.linear_2", c.time_hidden, c.time_hidden)
    stages = [
        (f"{root}.down_blocks.0", c.in_channels),
        *((f"{root}.mid_blocks.{i}", c.width) for i in range(c.mid_blocks)),
    ]
    for stage, into in [*stages, (f"{root}.up_blocks.0", 2 * c.width)]:
        shapes |= _linear(f"{stage}.0.mlp.1", c.width, c.time_hidden) | _conv(f"{stage}.0.res_conv", c.width, into, 1)
        for block, channels in ((f"{stage}.0.block1.block", into), (f"{stage}.0.block2.block", c.width)):
            shapes |= _conv(f"{block}.0", c.width, channels, KERNEL) | _norm(f"{block}.2", c.width)
        for i in range(c.transformers):
            layer = f"{stage}.1.{i}"
            shapes |= _norm(f"{layer}.norm1", c.width) | _norm(f"{layer}.norm3", c.width)
            shapes |= {f"{layer}.attn1.to_{part}.weight": (inner, c.width) for part in "qkv"}
            shapes |= _linear(f"{layer}.attn1.to_out.0", c.width, inner)
            shapes |= _linear(f"{layer}.ff.net.0.proj", c.ffn, c.width) | _linear(f"{layer}.ff.net.2", c.width, c.ffn)
    for conv in ("down_blocks.0.2", "up_blocks.0.2", "final_block.block.0"):
        shapes |= _conv(f"{root}.{conv}", c.width, c.width, KERNEL)
    return shapes | _norm(f"{root}.final_block.block.2", c.width) | _conv(f"{root}.final_proj", c.mel, c.width, 1)


def _resblock_shapes(block: str, width: int, kernel: int, dilations: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    for i in range(len(dilations)):
        for part in (1, 2):
            shapes |= _conv(f"{block}.convs{part}.{i}", width, width, kernel)
            shapes[f"{block}.activations{part}.{i}.alpha"] = (width,)
    return shapes


def vocoder_shapes(c: VocoderConfig) -> Shapes:
    """HiFT (spec §9)."""
    bins = c.fft + 2  # real and imaginary parts, or magnitudes and phases
    shapes = _linear("m_source.l_linear", 1, c.harmonics + 1) | _conv("conv_pre", c.base, c.mel, END_KERNEL)
    width = c.base
    for i, kernel in enumerate(c.upsample_kernels):
        into, width = width, c.base // 2 ** (i + 1)
        shapes |= {f"ups.{i}.weight": (into, width, kernel), f"ups.{i}.bias": (width,)}
        stride = c.hop // c.fft_hop
        for rate in c.upsample_rates[: i + 1]:
            stride //= rate
        shapes |= _conv(f"source_downs.{i}", width, bins, 2 * stride if stride > 1 else 1)
        shapes |= _resblock_shapes(f"source_resblocks.{i}", width, c.source_kernels[i], c.source_dilations[i])
        for j, (size, dilations) in enumerate(zip(c.resblock_kernels, c.resblock_dilations, strict=True)):
            shapes |= _resblock_shapes(f"resblocks.{i * len(c.resblock_kernels) + j}", width, size, dilations)
    shapes |= _conv("conv_post", bins, width, END_KERNEL)
    for i in range(c.f0_layers):  # an ELU stands between two convolutions
        shapes |= _conv(f"f0_predictor.condnet.{2 * i}", c.f0_width, c.f0_width if i else c.mel, KERNEL)
    return shapes | _linear("f0_predictor.classifier", 1, c.f0_width)


def expected_shapes(config: ModelConfig) -> dict[str, Shapes]:
    """Module → tensor name → shape, for all six modules of a checkpoint."""
    return {
        "encoder": encoder_shapes(config.encoder),
        "llm": decoder_shapes(config.llm),
        "speech_lm": decoder_shapes(config.speech_lm),
        "fusion": fusion_shapes(config.fusion),
        "flow": flow_encoder_shapes(config.flow_encoder) | estimator_shapes(config.estimator),
        "vocoder": vocoder_shapes(config.vocoder),
    }


def check_names(modules: Mapping[str, Tensors], config: ModelConfig, strays: Sequence[str] = ()) -> None:
    """Compare every module's tensors with what its dimensions ask for.

    Args:
        modules: the six modules.
        config: their dimensions.
        strays: names in the checkpoint that belong to no module.

    Raises:
        CheckpointError: one error naming every key that is missing, unknown or mis-shaped (the first of each kind, and
            how many more).
    """
    missing: list[str] = []
    extra = list(strays)
    wrong: list[str] = []
    for module, shapes in expected_shapes(config).items():
        tensors = modules[module]
        found = {name: tensors.shape(name) for name in tensors.names()}
        missing += [f"{module}:{name}" for name in shapes if name not in found]
        extra += [f"{module}:{name}" for name in found if name not in shapes]
        wrong += [
            f"{module}:{name} is {found[name]}, not {shape}"
            for name, shape in shapes.items()
            if name in found and found[name] != shape
        ]
    kinds = [("missing", missing), ("unknown", extra), ("of another shape", wrong)]
    if any(keys for _, keys in kinds):
        raise CheckpointError(
            "the checkpoint's tensors do not fit its configuration; "
            + "; ".join(f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in kinds if keys),
            "use weights and configuration of the same model",
        )


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more
