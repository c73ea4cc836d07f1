"""ONNX Runtime's CUDA provider, on a stand-in: the same stages, with their state on the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from omni2_engine import Engine
from omni2_engine._core import CudaDevice
from omni2_engine.backends.onnxruntime.cuda import OnnxRuntimeCudaBackend
from omni2_engine.backends.onnxruntime.int8 import products_saturate
from omni2_engine.errors import BackendError
from omni2_engine.model.manifest import EngineDirectory

from ..stand_ins.onnxruntime_cuda import PROVIDERS, CudaSession

STAGES = ("log_mel", "encoder", "llm", "fusion", "speech_lm", "flow_encoder", "flow_conditions", "flow_step", "vocoder")
LIMITS = {"max_new_tokens": 9, "max_last_write": 24}


@pytest.fixture
def provider(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime with the provider."""
    products_saturate()  # asked of the real one, whichever test comes first
    monkeypatch.setattr(ort, "get_available_providers", lambda: PROVIDERS)
    monkeypatch.setattr(ort, "InferenceSession", partial(CudaSession, fake_cuda))
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)


@pytest.fixture
def backend(provider: None, fake_cuda: Any) -> OnnxRuntimeCudaBackend:
    return OnnxRuntimeCudaBackend(CudaDevice(fake_cuda.path))


def answer(engine: Engine, sound: np.ndarray) -> tuple[str, np.ndarray]:
    chunks = list(engine.stream(sound, sample_rate=16_000, seed=3, **LIMITS))
    return "".join(chunk.text for chunk in chunks), np.concatenate([chunk.pcm for chunk in chunks])


@pytest.mark.parametrize("sessions", [1, 3])
def test_turns_are_answered_as_on_the_cpu(
    backend: OnnxRuntimeCudaBackend,
    fake_cuda: Any,
    tiny_engine_dir: Path,
    tiny_engine: Engine,
    utterance: Callable[..., np.ndarray],
    sessions: int,
) -> None:
    engine = Engine.load(tiny_engine_dir, backend=backend, warm_up=False, max_context=400, sessions=sessions)
    assert engine.memory_plan is not None
    assert fake_cuda.live()["bytes"] >= engine.memory_plan.parts["text caches"]
    for seed in (1, 2):
        text, sound = answer(engine, utterance(seed))
        expected, reference = answer(tiny_engine, utterance(seed))
        assert text == expected and text
        np.testing.assert_allclose(sound, reference, atol=1e-5)


def test_an_onnx_runtime_without_the_provider_is_told_apart(fake_cuda: Any) -> None:
    with pytest.raises(BackendError, match=r"no CUDA provider — .*omni2-engine doctor"):
        OnnxRuntimeCudaBackend(CudaDevice(fake_cuda.path))


def test_a_provider_that_does_not_start_is_an_error(
    backend: OnnxRuntimeCudaBackend, monkeypatch: pytest.MonkeyPatch, stage_graph: Path
) -> None:
    monkeypatch.setattr(CudaSession, "get_providers", lambda self: PROVIDERS[1:])
    with pytest.raises(BackendError, match=r"cannot start its CUDA provider — .*omni2-engine\[gpu\]"):
        backend.load(stage_graph)


def test_state_stays_on_the_device(backend: OnnxRuntimeCudaBackend, fake_cuda: Any, stage_graph: Path) -> None:
    graph = backend.load(stage_graph)
    state = graph.state({"keys_0": (3, 2, 16, 4), "contexts": (1, 4)})
    bound = graph.bind({"keys_0": state.arrays["keys_0"][1:3], "contexts": state.arrays["contexts"]})
    rng, contexts = np.random.default_rng(0), np.zeros((1, 4), np.float32)
    for place in (0, 4):
        x = rng.standard_normal((2, 2, 3, 4)).astype(np.float32)
        result = bound.run({"x": x, "write": np.full(2, place)})
        contexts = contexts / 2 + x.sum((0, 1, 2))
        assert set(result) == {"doubled", "logits"}
        np.testing.assert_array_equal(result["doubled"], 2 * x)
    backend.streams.of("stage").cuda.synchronize()
    keys = state.arrays["keys_0"]
    there = fake_cuda.contents(keys.address, keys.shape, keys.dtype)
    np.testing.assert_array_equal(there[1:, :, 4:7], x)
    assert not there[0].any()
    left = state.arrays["contexts"]
    np.testing.assert_allclose(fake_cuda.contents(left.address, left.shape, left.dtype), contexts, rtol=1e-5)


