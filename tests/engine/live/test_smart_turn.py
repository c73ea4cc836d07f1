"""Smart Turn: its features against another implementation, its file where it is installed, and stand-ins for it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from omni2_engine import Engine
from omni2_engine.errors import BackendError
from omni2_engine.live.detection.base import RATE
from omni2_engine.live.detection.smart_turn import FRAMES, MELS, SmartTurn, log_mel
from omni2_engine.live.events import Finished, SpeechEnded
from omni2_engine.live.settings import Detection

from .scenes import Floats, recording, silence


def stand_in(path: Path, name: str = "input_features") -> Path:
    """A model that takes loud speech for complete: the sigmoid of the mean of its features."""
    onnx = pytest.importorskip("onnx", reason="writes a graph; pip install '.[export]' to run this test")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMean", [name], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("Sigmoid", ["column"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info(name, kind, ["n", MELS, FRAMES])]
    outputs = [helper.make_tensor_value_info("logits", kind, ["n", 1])]
    one = helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "stand_in", inputs, outputs, [one])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("seconds", [0.5, 8.0, 11.0])
def test_features_are_whispers(seconds: float) -> None:
    transformers = pytest.importorskip("transformers", reason="pip install '.[torch]' to run this test")
    speech = (0.1 * np.random.default_rng(3).standard_normal(round(seconds * RATE))).astype(np.float32)
    whisper = transformers.WhisperFeatureExtractor(feature_size=MELS, chunk_length=8)
    padded = np.pad(speech[-8 * RATE :], (max(0, 8 * RATE - len(speech)), 0))
    expected = whisper(padded, sampling_rate=RATE, do_normalize=True, return_tensors="np").input_features[0]
    assert log_mel(speech).shape == (MELS, FRAMES)
    assert np.abs(log_mel(speech) - expected).max() < 1e-4


def test_a_probability_decides(tmp_path: Path) -> None:
    model = SmartTurn(stand_in(tmp_path / "model.onnx"))
    for speech in (silence(1.0), (0.1 * np.random.default_rng(3).standard_normal(9 * RATE)).astype(np.float32)):
        expected = 1 / (1 + np.exp(-log_mel(speech).mean()))
        assert model.probability(speech) == pytest.approx(expected, abs=1e-6)
        assert model(speech) == (expected > 0.5)


def test_a_file_that_is_no_smart_turn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be run"):
        SmartTurn(tmp_path / "missing.onnx")
    with pytest.raises(BackendError, match="is not Smart Turn v3"):
        SmartTurn(stand_in(tmp_path / "other.onnx", name="audio"))


def test_the_model_tells_whole_sentences_from_halves(repository: Path) -> None:
    package = find_spec("pipecat")
    if package is None or not package.origin:
        pytest.skip("the model is in the package pipecat-ai; install that to run this test")
    (file,) = Path(package.origin).parent.glob("audio/turn/smart_turn/data/smart-turn-v3*.onnx")
    model = SmartTurn(file)
    for name in ("shared/audio/helpful_base_1.wav", "shared/audio/prompt_en.wav"):
        speech = recording(repository, name)
        assert model(speech) and not model(speech[: round(0.6 * len(speech))])


@pytest.mark.parametrize("over", [True, False])
def test_a_conversation_asks_it(tiny_engine: Engine, repository: Path, over: bool) -> None:
    asked: list[Floats] = []

    def is_over(speech: Floats) -> bool:
        asked.append(speech)
        return over

    sound = np.concatenate([recording(repository, "examples/sum.wav"), silence(2.5)])
    options = {"max_new_tokens": 8, "max_last_write": 20}
    with tiny_engine.live(detection=Detection(eagerness="high"), sentence_end=is_over, **options) as live:
        live.feed(sound)
        live.end()
        events = list(live)
    (ended,) = [event for event in events if isinstance(event, SpeechEnded)]
    assert len(asked) == 1 and isinstance(events[-1], Finished)
    silent = (ended.decided - ended.at) / RATE
    assert 0.2 <= silent < 0.24 if over else 2.0 <= silent < 2.04


def test_a_model_that_fails_leaves_the_times(
    tiny_engine: Engine, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(speech: Floats) -> bool:
        raise RuntimeError("no memory")

    sound = np.concatenate([recording(repository, "examples/sum.wav"), silence(2.5)])
    detection = Detection(eagerness="high", create_response=False)
    with tiny_engine.live(detection=detection, sentence_end=broken) as live:
        live.feed(sound)
        live.end()
        (ended,) = [event for event in live if isinstance(event, SpeechEnded)]
    assert (ended.decided - ended.at) / RATE >= 2.0
    assert "a pause could not be judged" in caplog.text
