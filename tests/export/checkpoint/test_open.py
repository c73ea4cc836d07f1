"""Opening whole checkpoints: every trap of spec §1 on small made-up ones, the given one, and the released sizes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from omni2_engine.errors import CheckpointError
from omni2_engine.model.config import Capabilities
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.checkpoint.names import expected_shapes
from omni2_export.checkpoint.whisper import positional_table

from .conftest import CONTEXT, WIDTH, Paths, Synthetic


def opened(paths: Paths, **options: Any) -> Checkpoint:
    return open_checkpoint(paths.model, decoder=paths.decoder, **options)


def read(checkpoint: Checkpoint, module: str, name: str) -> np.ndarray:
    return checkpoint.modules[module].read(name)


def same(array: np.ndarray, tensor: torch.Tensor) -> bool:
    return array.dtype == np.float32 and np.array_equal(array, tensor.float().numpy())


def test_dimensions_come_from_configuration_and_tensors(synthetic: Synthetic, tmp_path: Path) -> None:
    config = opened(synthetic.write(tmp_path)).config
    assert (config.read, config.write, config.name) == (2, 7, "omni2")
    assert config.encoder.model_dump() == {
        "mel_bins": 20, "context": 30, "width": 24, "heads": 4, "layers": 2, "ffn": 40, "stack": 3,
        "projector_hidden": 28, "output": 16,
    }  # fmt: skip
    assert (config.llm.vocab, config.llm.head_dim, config.llm.kv_heads) == (300, 8, 1)
    assert config.speech_lm.vocab == 360  # the file's, not the configuration's placeholder
    assert (config.fusion.llm_hidden, config.fusion.hidden, config.fusion.speech_hidden) == (16, 36, 12)
    assert (config.flow_encoder.blocks, config.flow_encoder.up_blocks, config.flow_encoder.up_ffn) == (2, 1, 26)
    assert (config.estimator.time_hidden, config.estimator.ffn, config.estimator.guidance) == (14, 30, 0.5)
    assert (config.vocoder.hop, config.vocoder.f0_layers, config.vocoder.noise_sigma) == (40, 3, 0.003)
    assert config.tokens.model_dump() == {
        "eos": (264, 262), "repetition_penalty": 1.25, "speech": 265, "sep": 266, "speech_eos": 264,
        "context_limit": None,
    }  # fmt: skip


def test_every_tensor_reads_whole_and_by_rows(synthetic: Synthetic, tmp_path: Path) -> None:
    checkpoint = opened(synthetic.write(tmp_path))
    for module, shapes in expected_shapes(checkpoint.config).items():
        tensors = checkpoint.modules[module]
        assert sorted(tensors.names()) == sorted(shapes)
        for name, shape in shapes.items():
            whole = tensors.read(name)
            assert whole.dtype == np.float32 and whole.shape == shape == tensors.shape(name)
            stop = (shape[0] + 1) // 2
            assert np.allclose(tensors.rows(name, 0, stop), whole[:stop], rtol=1e-6, atol=0)
            assert np.allclose(tensors.rows(name, stop, shape[0]), whole[stop:], rtol=1e-6, atol=0)


def test_values_are_those_stored(synthetic: Synthetic, tmp_path: Path) -> None:
    checkpoint = opened(synthetic.write(tmp_path))
    assert same(
        read(checkpoint, "llm", "layers.1.mlp.up_proj.weight"), synthetic.model["model.layers.1.mlp.up_proj.weight"]
    )
    assert same(read(checkpoint, "fusion", "gate.0.bias"), synthetic.model["speech_generator.gate.0.bias"])
    assert same(
        read(checkpoint, "flow", "encoder.up_layer.conv.weight"), synthetic.flow["encoder.up_layer.conv.weight"]
    )
    assert checkpoint.modules["llm"].dtype("norm.weight").name == "bfloat16"


def test_directory_wins_over_the_whisper_file(synthetic: Synthetic, tmp_path: Path) -> None:
    del synthetic.model["model.speech_encoder.ln_post.bias"]
    checkpoint = opened(synthetic.write(tmp_path))
    assert same(read(checkpoint, "encoder", "conv1.weight"), synthetic.model["model.speech_encoder.conv1.weight"])
    assert synthetic.whisper is not None
    assert same(
        read(checkpoint, "encoder", "ln_post.bias"), synthetic.whisper["model_state_dict"]["encoder.ln_post.bias"]
    )
    assert checkpoint.sources["encoder"][-1].name == "large.pt"


@pytest.mark.parametrize("place", ["given", "tail of the path", "whole path"])
def test_whisper_file_is_found(synthetic: Synthetic, tmp_path: Path, place: str) -> None:
    synthetic.take_encoder_out()
    paths = synthetic.write(tmp_path)
    options: dict[str, Any] = {}
    if place == "given":
        options["speech_encoder"] = paths.whisper.rename(tmp_path / "other-name.pt")
    elif place == "whole path":
        (paths.model / "models").mkdir()
        paths.whisper.parent.rename(paths.model / "models" / "whisper")
    checkpoint = opened(paths, **options)
    assert synthetic.whisper is not None
    assert same(read(checkpoint, "encoder", "conv2.bias"), synthetic.whisper["model_state_dict"]["encoder.conv2.bias"])


@pytest.mark.parametrize("stated", ["/", "..", "", "a\0b", "x" * 5000, "/absent/large.pt", None])
def test_whisper_paths_that_lead_nowhere(synthetic: Synthetic, tmp_path: Path, stated: str | None) -> None:
    synthetic.config |= {"speech_encoder": stated, "speech_encoder_dims": {"n_audio_head": 2}}
    synthetic.whisper = None
    assert opened(synthetic.write(tmp_path)).config.encoder.heads == 2


def test_heads_without_a_whisper_file(synthetic: Synthetic, tmp_path: Path) -> None:
    synthetic.whisper = None
    synthetic.config["speech_encoder_dims"] = {"n_audio_head": 6}
    assert opened(synthetic.write(tmp_path)).config.encoder.heads == 6


def test_heads_are_never_guessed_wrongly(synthetic: Synthetic, tmp_path: Path) -> None:
    synthetic.whisper = None
    with pytest.raises(CheckpointError, match="how many heads"):
        opened(synthetic.write(tmp_path))


def test_whisper_file_of_another_model_is_refused(synthetic: Synthetic, tmp_path: Path) -> None:
    assert synthetic.whisper is not None
    synthetic.whisper["dims"]["n_audio_state"] = 2 * WIDTH
    with pytest.raises(CheckpointError, match="n_audio_state"):
        opened(synthetic.write(tmp_path))


def test_no_encoder_at_all(synthetic: Synthetic, tmp_path: Path) -> None:
    synthetic.take_encoder_out()
    synthetic.whisper = None
    with pytest.raises(CheckpointError, match="--speech-encoder"):
        opened(synthetic.write(tmp_path))


def test_missing_positions_are_computed(synthetic: Synthetic, tmp_path: Path) -> None:
    del synthetic.model["model.speech_encoder.positional_embedding"]
    assert synthetic.whisper is not None
    del synthetic.whisper["model_state_dict"]["encoder.positional_embedding"]
    checkpoint = opened(synthetic.write(tmp_path))
    table = read(checkpoint, "encoder", "positional_embedding")
    half = WIDTH // 2
    for row, column in ((0, 0), (7, 3), (29, 11), (29, 12), (13, 23)):
        angle = row * math.exp(-math.log(10000) / (half - 1) * (column % half))
        assert table[row, column] == pytest.approx((math.sin if column < half else math.cos)(angle), abs=1e-5)
    assert table.shape == (CONTEXT, WIDTH)
    assert any("positional_embedding" in warning for warning in checkpoint.warnings)


@pytest.mark.parametrize("width", [64, 384, 1280])
def test_positional_table_equals_whispers_own(width: int) -> None:
    """But for what a processor's exp in float32 may be off: one unit in a frequency's last place."""
    step = math.log(10000) / (width // 2 - 1)  # the same formula in torch's float32
    frequencies = torch.exp(-step * torch.arange(width // 2))[None, :]
    angles = torch.arange(1500)[:, None] * frequencies
    theirs = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1).numpy()
    off = np.arange(1500)[:, None] * np.spacing(frequencies.numpy()) + np.spacing(angles.numpy())
    assert (np.abs(positional_table(1500, width) - theirs) <= np.tile(off, 2) + 1e-6).all()


def test_tied_head_is_the_embedding_even_if_a_head_is_there(synthetic: Synthetic, tmp_path: Path) -> None:
    synthetic.model["lm_head.weight"] = torch.zeros(300, 16)
    checkpoint = opened(synthetic.write(tmp_path))
    assert same(read(checkpoint, "llm", "lm_head.weight"), synthetic.model["model.embed_tokens.weight"])


def test_untied_heads_are_used(synthetic: Synthetic, tmp_path: Path) -> None:
    synthetic.config["tie_word_embeddings"] = False
    synthetic.config["speech_generator"]["tie_word_embeddings"] = True  # without effect while the key is there
    head = synthetic.model["lm_head.weight"] = torch.randn(300, 16)
    checkpoint = opened(synthetic.write(tmp_path))
    assert same(read(checkpoint, "llm", "lm_head.weight"), head)
    nested = synthetic.model["speech_generator.model.lm_head.weight"]
    assert same(read(checkpoint, "speech_lm", "lm_head.weight"), nested)
    assert checkpoint.warnings == []


def test_missing_untied_head_is_missing(synthetic: Synthetic, tmp_path: Path) -> None:
    synthetic.config["tie_word_embeddings"] = False
    with pytest.raises(CheckpointError, match=r"1 missing: llm:lm_head\.weight"):
        opened(synthetic.write(tmp_path))


def test_missing_nested_head_is_tied_with_a_warning(synthetic: Synthetic, tmp_path: Path) -> None:
    del synthetic.model["speech_generator.model.lm_head.weight"]
    checkpoint = opened(synthetic.write(tmp_path))
    nested = synthetic.model["speech_generator.model.model.embed_tokens.weight"]
    assert same(read(checkpoint, "speech_lm", "lm_head.weight"), nested)
    assert len(checkpoint.warnings) == 1 and "lm_head" in checkpoint.warnings[0]


def shard(paths: Paths, *, index: bool) -> list[Path]:
    """Split the model's one file into three."""
    state = load_file(paths.model / "model.safetensors")
    (paths.model / "model.safetensors").unlink()
    names = sorted(state)
    files = [paths.model / f"model-{i + 1:05d}-of-00003.safetensors" for i in range(3)]
    parts = [{name: state[name] for name in names[i::3]} for i in range(3)]
    for file, part in zip(files, parts, strict=True):
        save_file(part, file)
    if index:
        weight_map = {name: file.name for file, part in zip(files, parts, strict=True) for name in part}
        (paths.model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return files


@pytest.mark.parametrize("index", [True, False])
def test_shards(synthetic: Synthetic, tmp_path: Path, index: bool) -> None:
    paths = synthetic.write(tmp_path)
    whole = opened(paths)
    wanted = read(whole, "llm", "layers.0.mlp.down_proj.weight")
    files = shard(paths, index=index)
    checkpoint = opened(paths)
    assert np.array_equal(read(checkpoint, "llm", "layers.0.mlp.down_proj.weight"), wanted)
    assert checkpoint.sources["llm"] == files
    files[1].unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00003"):
        opened(paths)


def test_index_that_promises_too_much(synthetic: Synthetic, tmp_path: Path) -> None:
    paths = synthetic.write(tmp_path)
    shard(paths, index=True)
    path = paths.model / "model.safetensors.index.json"
    weight_map = json.loads(path.read_text())["weight_map"]
    path.write_text(json.dumps({"weight_map": weight_map | {"model.ghost": "model-00001-of-00003.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"model\.ghost"):
        opened(paths)
    path.write_text(json.dumps({"weight_map": {"model.norm.weight": "../../etc/passwd"}}))
    with pytest.raises(CheckpointError, match="weight_map"):
        opened(paths)


def test_storage_types_may_be_mixed(synthetic: Synthetic, tmp_path: Path) -> None:
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    synthetic.model = {
        name: tensor.to(kinds[i % 4]) for i, (name, tensor) in enumerate(sorted(synthetic.model.items()))
    }
    checkpoint = opened(synthetic.write(tmp_path))
    for name, tensor in synthetic.model.items():
        if name.startswith("model.layers."):
            assert same(read(checkpoint, "llm", name.removeprefix("model.")), tensor)


def weight_normed(state: dict[str, torch.Tensor], stem: str) -> torch.Tensor:
    g, v = state[f"{stem}.weight_g"], state[f"{stem}.weight_v"]
    return torch._weight_norm(v, g, 0)


@pytest.mark.parametrize("spelling", ["old", "new", "plain"])
def test_weight_norm_spellings(synthetic: Synthetic, tmp_path: Path, spelling: str) -> None:
    stems = [name.removesuffix(".weight_g") for name in synthetic.hift if name.endswith(".weight_g")]
    wanted = {stem.removeprefix("generator."): weight_normed(synthetic.hift, stem) for stem in stems}
    for stem in stems:
        if spelling == "new":
            synthetic.hift[f"{stem}.parametrizations.weight.original0"] = synthetic.hift.pop(f"{stem}.weight_g")
            synthetic.hift[f"{stem}.parametrizations.weight.original1"] = synthetic.hift.pop(f"{stem}.weight_v")
        elif spelling == "plain":
            synthetic.hift[f"{stem}.weight"] = weight_normed(synthetic.hift, stem)
            del synthetic.hift[f"{stem}.weight_g"], synthetic.hift[f"{stem}.weight_v"]
    if spelling == "new":  # the substring may stand anywhere, or nowhere
        synthetic.hift = {name.replace("generator.", ""): tensor for name, tensor in synthetic.hift.items()}
    checkpoint = opened(synthetic.write(tmp_path))
    for stem, weight in wanted.items():
        assert np.allclose(read(checkpoint, "vocoder", f"{stem}.weight"), weight.numpy(), rtol=1e-5, atol=1e-7)


def test_half_a_weight_norm_pair_is_named(synthetic: Synthetic, tmp_path: Path) -> None:
    del synthetic.hift["generator.conv_pre.weight_g"]
    with pytest.raises(CheckpointError, match=r"vocoder:conv_pre\.weight.*vocoder:conv_pre\.weight_v"):
        opened(synthetic.write(tmp_path))


def test_the_later_yaml(synthetic: Synthetic, tmp_path: Path) -> None:
    more = "static_chunk_size: !ref <chunk_size> * 2\n            num_decoding_left_chunks: -1"
    synthetic.yaml = synthetic.yaml.replace("decoder.ConditionalDecoder", "decoder.CausalConditionalDecoder")
    synthetic.yaml = synthetic.yaml.replace("causal: True", more)
    paths = synthetic.write(tmp_path)
    (paths.decoder / "cosyvoice.yaml").rename(paths.decoder / "cosyvoice2.yaml")
    assert opened(paths).config.estimator.heads == 2


def test_generation_config_is_optional(synthetic: Synthetic, tmp_path: Path) -> None:
    synthetic.generation = None
    tokens = opened(synthetic.write(tmp_path)).config.tokens
    assert tokens.eos == (264,) and tokens.repetition_penalty == 1.0


def test_one_end_token_and_no_penalty(synthetic: Synthetic, tmp_path: Path) -> None:
    synthetic.generation = {"eos_token_id": 262, "repetition_penalty": None}
    synthetic.config["tokenizer_model_max_length"] = 512
    tokens = opened(synthetic.write(tmp_path)).config.tokens
    assert (tokens.eos, tokens.repetition_penalty, tokens.context_limit) == ((262,), 1.0, 512)


@pytest.mark.parametrize("value", ["(4,9)", " ( 4 , 9 ) ", "[4, 9]", "4,9", [4, 9], "(4,9,)"])
def test_stream_params(synthetic: Synthetic, tmp_path: Path, value: Any) -> None:
    synthetic.config["stream_params"] = value
    config = opened(synthetic.write(tmp_path)).config
    assert (config.read, config.write) == (4, 9)


def test_a_checkpoint_may_say_what_it_was_not_taught(synthetic: Synthetic, tmp_path: Path) -> None:
    assert opened(synthetic.write(tmp_path / "all")).config.capabilities == Capabilities(
        typed_turns=True, history_turns=None
    )
    synthetic.config["capabilities"] = {"history_turns": 1}
    assert opened(synthetic.write(tmp_path / "some")).config.capabilities == Capabilities(
        typed_turns=True, history_turns=1
    )


@pytest.mark.parametrize("value", [{"history_turns": -1}, {"typed_turns": "perhaps"}, {"typed": True}, [1]])
def test_capabilities_that_make_no_sense_are_named(synthetic: Synthetic, tmp_path: Path, value: Any) -> None:
    synthetic.config["capabilities"] = value
    with pytest.raises(CheckpointError, match="Capabilities"):
        opened(synthetic.write(tmp_path))


def test_name_of_a_hub_snapshot(synthetic: Synthetic, tmp_path: Path) -> None:
    paths = synthetic.write(tmp_path)
    snapshot = tmp_path / "models--ICTNLP--LLaMA-Omni2-7B" / "snapshots" / "0123abc"
    snapshot.parent.mkdir(parents=True)
    paths.model.rename(snapshot)
    checkpoint = open_checkpoint(snapshot, decoder=paths.decoder, speech_encoder=paths.whisper)
    assert checkpoint.config.name == "LLaMA-Omni2-7B"


def test_the_given_checkpoint(shared: Path) -> None:
    root = shared / "checkpoints" / "tiny"
    checkpoint = open_checkpoint(root / "omni2_tiny", decoder=root / "cosy2_decoder")
    state = load_file(root / "omni2_tiny" / "model.safetensors")
    assert checkpoint.warnings == [] and checkpoint.campplus == root / "cosy2_decoder" / "campplus.onnx"
    assert checkpoint.config.encoder.heads == 4 and checkpoint.config.tokens.repetition_penalty == 1.1
    assert same(read(checkpoint, "encoder", "conv1.weight"), state["model.speech_encoder.conv1.weight"])
    assert same(read(checkpoint, "llm", "lm_head.weight"), state["model.embed_tokens.weight"])
    assert same(read(checkpoint, "speech_lm", "lm_head.weight"), state["speech_generator.model.lm_head.weight"])
    hift = torch.load(root / "cosy2_decoder" / "hift.pt", weights_only=True)
    ups = weight_normed(hift, "generator.ups.0")
    assert np.allclose(read(checkpoint, "vocoder", "ups.0.weight"), ups.numpy(), rtol=1e-5, atol=1e-7)
    for module, shapes in expected_shapes(checkpoint.config).items():
        for name in shapes:
            assert np.isfinite(checkpoint.modules[module].read(name)).all()


def write_hollow(path: Path, shapes: dict[str, list[int]], code: str, width: int) -> None:
    """A safetensors file of these shapes whose data is a hole in the file."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * width
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def test_released_sizes(synthetic: Synthetic, shared: Path, tmp_path: Path) -> None:
    """Every name and shape of the released files, and none besides: opening succeeds on their manifests."""
    manifests = shared / "spec" / "manifests"
    paths = synthetic.write(tmp_path)
    for file in (paths.model / "model.safetensors", paths.decoder / "flow.pt", paths.decoder / "hift.pt"):
        file.unlink()
    shapes = {path.stem: json.loads(path.read_text()) for path in manifests.glob("*.json")}
    write_hollow(paths.model / "model.safetensors", shapes["llama_omni2_0.5b_state_dict"], "BF16", 2)
    write_hollow(paths.decoder / "flow.safetensors", shapes["flow_pt"], "F32", 4)
    write_hollow(paths.decoder / "hift.safetensors", shapes["hift_pt"], "F32", 4)
    whisper = tmp_path / "large-v3.safetensors"
    write_hollow(whisper, shapes["whisper_large_v3_model_state_dict"], "F16", 2)
    shutil.copy(manifests / "cosyvoice_full.yaml", paths.decoder / "cosyvoice.yaml")
    qwen = {
        "hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2, "num_hidden_layers": 24,
        "intermediate_size": 4864, "vocab_size": 151936,
    }  # fmt: skip
    config = synthetic.config | qwen
    config |= {"speech_encoder_ds_rate": 5, "speech_encoder_hidden_size": 1280, "stream_params": "(3,10)"}
    config["speech_generator"] = synthetic.config["speech_generator"] | qwen
    (paths.model / "config.json").write_text(json.dumps(config))
    checkpoint = opened(paths, speech_encoder=whisper)
    found = checkpoint.config
    assert (found.encoder.heads, found.encoder.layers, found.encoder.positions) == (20, 32, 300)  # width 64 each
    assert found.speech_lm.vocab == 158498 and found.flow_encoder.up_blocks == 4
    assert found.vocoder.hop == 480 and found.estimator.head_dim == 64 and found.estimator.time_hidden == 1024
    assert checkpoint.modules["llm"].rows("embed_tokens.weight", 100, 102).shape == (2, 896)
    for index in (0, 31):  # and the encoder's names are those of the Whisper file alone, too
        assert f"blocks.{index}.attn.key.weight" in checkpoint.modules["encoder"].names()
