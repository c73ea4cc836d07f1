"""The decoder directory: flow and vocoder, dimensions from `cosyvoice.yaml`, tensors by name (spec §1.4)."""

from __future__ import annotations

import re
from pathlib import Path

from omni2_engine.errors import CheckpointError
from omni2_engine.model.config import EstimatorConfig, FlowEncoderConfig, VocoderConfig
from omni2_engine.system.file_content import is_apple_double
from omni2_export.checkpoint.plain_yaml import TAG, read_yaml
from omni2_export.checkpoint.tensors import Tensors, agreed_dimension, renamed
from omni2_export.checkpoint.torch_file import open_weights
from omni2_export.checkpoint.weight_norm import WithoutWeightNorm
from omni2_export.fields import MOST_LAYERS, Fields
from omni2_export.input_files import is_there

YAML_NAMES = ("cosyvoice.yaml", "cosyvoice2.yaml")
UP_ENCODER = re.compile(r"encoder\.up_encoders\.(\d{1,6})\.")
CONDNET = re.compile(r"f0_predictor\.condnet\.(\d{1,6})\.")
INPUTS = 4  # the estimator sees x, μ, speaker and condition, each as wide as the mel (spec §8.3)


def open_flow(file: Path, root: Fields) -> tuple[FlowEncoderConfig, EstimatorConfig, Tensors]:
    """The flow: units → mel.

    Args:
        file: `flow.pt` or its converted `.safetensors`.
        root: the directory's YAML.

    Raises:
        CheckpointError: tensors or fields are missing, or it is a flow of another kind.
    """
    tensors = open_weights(file)
    flow = root.section("flow")
    _require_class(flow, "CausalMaskedDiffWithXvec")
    return _flow_encoder(flow, tensors), _estimator(flow, tensors), tensors


def open_vocoder(file: Path, root: Fields) -> tuple[VocoderConfig, Tensors]:
    """The vocoder, `generator.` removed from its names and weight norm undone.

    Args:
        file: `hift.pt` or its converted `.safetensors`.
        root: the directory's YAML.

    Raises:
        CheckpointError: tensors or fields are missing, or it is a vocoder of another kind.
    """
    tensors = open_weights(file)
    plain = WithoutWeightNorm(renamed(tensors, lambda name: name.replace("generator.", "")))
    return _vocoder(root.section("hift"), plain), plain


def read_decoder_yaml(directory: Path) -> Fields:
    """The directory's YAML file as plain data.

    Raises:
        CheckpointError: there is none, or it is broken.
    """
    named = [directory / name for name in YAML_NAMES if is_there(directory / name)]
    others = sorted(path for path in directory.glob("*.yaml") if not is_apple_double(path))
    if not named and len(others) != 1:
        raise CheckpointError(
            f"{directory} holds no {YAML_NAMES[0]}", "give the cosy2_decoder directory with --decoder"
        )
    path = (named or others)[0]
    return Fields(read_yaml(path), str(path))


def _require_class(fields: Fields, *known: str) -> None:
    """Refuse a `!new:` class we do not know; without a tag the table is taken at its word."""
    tag = str(fields.values.get(TAG, ""))
    name = tag.rpartition(".")[2].rpartition(":")[2]
    if tag and name not in known:
        raise CheckpointError(f"{fields.where} is a `{name}`, which is not supported", f"{' or '.join(known)} is")


def _count(pattern: re.Pattern[str], tensors: Tensors) -> int:
    """One more than the highest index a name pattern finds, within reason."""
    highest = max((int(found[1]) for name in tensors.names() if (found := pattern.match(name))), default=-1)
    return min(highest + 1, MOST_LAYERS)


def _flow_encoder(flow: Fields, tensors: Tensors) -> FlowEncoderConfig:
    encoder = flow.section("encoder")
    _require_class(encoder, "UpsampleConformerEncoder")
    for key, value in (
        ("input_layer", "linear"),
        ("pos_enc_layer_type", "rel_pos_espnet"),
        ("selfattention_layer_type", "rel_selfattn"),
        ("activation_type", "swish"),
        ("normalize_before", True),
        ("macaron_style", False),
        ("use_cnn_module", False),
        ("key_bias", True),
    ):
        encoder.require(key, (value,))
    width, heads = encoder.integer("output_size"), encoder.integer("attention_heads")
    widths = {width, flow.integer("input_size", width), encoder.integer("input_size", width)}
    if len(widths) > 1 or width % heads or width % 2:
        raise CheckpointError(
            f"{encoder.where}: input and output sizes {sorted(widths)} with {heads} heads",
            "one even size throughout, a multiple of the heads, is supported",
        )
    up_blocks = _count(UP_ENCODER, tensors)
    ffn = encoder.integer("linear_units")
    return FlowEncoderConfig(
        units=flow.integer("vocab_size"),
        width=width,
        heads=heads,
        ffn=ffn,
        blocks=encoder.integer("num_blocks", most=MOST_LAYERS),
        up_blocks=up_blocks,
        up_ffn=agreed_dimension(
            tensors, *((f"encoder.up_encoders.{i}.feed_forward.w_1.weight", 0) for i in range(up_blocks)), default=ffn
        ),
        mel=flow.integer("output_size"),
        unit_rate=flow.integer("input_frame_rate"),
        ratio=flow.integer("token_mel_ratio"),
        lookahead=flow.integer("pre_lookahead_len", least=0),
    )


