"""`bench limits`: the arithmetic a stage needs against a count of what PyTorch does, and one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from omni2_bench.common.work import encoder_work, flow_work, prefill_work, vocoder_work, weight_bytes
from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine.cli.app import run
from omni2_export.checkpoint import open_checkpoint
from omni2_export.reference.build import Reference, load_reference

UNITS, PROMPT, FRAMES = 40, 60, 28


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: CheckpointPaths) -> Reference:
    torch.set_num_threads(1)
    return load_reference(open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder))


def counted(work: object) -> float:
    # attention as two products: the counter knows nothing of the processor's fused one
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()  # type: ignore[operator]
    return counter.get_total_flops()


def test_encoder_work(reference: Reference) -> None:
    c = reference.config.encoder
    done = counted(lambda: reference.encoder(torch.zeros(1, c.frames, c.mel_bins)))
    assert encoder_work(c).total == pytest.approx(done, rel=0.001)
    assert encoder_work(c).linear == c.layers * 2 * c.context * (4 * c.width**2 + 2 * c.width * c.ffn)


def test_prefill_work(reference: Reference) -> None:
    c, llm = reference.config.llm, reference.llm
    done = counted(lambda: llm.lm_head(llm(torch.zeros(1, PROMPT, c.hidden))[0][:, -1]))
    work = prefill_work(c, PROMPT)
    assert work.linear + 2 * work.other == pytest.approx(done, rel=0.001)  # PyTorch counts the masked half as well


def test_flow_work(reference: Reference) -> None:
    config, flow = reference.config, reference.flow
    frames = UNITS * config.flow_encoder.ratio
    embedding, noise = torch.ones(1, config.estimator.speaker), torch.zeros(1, config.estimator.mel, frames)
    done = counted(lambda: flow.final(torch.zeros(1, UNITS, dtype=torch.long), embedding, noise))
    # beside positions and time, which are constants, that is all there is
    assert flow_work(config, frames, frames * frames).total == pytest.approx(done, rel=0.1)


def test_vocoder_work(reference: Reference) -> None:
    c, vocoder = reference.config.vocoder, reference.vocoder
    draws = vocoder.m_source.draw(FRAMES * c.hop, torch.Generator())
    done = counted(lambda: vocoder(torch.zeros(1, c.mel, FRAMES), draws, torch.zeros(1, 1, 0)))
    assert vocoder_work(c, FRAMES).total == pytest.approx(done, rel=0.02)


def test_weights_are_counted_without_rotary_tables(tiny_engine_dir: Path, reference: Reference) -> None:
    c = reference.config.llm
    attention = c.hidden * c.head_dim * (2 * c.heads + 2 * c.kv_heads)
    matrices = c.layers * (attention + 3 * c.hidden * c.ffn) + c.vocab * c.hidden
    found = weight_bytes(tiny_engine_dir / "graphs" / "llm.onnx")
    assert found == pytest.approx(4 * matrices, rel=0.01) and found > 4 * matrices


def test_one_run(tiny_checkpoint: CheckpointPaths, question: Path, tmp_path: Path) -> None:
    options = {"checkpoint": tiny_checkpoint.model, "decoder": tiny_checkpoint.decoder, "audio": question}
    options |= {"out": tmp_path / "out", "cache": tmp_path / "cache", "threads": 1, "precision": "fast", "seconds": 0.1}
    assert run(["bench", "limits", *(str(part) for pair in options.items() for part in (f"--{pair[0]}", pair[1]))]) == 0
    found = json.loads((tmp_path / "out" / "limits.json").read_text())["presets"]["fast"]
    assert 0 < found["best"]["read"] < 1e12 and 0 < found["best"]["fp32"] < 1e13
    assert found["best"]["fp32"] == max(value for name, value in found["rates"].items() if name.endswith("fp32"))
    stages = {row["stage"]: row for row in found["stages"]}
    assert set(stages) == {"encoder", "prefill", "flow", "vocoder", "text_token", "speech_token"}
    for row in stages.values():
        assert row["share"] > 0 and row["share"] == pytest.approx(row["floor"] / row["seconds"])
    assert stages["encoder"]["bound"] == "int8 and fp32 arithmetic" and stages["speech_token"]["storage"] == "int4"
    assert "at the limit" in (tmp_path / "out" / "limits.md").read_text()
