"""Finds TensorRT: mainline `tensorrt` where it is installed, `tensorrt_rtx` otherwise, and hides what differs.

Both have the same Python interface for networks, parsing, profiles and execution. TensorRT-RTX compiles a plan's
kernels on the user's machine: it builds for any architecture, without a GPU, and keeps what it compiled in a runtime
cache. Mainline TensorRT times kernels: it builds on the very GPU that a plan is for, and has a timing cache alone.
"""

from __future__ import annotations

import importlib
import logging
import threading
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from omni2_engine.backends.cuda.library import INSTALL, load_cudart
from omni2_engine.errors import BackendError

MAINLINE, RTX = "tensorrt", "tensorrt_rtx"  # flavours, each the name of its Python package
KEPT_MESSAGES = 64  # of all threads, until they try something new
LISTING = "Layers:"  # what the builder's list of kernels begins with

log = logging.getLogger("omni2_engine.backends")


@dataclass(frozen=True)
class TensorRt:
    """The TensorRT found on this machine.

    Args:
        module: the Python package; untyped, as neither has type information.
        flavour: MAINLINE or RTX.
        version: of the package, such as "1.7.1.116".
        logger: the one logger of this process (TensorRT ignores every other); `messages` holds what TensorRT reported.
    """

    module: Any
    flavour: str
    version: str
    logger: Any

    @property
    def builds_for_other_gpus(self) -> bool:
        """Whether plans can be built for an architecture that is not the present GPU's, or without any GPU."""
        return self.flavour == RTX

    def runtime_cache(self, engine: Any, stored: bytes | None = None) -> Any:
        """A cache of the kernels that TensorRT-RTX compiles for an engine; None for mainline TensorRT, which has none.

        Args:
            engine: `ICudaEngine`.
            stored: what `serialize()` gave in an earlier process; if it does not fit this machine it is ignored.
        """
        if self.flavour != RTX:
            return None
        made = engine.create_runtime_config().create_runtime_cache()
        if stored and not made.deserialize(stored):
            log.info("the runtime cache is of another GPU, driver or TensorRT, and is made anew")
        return made

    def can_record(self, context: Any, stream: int) -> bool:
        """Whether calls of a context can be recorded on a stream; mainline TensorRT only says so when it is tried."""
        return self.flavour != RTX or bool(context.is_stream_capturable(stream))

    def context(self, engine: Any, *, few_shapes: bool, runtime_cache: Any = None) -> Any:
        """An execution context of a deserialized engine; it must be given its working memory before a call.

        Graphs are captured by the caller, so TensorRT-RTX is kept from capturing its own.

        Args:
            engine: `ICudaEngine`.
            few_shapes: calls will have few shapes, or be captured: kernels are compiled for each at once. Otherwise
                those for any shape serve for good. To compile beside the first calls is refused: two kernels sum in two
                orders, so one seed would give another answer once the new one is there.
            runtime_cache: that it takes kernels from and fills; all contexts of an engine share one.

        Raises:
            BackendError: the context cannot be made, mostly for lack of device memory.
        """
        strategy = self.module.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.flavour == RTX:
            config = engine.create_runtime_config()
            if runtime_cache is not None:
                config.set_runtime_cache(runtime_cache)
            config.cuda_graph_strategy = self.module.CudaGraphStrategy.DISABLED
            strategies = self.module.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER if few_shapes else strategies.NONE
            config.set_execution_context_allocation_strategy(strategy)
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context(strategy)
        if context is None:
            raise BackendError(
                f"{self.flavour} cannot make an execution context for a plan",
                "free device memory, or admit fewer sessions",
            )
        return context


class Messages:
    """The errors TensorRT has reported, the first of each thread's: stages share the logger, not their errors.

    TensorRT reports on the thread that calls it, and on threads of its own. A stage that has no error of its own is
    told the first of those.

    Attributes:
        listing: the kernels of the plan that was built last, where the builder was asked for details.
    """

    def __init__(self) -> None:
        self.listing = ""
        self._caller = threading.local()  # has a `mark` in threads that call TensorRT
        self._errors: list[tuple[object | None, str]] = []  # (mark of the thread, what it was told)

    def add(self, error: str) -> None:
        """Keep an error, as long as there is room."""
        if len(self._errors) < KEPT_MESSAGES:
            self._errors.append((self._mark, error))

    def clear(self) -> None:
        """Forget what concerns this thread, before it tries something new."""
        if self._mark is None:
            self._caller.mark = object()
        self._errors = [(mark, error) for mark, error in self._errors if mark not in (None, self._mark)]
        self.listing = ""

    def reason(self) -> str:
        """The first error of a call of this thread in one line; empty if there was none."""
        own = [error for mark, error in self._errors if mark is self._mark]
        found = own or [error for mark, error in self._errors if mark is None]
        return " ".join(found[0].split()) if found else ""

    @property
    def _mark(self) -> object | None:
        return getattr(self._caller, "mark", None)


@cache
def find_tensorrt() -> TensorRt:
    """The TensorRT installed here.

    Raises:
        BackendError: neither flavour is installed, or the one found cannot be loaded.
    """
    flavour = next((name for name in (MAINLINE, RTX) if find_spec(name) is not None), None)
    if flavour is None:
        raise BackendError("TensorRT is not installed", INSTALL)
    load_cudart()
    try:
        module = importlib.import_module(flavour)
    except (ImportError, OSError) as error:
        raise BackendError(f"{flavour} is installed but cannot be loaded: {error}", INSTALL) from error
    return TensorRt(module, flavour, str(module.__version__), new_logger(module))


def new_logger(module: Any) -> Any:
    """A logger for a TensorRT module, see `TensorRt.logger`."""
    errors = (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR)

    class Logger(module.ILogger):  # type: ignore[misc]
        """Passes messages of TensorRT on at debug level: what a user must know is in the error that follows."""

        def __init__(self) -> None:
            super().__init__()
            self.messages = Messages()

        def log(self, severity: Any, message: str) -> None:
            if severity in errors:
                self.messages.add(message)
            if severity != module.ILogger.VERBOSE:
                log.debug("%s", message)
            elif message.startswith(LISTING):
                self.messages.listing = message

    return Logger()
