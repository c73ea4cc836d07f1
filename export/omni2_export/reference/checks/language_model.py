"""The two Qwen2 decoders a layer at a time, prefill and then more positions behind the cache; heads and embeddings."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from omni2_engine.model.config import DecoderConfig
from omni2_engine.model.tables import EmbeddingTable
from omni2_export.reference.checks.subject import Floats, Subject, tensor
from omni2_export.reference.qwen2 import Qwen2Layer, RMSNorm, rotary_table
from omni2_export.verify.rows import Row
from omni2_export.verify.tolerances import DEVIATION, LOGITS

PREFILL, MORE = 9, 2  # positions of the first call and of the one behind it
ROWS = 64  # of the embedding table
ROWS_AT_ONCE = 1 << 24  # elements of the head in memory


def check_llm(subject: Subject) -> None:
    """The language model."""
    _check(subject, "llm", subject.config.llm)


def check_speech_lm(subject: Subject) -> None:
    """The speech language model."""
    _check(subject, "speech_lm", subject.config.speech_lm)


def _check(subject: Subject, stage: str, config: DecoderConfig) -> None:
    _check_table(subject, stage, config)
    calls = [_check_layer(subject, stage, config, layer) for layer in range(config.layers)]
    for rows in zip(*calls, strict=True):
        subject.add(rows)
    heads = [_check_head(subject, stage, config, positions) for positions in (1, PREFILL)]
    for rows in zip(*heads, strict=True):
        subject.add(rows)


def _check_table(subject: Subject, stage: str, config: DecoderConfig) -> None:
    ids = subject.random.integers(config.vocab, size=min(ROWS, config.vocab))
    found = EmbeddingTable(subject.engine.path / "tables" / f"{stage}_embed.npy")(ids)
    tensors = subject.checkpoint.modules[stage]
    rows = [tensors.rows("embed_tokens.weight", row, row + 1) for row in ids.tolist()]
    subject.comparison.close(
        "check", "token embeddings", (f"{stage}_table",), found, np.concatenate(rows), absolute=0.0
    )


@torch.inference_mode()
def _check_layer(subject: Subject, stage: str, config: DecoderConfig, layer: int) -> tuple[Row, Row]:
    before = "embeds" if layer == 0 else f"layer_{layer - 1}_out"
    names = [f"layer_{layer}_out", f"new_keys_{layer}", f"new_values_{layer}"]
    graph = subject.part(stage, [before], names)
    module = subject.module(lambda: Qwen2Layer(config), stage, f"layers.{layer}.")
    caches = [np.zeros((1, config.kv_heads, PREFILL + MORE, config.head_dim), np.float32)] * 2
    past, rows = None, []
    for start, stop in ((0, PREFILL), (PREFILL, PREFILL + MORE)):
        x = subject.normal(1, stop - start, config.hidden)
        mask = np.tri(stop, dtype=bool)[start:]
        outputs = graph.run(
            {
                before: x,
                "positions": np.arange(start, stop)[None],
                "write": np.array([start]),
                "mask": mask[None, None],
                f"keys_{layer}": caches[0],
                f"values_{layer}": caches[1],
            }
        )
        caches = [outputs[names[1]], outputs[names[2]]]
        cos, sin = rotary_table(start, stop, config, tensor(x))
        expected, past = module(tensor(x), cos, sin, tensor(mask), past)
        what = f"layer {layer}, positions {start}–{stop - 1}"
        rows.append(subject.judge(stage, what, outputs[names[0]], expected, relative=DEVIATION))
    return rows[0], rows[1]


@torch.inference_mode()
def _check_head(subject: Subject, stage: str, config: DecoderConfig, positions: int) -> tuple[Row, Row]:
    before = f"layer_{config.layers - 1}_out"
    x = subject.normal(1, positions, config.hidden)
    outputs = subject.part(stage, [before], ["hidden", "logits"]).run({before: x, "last": np.array([[positions - 1]])})
    norm = subject.module(lambda: RMSNorm(config.hidden, config.rms_eps), stage, "norm.")
    hidden = norm(tensor(x)[:, -1])
    logits = torch.cat([F.linear(hidden, tensor(rows)) for rows in _head_rows(subject, stage, config)], dim=1)
    return (
        subject.judge(stage, f"hidden, last of {positions}", outputs["hidden"], hidden, relative=DEVIATION),
        subject.judge(stage, f"logits, last of {positions}", outputs["logits"], logits, absolute=LOGITS),
    )


def _head_rows(subject: Subject, stage: str, config: DecoderConfig) -> list[Floats]:
    tensors, step = subject.checkpoint.modules[stage], max(1, ROWS_AT_ONCE // config.hidden)
    return [
        tensors.rows("lm_head.weight", start, min(start + step, config.vocab)) for start in range(0, config.vocab, step)
    ]