def test_what_would_run_on_the_cpu_is_refused(
    backend: OnnxRuntimeCudaBackend, monkeypatch: pytest.MonkeyPatch, stage_graph: Path
) -> None:
    """Shape arithmetic may stay on the host; a product may not, and the error names it."""
    nodes = [SimpleNamespace(op_type=kind, name=f"/blocks.0/{kind}") for kind in ("Concat", "MatMulInteger")]
    part = SimpleNamespace(ep_name=PROVIDERS[1], get_nodes=lambda: nodes)
    monkeypatch.setattr(CudaSession, "get_provider_graph_assignment_info", lambda self: [part], raising=False)
    with pytest.raises(BackendError, match=r"1 nodes of stage.onnx to one CPU thread \(MatMulInteger; /blocks"):
        backend.load(stage_graph)
    nodes.pop()
    assert backend.load(stage_graph).inputs


@pytest.mark.parametrize(
    ("precision", "refused"),
    [
        ({"encoder": "int8", "flow": "fp32"}, "encoder"),
        ({"llm": "w8a8", "flow": "fp32"}, "llm"),
        ({"flow": "int8+kv16"}, "flow"),
        ({"llm": "int4", "speech_lm": "int8+units"}, ""),
    ],
)
def test_activations_in_int8_are_refused_before_anything_is_loaded(precision: dict[str, str], refused: str) -> None:
    directory: Any = SimpleNamespace(path="engine", manifest=SimpleNamespace(precision=precision))
    if refused:
        with pytest.raises(BackendError, match=f"{refused} in int8.*--precision balanced,{refused}=fp32"):
            OnnxRuntimeCudaBackend.check(directory)
    else:
        OnnxRuntimeCudaBackend.check(directory)


@pytest.mark.parametrize(("stored", "tf32"), [("fp32", {"0"}), ("int8", {"0", "1"})])
def test_an_exact_engine_is_not_rounded_to_tf32(
    backend: OnnxRuntimeCudaBackend, tiny_engine_dir: Path, monkeypatch: pytest.MonkeyPatch, stored: str, tf32: set[str]
) -> None:
    """Log-mel and the vocoder never are."""
    directory = EngineDirectory(tiny_engine_dir)
    precision = {**directory.manifest.precision, "llm": stored}
    monkeypatch.setattr(directory, "manifest", directory.manifest.model_copy(update={"precision": precision}))
    found = {stage: backend.open(directory, stage)._session.settings["use_tf32"] for stage in STAGES}
    assert set(found.values()) == tf32 and found["log_mel"] == found["vocoder"] == "0"


def test_the_first_shapes_of_the_vocoder_keep_their_sessions(
    backend: OnnxRuntimeCudaBackend, tiny_engine_dir: Path, fake_cuda: Any, utterance: Callable[..., np.ndarray]
) -> None:
    """A session forgets cuDNN's plans each time its input changes its shape."""
    engine = Engine.load(tiny_engine_dir, backend=backend, warm_up=False, max_context=400)
    for seed in (1, 2):
        answer(engine, utterance(seed))
    graph = engine.runtime.pipeline.decoder.vocoder._graph
    assert len(graph._apart) == 2
    assert all(alone._session.shapes == {shape} for shape, alone in graph._apart.items())


def test_a_call_that_fails_is_an_error_of_ours_and_prints_nothing(
    backend: OnnxRuntimeCudaBackend,
    stage_graph: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = backend.load(stage_graph)
    state = graph.state({"keys_0": (2, 2, 16, 4), "contexts": (1, 4)})
    bound = graph.bind(state.arrays)
    monkeypatch.setattr(CudaSession, "_wait", fail)
    with pytest.raises(BackendError, match="cannot run stage: CUDNN_STATUS_EXECUTION_FAILED"):
        bound.run({"x": np.zeros((2, 2, 3, 4), np.float32), "write": np.zeros(2, np.int64)})
    assert capfd.readouterr().out == ""


def fail(*given: Any) -> None:
    raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")
