"""What a checkpoint must not say or lack: each refusal is one CheckpointError that names the place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omni2_engine.errors import CheckpointError
from omni2_export.checkpoint import Checkpoint, open_checkpoint

from .conftest import Paths, Synthetic


def opened(paths: Paths) -> Checkpoint:
    return open_checkpoint(paths.model, decoder=paths.decoder)


@pytest.mark.parametrize(
    "value",
    ["(0,9)", "(4)", "__import__('os').abort()", "(2+1,10)", [4, 9, 1], [True, 2], {"R": 1}, 7, None, "", [-1, 2]],
)
def test_bad_stream_params(synthetic: Synthetic, tmp_path: Path, value: Any) -> None:
    synthetic.config["stream_params"] = value
    with pytest.raises(CheckpointError, match="stream_params"):
        opened(synthetic.write(tmp_path))


REFUSED_CONFIG: list[tuple[str, Any]] = [
    ("hidden_act", "gelu"),
    ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
    ("rope_parameters", {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6}),
    ("use_sliding_window", True),
    ("layer_types", ["full_attention", "sliding_attention"]),
    ("quantization_config", {"bits": 4}),
    ("speech_projector_type", "mlp"),
    ("speech_encoder_type", "hubert"),
    ("speech_encoder_ds_rate", 0),
    ("speech_encoder_hidden_size", 1280),
    ("num_attention_heads", 3),
    ("num_key_value_heads", "two"),
    ("rms_norm_eps", 0),
    ("rope_theta", None),
    ("num_hidden_layers", 10**9),
    ("speech_generator", None),
]


@pytest.mark.parametrize(("key", "value"), REFUSED_CONFIG)
def test_unsupported_configuration(synthetic: Synthetic, tmp_path: Path, key: str, value: Any) -> None:
    synthetic.config[key] = value
    with pytest.raises(CheckpointError, match=key):
        opened(synthetic.write(tmp_path))


@pytest.mark.parametrize(
    ("key", "value"), [("use_sliding_window", True), ("hidden_act", "relu"), ("model_type", "llama")]
)
def test_unsupported_speech_language_model(synthetic: Synthetic, tmp_path: Path, key: str, value: Any) -> None:
    synthetic.config["speech_generator"][key] = value
    with pytest.raises(CheckpointError, match=f"speech_generator.*{key}"):
        opened(synthetic.write(tmp_path))


REFUSED_YAML = [
    ("t_scheduler: 'cosine'", "t_scheduler: 'linear'", "t_scheduler"),
    ("solver: 'euler'", "solver: 'midpoint'", "solver"),
    ("channels: [8]", "channels: [8, 8]", "channels"),
    ("act_fn: 'gelu'", "act_fn: 'snakebeta'", "act_fn"),
    ("causal: True", "causal: False", "causal"),
    ("normalize_before: True", "normalize_before: False", "normalize_before"),
    ("macaron_style: False", "macaron_style: True", "macaron_style"),
    ("use_cnn_module: False", "use_cnn_module: True", "use_cnn_module"),
    ("'rel_selfattn'", "'selfattn'", "selfattention_layer_type"),
    ("'rel_pos_espnet'", "'rel_pos'", "pos_enc_layer_type"),
    ("input_layer: 'linear'", "input_layer: 'conv2d'", "input_layer"),
    ("decoder.ConditionalDecoder", "decoder.DiT", "DiT"),
    ("generator.HiFTGenerator", "generator.CausalHiFTGenerator", "CausalHiFTGenerator"),
    ("flow_matching.CausalConditionalCFM", "flow_matching.Other", "Other"),
    ("inference_cfg_rate: 0.5", "inference_cfg_rate: much", "inference_cfg_rate"),
    ("upsample_rates: [5, 2]", "upsample_rates: [5]", "up-sampling rates"),
    ("upsample_kernel_sizes: [9, 4]", "upsample_kernel_sizes: [8, 4]", "upsample_kernel_sizes"),
    ("        num_blocks: 2\n", "", "num_blocks"),
    ("<sample_rate>", "<no_such_rate>", "no_such_rate"),
    ("sample_rate: 1200", "sample_rate: !ref <sample_rate>", "itself"),
    ("    in_channels: 10\n    base", "    in_channels: 11\n    base", "in_channels|mels"),
]


@pytest.mark.parametrize(("old", "new", "named"), REFUSED_YAML)
def test_unsupported_yaml(synthetic: Synthetic, tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in synthetic.yaml
    synthetic.yaml = synthetic.yaml.replace(old, new, 1)
    with pytest.raises(CheckpointError, match=named):
        opened(synthetic.write(tmp_path))


def test_one_error_names_all_keys(synthetic: Synthetic, tmp_path: Path) -> None:
    del synthetic.model["model.layers.1.self_attn.k_proj.bias"]
    del synthetic.model["model.speech_projector.linear1.weight"]
    del synthetic.flow["decoder.estimator.time_mlp.linear_1.weight"]
    synthetic.model["model.layers.2.mlp.gate_proj.weight"] = torch.zeros(22, 16)
    synthetic.model["stray"] = torch.zeros(1)
    synthetic.hift["generator.conv_post.bias"] = torch.zeros(11)
    synthetic.model["model.norm.weight"] = torch.zeros(17)
    with pytest.raises(CheckpointError) as caught:
        opened(synthetic.write(tmp_path))
    message = caught.value.problem
    assert "3 missing" in message and "2 unknown" in message and "2 of another shape" in message
    for name in (
        "llm:layers.1.self_attn.k_proj.bias",
        "encoder:projector.linear1.weight",
        "flow:decoder.estimator.time_mlp.linear_1.weight",
        "llm:layers.2.mlp.gate_proj.weight",
        "stray",
        "vocoder:conv_post.bias is (11,), not (10,)",
        "llm:norm.weight is (17,), not (16,)",
    ):
        assert name in message


def test_long_lists_are_cut_and_counted(synthetic: Synthetic, tmp_path: Path) -> None:
    synthetic.model |= {f"model.stray.{i}": torch.zeros(1) for i in range(30)}
    with pytest.raises(CheckpointError, match=r"30 unknown: .* and 10 more"):
        opened(synthetic.write(tmp_path))


def delete(*names: str) -> Callable[[Paths], None]:
    def spoil(paths: Paths) -> None:
        for name in names:
            path = paths.model.parent / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


@pytest.mark.parametrize(
    "name",
    [
        "omni2/config.json",
        "omni2/model.safetensors",
        "omni2/vocab.json",
        "omni2/tts_tokenizer",
        "omni2/tts_tokenizer/merges.txt",
        "decoder/cosyvoice.yaml",
        "decoder/flow.pt",
        "decoder/hift.pt",
        "decoder",
    ],
)
def test_missing_files_are_named(synthetic: Synthetic, tmp_path: Path, name: str) -> None:
    paths = synthetic.write(tmp_path)
    delete(name)(paths)
    with pytest.raises(CheckpointError, match=Path(name).name.split(".")[0]):
        opened(paths)


def test_units_may_be_anything_but_sep_must_be_there(synthetic: Synthetic, tmp_path: Path) -> None:
    paths = synthetic.write(tmp_path)
    config = paths.model / "tts_tokenizer" / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<sep>", "<sip>"))
    with pytest.raises(CheckpointError, match="<sep>"):
        opened(paths)
