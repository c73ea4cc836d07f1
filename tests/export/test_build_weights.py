"""NaN and infinity among the weights, through `build`: refused with the tensor's name, in every file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from omni2_export.build import BuildRequest, build_engine
from omni2_export.checkpoint import Tensors, open_checkpoint

from .conftest import Copy

SPOILT = [
    ("omni2/model.safetensors", "model.speech_encoder.conv1.weight"),
    ("omni2/model.safetensors", "model.speech_encoder.blocks.0.attn.query.weight"),
    ("omni2/model.safetensors", "model.speech_projector.linear2.bias"),
    ("omni2/model.safetensors", "model.embed_tokens.weight"),
    ("omni2/model.safetensors", "model.layers.1.mlp.down_proj.weight"),
    ("omni2/model.safetensors", "model.norm.weight"),
    ("omni2/model.safetensors", "speech_generator.gate.0.weight"),
    ("omni2/model.safetensors", "speech_generator.model.model.embed_tokens.weight"),
    ("omni2/model.safetensors", "speech_generator.model.model.layers.0.self_attn.k_proj.bias"),
    ("decoder/flow.safetensors", "input_embedding.weight"),
    ("decoder/flow.safetensors", "encoder.encoders.0.self_attn.pos_bias_u"),
    ("decoder/flow.safetensors", "decoder.estimator.mid_blocks.0.1.0.attn1.to_q.weight"),
    ("decoder/hift.safetensors", "f0_predictor.classifier.weight"),
]


def spoil(path: Path, name: str, value: float, dtype: torch.dtype | None = None) -> None:
    """Put one value into the last place of a tensor, perhaps stored as another type."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensor = tensors[name].to(dtype or tensors[name].dtype).clone()
    tensor.view(-1)[-1] = value
    save_file(tensors | {name: tensor}, path, metadata)


@pytest.mark.parametrize(("file", "name"), SPOILT)
def test_one_weight_that_is_not_a_number(copy: Copy, refused: Callable[..., str], file: str, name: str) -> None:
    spoil(copy.root / file, name, float("nan"))
    message = refused("--precision", "fast" if "layers" in name or "blocks" in name else "exact")
    assert f"{copy.root / file}: `{name}` holds NaN" in message and "try: download the file again" in message


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (float("-inf"), "infinity")])
def test_in_every_type_it_is_stored_in(
    copy: Copy, refused: Callable[..., str], dtype: torch.dtype, value: float, kind: str
) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    spoil(copy.model / "model.safetensors", name, value, dtype)
    assert f"`{name}` holds {kind}" in refused()
    flow = load_file(copy.decoder / "flow.safetensors")
    shutil.rmtree(copy.root / "engine.partial", ignore_errors=True)
    spoil(copy.model / "model.safetensors", name, 0.5, torch.float32)
    flow["encoder_proj.bias"] = flow["encoder_proj.bias"].to(dtype)
    flow["encoder_proj.bias"][0] = value
    (copy.decoder / "flow.safetensors").unlink()
    torch.save(flow, copy.decoder / "flow.pt")
    assert f"{copy.decoder / 'flow.pt'}: `encoder_proj.bias` holds {kind}" in refused()


def test_in_a_shard_and_beyond_float32(copy: Copy, refused: Callable[..., str]) -> None:
    file = next(file for file in copy.shard() if "model.norm.weight" in load_file(file))
    spoil(file, "model.norm.weight", 1e300, torch.float64)
    assert f"{file}: `model.norm.weight` holds infinity" in refused()


def test_a_direction_of_zeros_and_the_speaker_encoder(copy: Copy, refused: Callable[..., str]) -> None:
    path = copy.decoder / "hift.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("weight_v") or name.endswith("original1"))
    save_file(tensors | {name: torch.zeros_like(tensors[name])}, path)
    message = refused()
    assert name.removeprefix("generator.") in message and "holds NaN" in message
    path = copy.decoder / "campplus.onnx"
    model = ir.load(path)
    (tensor,) = model.graph.initializers.values()
    assert tensor.const_value is not None
    array = tensor.const_value.numpy().copy()
    array[0, 0] = np.inf
    tensor.const_value = ir.tensor(array, name=tensor.name)
    ir.save(model, path)
    assert f"{path}: `{tensor.name}` holds infinity" in refused()
    path.write_bytes(bytes(range(1, 200)))
    assert f"{path} is not an ONNX file" in refused()


class Noted:
    """Tensors that note which of them were read."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self.names, self.shape, self.dtype = tensors.names, tensors.shape, tensors.dtype
        self.seen: set[str] = set()

    def read(self, name: str) -> np.ndarray:
        self.seen.add(name)
        return self._tensors.read(name)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        self.seen.add(name)
        return self._tensors.rows(name, start, stop)


def test_a_build_reads_every_weight_it_is_given(copy: Copy) -> None:
    """Readers check what they read: so nothing reaches an engine unchecked, nor is any weight left out."""
    opened = open_checkpoint(copy.model, decoder=copy.decoder)
    noted = {module: Noted(tensors) for module, tensors in opened.modules.items()}
    opened.modules = dict(noted)
    build_engine(BuildRequest(opened, copy.engine, [copy.voice]))
    for module, tensors in noted.items():
        assert set(tensors.names()) - tensors.seen == set(), module
