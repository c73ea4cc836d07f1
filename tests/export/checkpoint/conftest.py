"""A small checkpoint of the released formats, made in memory: a test can spoil any part before it is written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from omni2_engine.text.tokenizer import BYTES

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WIDTH, MEL_BINS, CONTEXT, PROJECTOR = 24, 20, 30, 28  # speech encoder
HIDDEN, SPEECH_HIDDEN = 16, 12
MEL, UNITS, FLOW, CHANNELS, SPEAKER = 10, 50, 16, 8, 6
FUSION = 36

YAML = f"""
__set_seed1: !apply:random.seed [1986]
sample_rate: 1200
spk_embed_dim: {SPEAKER}
chunk_size: 15
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
    input_size: {FLOW}
    output_size: {MEL}
    spk_embed_dim: !ref <spk_embed_dim>
    vocab_size: {UNITS}
    input_frame_rate: 15
    token_mel_ratio: 2
    pre_lookahead_len: 2
    encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder
        output_size: {FLOW}
        attention_heads: 2
        linear_units: 20
        num_blocks: 2
        normalize_before: True
        input_layer: 'linear'
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        input_size: {FLOW}
        use_cnn_module: False
        macaron_style: False
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        in_channels: 30
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                inference_cfg_rate: 0.5
        estimator: !new:cosyvoice.flow.decoder.ConditionalDecoder
            in_channels: {4 * MEL}
            out_channels: {MEL}
            causal: True
            channels: [{CHANNELS}]
            attention_head_dim: 6
            n_blocks: 1
            num_mid_blocks: 2
            num_heads: 2
            act_fn: 'gelu'
hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    in_channels: {MEL}
    base_channels: 8
    nb_harmonics: 3
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 3e-3
    nsf_voiced_threshold: 10
    upsample_rates: [5, 2]
    upsample_kernel_sizes: [9, 4]
    istft_params:
        n_fft: 8
        hop_len: 4
    resblock_kernel_sizes: [3, 5]
    resblock_dilation_sizes: [[1, 3], [1]]
    source_resblock_kernel_sizes: [5, 3]
    source_resblock_dilation_sizes: [[1, 2], [1]]
    lrelu_slope: 0.1
    audio_limit: 0.99
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
        num_class: 1
        in_channels: {MEL}
        cond_channels: 9
