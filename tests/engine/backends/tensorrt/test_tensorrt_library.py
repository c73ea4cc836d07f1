"""Which TensorRT is taken, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from omni2_engine.backends.cuda import library as cuda_library
from omni2_engine.backends.cuda.library import cudart_path, gpu_architecture, load_cudart
from omni2_engine.backends.tensorrt import library as tensorrt_library
from omni2_engine.backends.tensorrt.library import MAINLINE, RTX, TensorRt, find_tensorrt
from omni2_engine.errors import BackendError


class ILogger:
    """As much of TensorRT's as a logger needs."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


# What this process has really found is kept for other tests: these look anew.
look: Callable[[], TensorRt] = find_tensorrt.__wrapped__


def install(monkeypatch: pytest.MonkeyPatch, *flavours: str) -> None:
    """Let exactly these flavours seem installed."""
    find = importlib.util.find_spec
    known = {MAINLINE, RTX}
    monkeypatch.setattr(
        tensorrt_library, "find_spec", lambda name: (name in flavours or None) if name in known else find(name)
    )
    monkeypatch.setattr(tensorrt_library, "load_cudart", lambda: None)
    for flavour in flavours:
        monkeypatch.setitem(sys.modules, flavour, SimpleNamespace(__version__=f"{flavour} 1", ILogger=ILogger))


def test_mainline_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, MAINLINE, RTX)
    found = look()
    assert (found.flavour, found.version) == (MAINLINE, f"{MAINLINE} 1") and not found.builds_for_other_gpus


def test_rtx_is_taken_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, RTX)
    assert look().builds_for_other_gpus


def test_none_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(BackendError, match="not installed") as caught:
        look()
    assert "omni2-engine[tensorrt]" in caught.value.remedy


def test_one_that_does_not_load_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, RTX)
    monkeypatch.setitem(sys.modules, RTX, None)  # importing it fails
    with pytest.raises(BackendError, match="cannot be loaded"):
        look()


def test_without_libcudart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMNI2_CUDART", str(tmp_path / "libcudart.so"))
    assert cudart_path() == tmp_path / "libcudart.so"
    with pytest.raises(BackendError, match=r"libcudart\.so"):
        load_cudart.__wrapped__()


def test_the_logger_keeps_the_first_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, RTX)
    logger = look().logger
    logger.log(ILogger.ERROR, "the\n root")
    logger.log(ILogger.ERROR, "what follows")
    logger.log(ILogger.WARNING, "careful")
    logger.log(ILogger.INFO, "by the way")
    assert logger.messages.reason() == "the root"
    logger.messages.clear()
    assert logger.messages.reason() == ""


def test_a_stage_is_not_told_the_errors_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages call TensorRT from threads of their own, and TensorRT reports from threads that compile as well."""
    install(monkeypatch, RTX)
    logger = look().logger

    def elsewhere(*calls: Callable[[], object]) -> list[object]:
        found: list[object] = []
        thread = Thread(target=lambda: found.extend(call() for call in calls))
        thread.start()
        thread.join()
        return found

    logger.messages.clear()
    *_, reason = elsewhere(
        logger.messages.clear, lambda: logger.log(ILogger.ERROR, "of the flow"), logger.messages.reason
    )
    assert reason == "of the flow" and logger.messages.reason() == ""
    elsewhere(lambda: logger.log(ILogger.ERROR, "a kernel does not compile"))
    assert logger.messages.reason() == "a kernel does not compile"
    logger.log(ILogger.ERROR, "my own")
    assert logger.messages.reason() == "my own"


class Context:
    """An engine of either flavour that records how its context is made."""

    def __init__(self, accepts: bool = True) -> None:
        self.accepts = accepts
        self.given: bytes | None = None
        self.config = SimpleNamespace(
            create_runtime_cache=lambda: self,
            set_runtime_cache=lambda cache: setattr(self, "cache", cache),
            set_execution_context_allocation_strategy=lambda strategy: setattr(self, "memory", strategy),
        )
        self.made_with: object = "nothing"
        self.memory: object = "its own"
        self.cache: object = None

    def deserialize(self, blob: bytes) -> bool:
        self.given = blob
        return self.accepts

    def create_runtime_config(self) -> SimpleNamespace:
        return self.config

    def create_execution_context(self, config: object = None) -> str:
        self.made_with = config
        return "context"


def library(flavour: str) -> TensorRt:
    module = SimpleNamespace(
        CudaGraphStrategy=SimpleNamespace(DISABLED="off"),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager", NONE="none"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="ours"),
    )
    return TensorRt(module, flavour, "1", None)


@pytest.mark.parametrize(("few_shapes", "strategy"), [(True, "eager"), (False, "none")])
@pytest.mark.parametrize("accepts", [True, False])
def test_a_context_of_rtx(few_shapes: bool, strategy: str, accepts: bool) -> None:
    engine = Context(accepts)
    cache = library(RTX).runtime_cache(engine, b"kernels")
    assert library(RTX).context(engine, few_shapes=few_shapes, runtime_cache=cache) == "context"
    assert cache is engine is engine.cache and engine.given == b"kernels"
    assert engine.made_with is engine.config and engine.config.cuda_graph_strategy == "off"
    assert engine.config.dynamic_shapes_kernel_specialization_strategy == strategy
    assert engine.memory == "ours"


def test_a_context_of_mainline() -> None:
    engine = Context()
    assert library(MAINLINE).runtime_cache(engine, b"kernels") is None
    assert library(MAINLINE).context(engine, few_shapes=True) == "context"
    assert engine.given is None and engine.made_with == "ours"


def test_a_context_that_cannot_be_made() -> None:
    engine = Context()
    engine.create_execution_context = lambda config=None: None  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(BackendError, match="execution context"):
        library(MAINLINE).context(engine, few_shapes=False)


def test_no_gpu_is_no_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {75: 8, 76: 9}

    def attribute(number: object, which: int, device: int) -> int:
        if device:
            return 100  # cudaErrorNoDevice
        number._obj.value = answers[which]  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(cuda_library, "load_cudart", lambda: SimpleNamespace(cudaDeviceGetAttribute=attribute))
    assert gpu_architecture() == "sm89" and gpu_architecture(1) is None
