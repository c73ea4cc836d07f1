"""What tests of conversations share: utterances, an engine for several sessions, and what is left of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from omni2_engine import Engine
from omni2_engine.backends.tensorrt.library import MAINLINE, TensorRt, new_logger

from ..waiting import eventually
from .stand_ins.cuda import FakeCuda, build_emulated_kernels, build_fake_cudart
from .stand_ins.tensorrt import VERSION, FakeTensorRt

SESSIONS = 8
LIMITS = {"max_new_tokens": 14, "max_last_write": 30}


@pytest.fixture(scope="session")
def utterance() -> Callable[..., np.ndarray]:
    """A different one per seed: a few gliding tones in noise, 16 kHz."""

    def make(seed: int, seconds: float = 1.0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        t = np.arange(int(16_000 * seconds)) / 16_000
        tones = sum(np.sin(2 * np.pi * f * t * (1 + 0.2 * t)) for f in rng.uniform(100, 2000, 4))
        return (0.1 * tones + 0.01 * rng.standard_normal(len(t))).astype(np.float32)

    return make


@pytest.fixture(scope="module")
def shared_engine(tiny_engine_dir: Path) -> Engine:
    """The tiny engine with slots for eight conversations."""
    return Engine.load(tiny_engine_dir, threads=1, warm_up=False, sessions=SESSIONS)


@pytest.fixture(scope="session")
def is_free() -> Callable[[Engine], bool]:
    """Whether an engine has everything back, or gets it back soon: slots, memory promised, sessions, tasks."""

    def now(engine: Engine) -> bool:
        states = engine.states
        counts = (states._open, states._running, states.budget.used, *engine.scheduler.counts())
        free = (states._conversations.free, states._speeches.free)
        return not any(counts) and free == (states._conversations.slots, states._speeches.slots)

    def soon(engine: Engine) -> bool:
        return eventually(lambda: now(engine))  # a callback may have left it to another thread

    return soon


@pytest.fixture(scope="session")
def ask(utterance: Callable[..., np.ndarray]) -> Callable[[Engine], np.ndarray]:
    """One turn, always the same: its sound."""

    def answer(engine: Engine) -> np.ndarray:
        chunks = engine.stream(utterance(1), sample_rate=16_000, seed=1, **LIMITS)
        return np.concatenate([chunk.pcm for chunk in chunks])

    return answer


@pytest.fixture
def alone(shared_engine: Engine, ask: Callable[[Engine], np.ndarray]) -> np.ndarray:
    """What `ask` gives when nothing goes wrong."""
    return ask(shared_engine)


@pytest.fixture(scope="session")
def fake_cudart() -> FakeCuda:
    """The stand-in libcudart."""
    return FakeCuda(build_fake_cudart())


@pytest.fixture
def fake_cuda(fake_cudart: FakeCuda, request: pytest.FixtureRequest) -> Iterator[FakeCuda]:
    """The stand-in libcudart as new; a test that uses it must have given everything back in the end."""
    fake_cudart.reset()
    before, damaged, failed = fake_cudart.live(), fake_cudart.damaged(), request.session.testsfailed
    yield fake_cudart
    request.node.funcargs.clear()  # what other fixtures have made

    def left() -> dict[str, int]:
        fake_cudart.forget()
        return {kind: count for kind, count in fake_cudart.live().items() if count > before[kind]}

    if request.session.testsfailed == failed:  # a test that fails holds on to what it had
        eventually(lambda: gc.collect() >= 0 and not left())  # a thread may be about to let go of the last reference
    assert fake_cudart.damaged() == damaged


@pytest.fixture
def fake_tensorrt(fake_cuda: FakeCuda) -> FakeTensorRt:
    """A stand-in TensorRT on the stand-in device."""
    return FakeTensorRt(fake_cuda)


@pytest.fixture
def library(fake_tensorrt: FakeTensorRt) -> TensorRt:
    """The same, as the engine finds it."""
    return TensorRt(fake_tensorrt, MAINLINE, VERSION, new_logger(fake_tensorrt))


@pytest.fixture(scope="session")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kernels that tests compile are kept."""
    pytest.importorskip("cuda.bindings.nvrtc", reason="needs NVRTC; pip install '.[tensorrt]' to run this test")
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def emulated(fake_cuda: FakeCuda, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """The stand-in device with the kernels of `omni2_kernels`, which the host runs for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(kernel_cache))
    assert fake_cuda.emulate(build_emulated_kernels()) > 0
    return fake_cuda