def _estimator(flow: Fields, tensors: Tensors) -> EstimatorConfig:
    solver = flow.section("decoder")
    _require_class(solver, "CausalConditionalCFM")
    params = solver.section("cfm_params")
    params = params.section("content") if params.has("content") else params
    params.require("solver", ("euler",))
    params.require("t_scheduler", ("cosine",))
    estimator = solver.section("estimator")
    _require_class(estimator, "ConditionalDecoder", "CausalConditionalDecoder")
    estimator.require("causal", (True,))
    estimator.require("act_fn", ("gelu",))
    estimator.require("num_decoding_left_chunks", (-1,))
    channels = estimator.integers("channels")
    if len(channels) != 1:
        raise CheckpointError(
            f"{estimator.where}: `channels` is {list(channels)}, which is not supported", "one resolution is"
        )
    mel, width = flow.integer("output_size"), channels[0]
    in_channels = estimator.integer("in_channels")
    if in_channels != INPUTS * mel or estimator.integer("out_channels", mel) != mel:
        raise CheckpointError(
            f"{estimator.where}: {in_channels} channels in and {estimator.integer('out_channels', mel)} out",
            f"a mel of {mel} bins asks for {INPUTS * mel} and {mel}",
        )
    root = "decoder.estimator"
    return EstimatorConfig(
        mel=mel,
        in_channels=in_channels,
        width=width,
        heads=estimator.integer("num_heads"),
        head_dim=estimator.integer("attention_head_dim"),
        ffn=agreed_dimension(
            tensors,
            *(
                (f"{root}.{block}.0.1.0.ff.net.0.proj.weight", 0)
                for block in ("down_blocks", "mid_blocks", "up_blocks")
            ),
        ),
        time_hidden=agreed_dimension(
            tensors,
            (f"{root}.time_mlp.linear_1.weight", 0),
            (f"{root}.time_mlp.linear_1.bias", 0),
            (f"{root}.time_mlp.linear_2.weight", 0),
        ),
        transformers=estimator.integer("n_blocks", most=MOST_LAYERS),
        mid_blocks=estimator.integer("num_mid_blocks", least=0, most=MOST_LAYERS),
        speaker=flow.integer("spk_embed_dim"),
        guidance=params.number("inference_cfg_rate"),
    )


def _vocoder(hift: Fields, tensors: Tensors) -> VocoderConfig:
    _require_class(hift, "HiFTGenerator")
    f0, stft = hift.section("f0_predictor"), hift.section("istft_params")
    _require_class(f0, "ConvRNNF0Predictor")
    f0.require("num_class", (1,))
    mel = hift.integer("in_channels")
    if f0.integer("in_channels", mel) != mel:
        raise f0.wrong("in_channels", f"the vocoder's {mel}")
    c = VocoderConfig(
        mel=mel,
        sample_rate=hift.integer("sampling_rate"),
        base=hift.integer("base_channels"),
        harmonics=hift.integer("nb_harmonics", least=0),
        sine_amplitude=hift.number("nsf_alpha"),
        noise_sigma=hift.number("nsf_sigma"),
        voiced_threshold=hift.number("nsf_voiced_threshold"),
        upsample_rates=hift.integers("upsample_rates"),
        upsample_kernels=hift.integers("upsample_kernel_sizes"),
        fft=stft.integer("n_fft"),
        fft_hop=stft.integer("hop_len"),
        resblock_kernels=hift.integers("resblock_kernel_sizes"),
        resblock_dilations=hift.integer_lists("resblock_dilation_sizes"),
        source_kernels=hift.integers("source_resblock_kernel_sizes"),
        source_dilations=hift.integer_lists("source_resblock_dilation_sizes"),
        leaky_slope=hift.number("lrelu_slope"),
        audio_limit=hift.number("audio_limit"),
        f0_width=f0.integer("cond_channels"),
        f0_layers=max((_count(CONDNET, tensors) + 1) // 2, 1),  # an ELU stands between two convolutions
    )
    stages = len(c.upsample_rates)
    if {len(c.upsample_kernels), len(c.source_kernels), len(c.source_dilations)} != {stages}:
        raise CheckpointError(f"{hift.where}: {stages} up-sampling rates, but lists of other lengths for their kernels")
    if len(c.resblock_kernels) != len(c.resblock_dilations):
        raise hift.wrong("resblock_dilation_sizes", f"{len(c.resblock_kernels)} lists, one for each kernel size")
    if any(
        kernel < rate or (kernel - rate) % 2 for rate, kernel in zip(c.upsample_rates, c.upsample_kernels, strict=True)
    ):
        raise hift.wrong("upsample_kernel_sizes", "each its rate or an even number above it")
    if c.base % 2**stages:
        raise hift.wrong("base_channels", f"a multiple of {2**stages}")
    if c.fft % 2 or c.fft_hop > c.fft:
        raise stft.wrong("n_fft", "even, and not below hop_len")
    return c