get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    skip_special_tokens: True
"""


class _Maker:
    """Draws tensors by name."""

    def __init__(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self.state: dict[str, torch.Tensor] = {}

    def add(self, name: str, *shape: int) -> None:
        self.state[name] = torch.randn(shape, generator=self._random)

    def affine(self, name: str, *shape: int) -> None:
        self.add(f"{name}.weight", *shape)
        self.add(f"{name}.bias", shape[0])

    def normed(self, name: str, *shape: int) -> None:
        """A weight-normed convolution in the old spelling; a transposed one's bias has the second axis' size."""
        self.add(f"{name}.weight_g", shape[0], 1, 1)
        self.add(f"{name}.weight_v", *shape)
        self.add(f"{name}.bias", shape[1] if ".ups." in name else shape[0])


def _whisper(seed: int) -> dict[str, torch.Tensor]:
    m = _Maker(seed)
    m.add("positional_embedding", CONTEXT, WIDTH)
    m.affine("conv1", WIDTH, MEL_BINS, 3)
    m.affine("conv2", WIDTH, WIDTH, 3)
    for i in range(2):
        for part in ("attn.query", "attn.value", "attn.out"):
            m.affine(f"blocks.{i}.{part}", WIDTH, WIDTH)
        m.add(f"blocks.{i}.attn.key.weight", WIDTH, WIDTH)
        m.affine(f"blocks.{i}.mlp.0", 40, WIDTH)
        m.affine(f"blocks.{i}.mlp.2", WIDTH, 40)
        m.affine(f"blocks.{i}.attn_ln", WIDTH)
        m.affine(f"blocks.{i}.mlp_ln", WIDTH)
    m.affine("ln_post", WIDTH)
    return m.state


def _qwen(m: _Maker, root: str, vocab: int, hidden: int, heads: int, kv: int, head_dim: int, ffn: int) -> None:
    m.add(f"{root}embed_tokens.weight", vocab, hidden)
    for i in range(2):
        layer = f"{root}layers.{i}"
        m.affine(f"{layer}.self_attn.q_proj", heads * head_dim, hidden)
        m.affine(f"{layer}.self_attn.k_proj", kv * head_dim, hidden)
        m.affine(f"{layer}.self_attn.v_proj", kv * head_dim, hidden)
        m.add(f"{layer}.self_attn.o_proj.weight", hidden, heads * head_dim)
        m.add(f"{layer}.mlp.gate_proj.weight", ffn, hidden)
        m.add(f"{layer}.mlp.up_proj.weight", ffn, hidden)
        m.add(f"{layer}.mlp.down_proj.weight", hidden, ffn)
        m.add(f"{layer}.input_layernorm.weight", hidden)
        m.add(f"{layer}.post_attention_layernorm.weight", hidden)
    m.add(f"{root}norm.weight", hidden)


def _model() -> dict[str, torch.Tensor]:
    m = _Maker(1)
    _qwen(m, "model.", 300, HIDDEN, 2, 1, 8, 22)
    m.affine("model.speech_projector.linear1", PROJECTOR, 3 * WIDTH)
    m.affine("model.speech_projector.linear2", HIDDEN, PROJECTOR)
    _qwen(m, "speech_generator.model.model.", 360, SPEECH_HIDDEN, 3, 3, 4, 18)
    m.add("speech_generator.model.lm_head.weight", 360, SPEECH_HIDDEN)
    m.affine("speech_generator.input_proj.0", FUSION, HIDDEN)
    m.affine("speech_generator.input_proj.2", SPEECH_HIDDEN, FUSION)
    m.affine("speech_generator.gate.0", SPEECH_HIDDEN, 2 * SPEECH_HIDDEN)
    return m.state | {f"model.speech_encoder.{name}": tensor for name, tensor in _whisper(2).items()}


def _flow() -> dict[str, torch.Tensor]:
    m = _Maker(3)
    m.add("input_embedding.weight", UNITS, FLOW)
    m.affine("spk_embed_affine_layer", MEL, SPEAKER)
    for embed in ("embed", "up_embed"):
        m.affine(f"encoder.{embed}.out.0", FLOW, FLOW)
        m.affine(f"encoder.{embed}.out.1", FLOW)
    m.affine("encoder.pre_lookahead_layer.conv1", FLOW, FLOW, 3)
    m.affine("encoder.pre_lookahead_layer.conv2", FLOW, FLOW, 3)
    m.affine("encoder.up_layer.conv", FLOW, FLOW, 5)
    for layer in ("encoders.0", "encoders.1", "up_encoders.0"):
        m.add(f"encoder.{layer}.self_attn.pos_bias_u", 2, FLOW // 2)
        m.add(f"encoder.{layer}.self_attn.pos_bias_v", 2, FLOW // 2)
        for part in ("q", "k", "v", "out"):
            m.affine(f"encoder.{layer}.self_attn.linear_{part}", FLOW, FLOW)
        m.add(f"encoder.{layer}.self_attn.linear_pos.weight", FLOW, FLOW)
        ffn = 26 if layer.startswith("up") else 20
        m.affine(f"encoder.{layer}.feed_forward.w_1", ffn, FLOW)
        m.affine(f"encoder.{layer}.feed_forward.w_2", FLOW, ffn)
        m.affine(f"encoder.{layer}.norm_ff", FLOW)
        m.affine(f"encoder.{layer}.norm_mha", FLOW)
    m.affine("encoder.after_norm", FLOW)
    m.affine("encoder_proj", MEL, FLOW)
    root, c, time = "decoder.estimator", CHANNELS, 14
    m.affine(f"{root}.time_mlp.linear_1", time, 4 * MEL)
    m.affine(f"{root}.time_mlp.linear_2", time, time)
    for stage, into in (("down_blocks.0", 4 * MEL), ("mid_blocks.0", c), ("mid_blocks.1", c), ("up_blocks.0", 2 * c)):
        m.affine(f"{root}.{stage}.0.mlp.1", c, time)
        m.affine(f"{root}.{stage}.0.block1.block.0", c, into, 3)
        m.affine(f"{root}.{stage}.0.block1.block.2", c)
        m.affine(f"{root}.{stage}.0.block2.block.0", c, c, 3)
        m.affine(f"{root}.{stage}.0.block2.block.2", c)
        m.affine(f"{root}.{stage}.0.res_conv", c, into, 1)
        m.affine(f"{root}.{stage}.1.0.norm1", c)
        m.affine(f"{root}.{stage}.1.0.norm3", c)
        for part in "qkv":
            m.add(f"{root}.{stage}.1.0.attn1.to_{part}.weight", 12, c)
        m.affine(f"{root}.{stage}.1.0.attn1.to_out.0", c, 12)
        m.affine(f"{root}.{stage}.1.0.ff.net.0.proj", 30, c)
        m.affine(f"{root}.{stage}.1.0.ff.net.2", c, 30)
    for conv in ("down_blocks.0.2", "up_blocks.0.2", "final_block.block.0"):
        m.affine(f"{root}.{conv}", c, c, 3)
    m.affine(f"{root}.final_block.block.2", c)
    m.affine(f"{root}.final_proj", MEL, c, 1)
    return m.state


def _resblock(m: _Maker, name: str, width: int, kernel: int, dilations: int) -> None:
    for i in range(dilations):
        for part in (1, 2):
            m.normed(f"{name}.convs{part}.{i}", width, width, kernel)
            m.add(f"{name}.activations{part}.{i}.alpha", width)


def _hift() -> dict[str, torch.Tensor]:
    m = _Maker(4)
    g = "generator."
    m.affine(f"{g}m_source.l_linear", 1, 4)
    m.normed(f"{g}conv_pre", 8, MEL, 7)
    m.normed(f"{g}ups.0", 8, 4, 9)
    m.normed(f"{g}ups.1", 4, 2, 4)
    m.affine(f"{g}source_downs.0", 4, 10, 4)  # the later rate, 2, doubled
    m.affine(f"{g}source_downs.1", 2, 10, 1)
    _resblock(m, f"{g}source_resblocks.0", 4, 5, 2)
    _resblock(m, f"{g}source_resblocks.1", 2, 3, 1)
    for i, (width, kernel, dilations) in enumerate(((4, 3, 2), (4, 5, 1), (2, 3, 2), (2, 5, 1))):
        _resblock(m, f"{g}resblocks.{i}", width, kernel, dilations)
    m.normed(f"{g}conv_post", 10, 2, 7)
    for i in range(3):
        m.normed(f"{g}f0_predictor.condnet.{2 * i}", 9, 9 if i else MEL, 3)
    m.affine(f"{g}f0_predictor.classifier", 1, 9)
    return m.state


def _qwen_config(hidden: int, heads: int, kv: int, ffn: int, vocab: int) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "max_position_embeddings": 2048,
        "num_attention_heads": heads,
        "num_hidden_layers": 2,
        "num_key_value_heads": kv,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "vocab_size": vocab,
    }


def write_tokenizer_files(directory: Path, added: list[str], special: list[str]) -> None:
    """A Qwen tokenizer without `tokenizer.json`: the byte alphabet, a few merges, and added tokens behind them."""
    directory.mkdir(parents=True, exist_ok=True)
    vocab = {character: byte for character, byte in BYTES.items()}
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2"]
    for merge in merges:
        vocab[merge.replace(" ", "")] = len(vocab)
    (directory / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    decoder = {
        str(len(vocab) + i): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token in special,
        }
        for i, token in enumerate(added)
    }
    config = {
        "added_tokens_decoder": decoder,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


@dataclass
class Paths:
    """Where a checkpoint was written."""

    model: Path
    decoder: Path
    whisper: Path


@dataclass
class Synthetic:
    """Everything a checkpoint consists of, to be changed before `write`."""

    config: dict[str, Any]
    generation: dict[str, Any] | None
    model: dict[str, torch.Tensor]
    whisper: dict[str, Any] | None
    flow: dict[str, torch.Tensor]
    hift: dict[str, torch.Tensor]
    yaml: str = YAML
    units: list[str] = field(default_factory=lambda: [f"<{i}>" for i in range(UNITS)])

    def take_encoder_out(self) -> None:
        """Leave no encoder weights in the model directory."""
        self.model = {name: t for name, t in self.model.items() if not name.startswith("model.speech_encoder.")}

    def write(self, root: Path) -> Paths:
        """Write all files: `<root>/omni2`, `<root>/decoder`, `<root>/whisper/large.pt`."""
        model, decoder, whisper = root / "omni2", root / "decoder", root / "whisper" / "large.pt"
        write_tokenizer_files(model, [*CONTROL, "<speech>"], CONTROL)
        write_tokenizer_files(model / "tts_tokenizer", [*CONTROL, "<speech>", "<sep>", *self.units], CONTROL)
        (model / "config.json").write_text(json.dumps(self.config))
        if self.generation is not None:
            (model / "generation_config.json").write_text(json.dumps(self.generation))
        save_file({name: tensor.contiguous() for name, tensor in self.model.items()}, model / "model.safetensors")
        decoder.mkdir()
        (decoder / "cosyvoice.yaml").write_text(self.yaml)
        torch.save(self.flow, decoder / "flow.pt")
        torch.save(self.hift, decoder / "hift.pt")
        whisper.parent.mkdir()
        if self.whisper is not None:
            torch.save(self.whisper, whisper)
        return Paths(model, decoder, whisper)


@pytest.fixture
def synthetic() -> Synthetic:
    """A fresh checkpoint: outer head tied, nested head untied, bfloat16 model, float16 Whisper file."""
    config = _qwen_config(HIDDEN, 2, 1, 22, 300) | {
        "model_type": "omni2_speech2s_qwen2",
        "eos_token_id": 264,
        "speech_encoder": "models/whisper/large.pt",
        "speech_encoder_type": "my-Whisper",
        "speech_projector_type": "linear",
        "speech_encoder_ds_rate": 3,
        "speech_encoder_hidden_size": WIDTH,
        "speech_generator": _qwen_config(SPEECH_HIDDEN, 3, 3, 18, 1) | {"model_type": "qwen2"},
        "stream_params": "(2,7)",
        "tie_word_embeddings": True,
    }
    dims = {"n_mels": MEL_BINS, "n_audio_ctx": CONTEXT, "n_audio_state": WIDTH, "n_audio_head": 4, "n_audio_layer": 2}
    state = {f"encoder.{name}": tensor.half() for name, tensor in _whisper(5).items()}
    state["decoder.ln.weight"] = torch.ones(3)
    return Synthetic(
        config=config,
        generation={"eos_token_id": [264, 262], "repetition_penalty": 1.25},
        model={name: tensor.bfloat16() for name, tensor in _model().items()},
        whisper={"dims": dims, "model_state_dict": state},
        flow=_flow(),
        hift=_hift(),
    )
