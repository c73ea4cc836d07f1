"""What `live` leaves out of graphs: digits of activations, of keys and values, and logits of what is never voiced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from omni2_bench.lab.probes import Rows, ask_language_model
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.stages.flow import Flow
from omni2_export.build import parse_precision
from omni2_export.build.graphs import Reductions, graph_specs
from omni2_export.build.stages import voiced_ids
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.graphs.linear import Precision
from omni2_export.verify.rows import Comparison, VerifyReport, snr

BACKEND = OnnxRuntimeBackend(1)


@pytest.fixture(scope="module")
def demo(repository: Path) -> Checkpoint:
    model = repository / "examples" / "model"
    return open_checkpoint(model / "omni2", decoder=model / "decoder")


@pytest.mark.parametrize("name", ["llm", "speech_lm"])
def test_w8a8_keeps_what_weights_in_eight_bits_keep(demo: Checkpoint, name: str, tmp_path: Path) -> None:
    config, spec = getattr(demo.config, name), graph_specs(demo.config, demo.modules, positions=256)[name]
    inputs = Rows(demo.modules[name])(np.random.default_rng(0).integers(config.vocab, size=120))
    exact, packed = (
        ask_language_model(BACKEND.load(spec.write(tmp_path, precision)), config, inputs)["logits"].astype(np.float64)
        for precision in (Precision.FP32, Precision.W8A8)
    )
    assert snr(packed, exact) > 25


def test_a_row_of_w8a8_does_not_depend_on_loud_neighbours(demo: Checkpoint, tmp_path: Path) -> None:
    config, spec = demo.config.llm, graph_specs(demo.config, demo.modules, positions=64)["llm"]
    graph = BACKEND.load(spec.write(tmp_path, Precision.W8A8))
    embeds = np.random.default_rng(1).standard_normal((2, 1, config.hidden)).astype(np.float32)
    still: dict[str, NDArray[Any]] = {
        name: np.zeros((2, config.kv_heads, 16, config.head_dim), np.float32)
        for layer in range(config.layers)
        for name in (f"keys_{layer}", f"values_{layer}")
    }
    still["positions"] = still["last"] = np.zeros((2, 1), np.int64)
    still["write"] = np.zeros(2, np.int64)
    still["mask"] = np.ones((2, 1, 1, 16), np.bool_)
    logits = []
    for loudness in (1, 1000):
        fed = embeds * np.array([1, loudness], np.float32)[:, None, None]
        logits.append(graph.run(still | {"embeds": fed})["logits"][0])
    assert np.array_equal(logits[0], logits[1])


def test_a_head_of_units_scores_them_as_the_whole_head_does(demo: Checkpoint, tmp_path: Path) -> None:
    config, ids = demo.config.speech_lm, voiced_ids(demo)
    assert demo.config.tokens.speech_eos in ids and len(ids) < config.vocab
    inputs = Rows(demo.modules["speech_lm"])(np.random.default_rng(0).integers(config.vocab, size=40))
    found = []
    for number, reductions in enumerate((Reductions(), Reductions(scored=ids))):
        spec = graph_specs(demo.config, demo.modules, 64, reductions)["speech_lm"]
        folder = tmp_path / str(number)
        folder.mkdir()
        graph = BACKEND.load(spec.write(folder, Precision.FP32))
        found.append(ask_language_model(graph, config, inputs)["logits"])
    whole, some = found
    assert np.abs(whole[:, ids] - some[:, ids]).max() < 1e-4
    others = np.setdiff1d(np.arange(config.vocab), ids)
    assert len(others) and (some[:, others] == -np.inf).all()
    comparison = Comparison(VerifyReport(), {"speech_lm": 12.0}, ["speech_lm"])
    assert comparison.judge("file", "logits", ["speech_lm"], some, whole).passed
    assert not Comparison(VerifyReport(), {"speech_lm": 12.0}).judge("", "", ["speech_lm"], some, whole).passed


def test_half_caches_keep_the_mel(demo: Checkpoint, tmp_path: Path) -> None:
    """Two calls, the second of which sees a finished block in the caches."""
    c, random = demo.config, np.random.default_rng(2)
    noise = random.standard_normal((400, c.estimator.mel)).astype(np.float32)
    voice = random.standard_normal(c.estimator.speaker).astype(np.float32)
    units = random.integers(c.flow_encoder.units, size=2 * c.flow_encoder.block_units).tolist()
    mels, sizes = [], []
    for number, caches in enumerate((None, ir.DataType.FLOAT16)):
        specs = graph_specs(c, demo.modules, 64, Reductions(flow_caches=caches))
        folder = tmp_path / str(number)
        folder.mkdir()
        names = ("flow_encoder", "flow_step", "flow_conditions")
        encoder, step, conditions = (BACKEND.load(specs[name].write(folder, Precision.FP32)) for name in names)
        flow = Flow(encoder, step, conditions, c.flow_encoder, c.estimator, noise)
        state = flow.new_state(flow.speaker_features(voice))
        middle = c.flow_encoder.block_units + c.flow_encoder.lookahead
        parts = [
            flow.step(state, part, final).new_mel for part, final in ((units[:middle], False), (units[middle:], True))
        ]
        mels.append(np.concatenate(parts).astype(np.float64))
        sizes.append(sum(part.nbytes for part in state.steps))
    assert snr(mels[1], mels[0]) > 60
    assert sizes[1] < 0.6 * sizes[0]


def test_live_takes_them_all() -> None:
    live, fast = parse_precision("live"), parse_precision("fast")
    assert live.units_alone and live.half_caches and live.of("llm") is Precision.W8A8
    assert live.of("speech_lm") is Precision.INT8 and live.of("flow") is Precision.DYNAMIC
    assert not fast.units_alone and not fast.half_caches
    assert not parse_precision("live,speech_lm=int8,flow=int8").units_alone
    assert set(live.floors) == {"encoder", "llm", "speech_lm", "estimator", "flow_step", "flow", "sound"}
