"""What loads the graphs of an engine on one device."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from omni2_engine.backends.base.graph import Graph
from omni2_engine.backends.base.language_model import LanguageModel
from omni2_engine.backends.cuda.stopwatch import Stopwatch
from omni2_engine.model.config import DecoderConfig
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.model.tables import EmbeddingTable

log = logging.getLogger("omni2_engine.backends")


class Backend(Protocol):
    """Loads graphs on one device.

    Attributes:
        name: of the backend.
        description: its version, and what it runs on, for the log.
        width: calls worth running at the same time; None if every stage has a stream of its own.
        stopwatch: holds the time of every call by the device's clock; None if calls are not timed, or on the CPU.
    """

    name: str
    description: str
    width: int | None
    stopwatch: Stopwatch | None

    def open(self, directory: EngineDirectory, stage: str) -> Graph:
        """Load a stage's graph.

        Raises:
            EngineDirectoryError: its file is missing or damaged, or is for another device.
            BackendError: this backend cannot run it.
        """
        ...

    def has(self, directory: EngineDirectory, stage: str) -> bool:
        """Whether `open` would find a stage's graph: for those that not every engine has."""
        ...

    def language_model(
        self, directory: EngineDirectory, stage: str, config: DecoderConfig, table: EmbeddingTable, sessions: int
    ) -> LanguageModel:
        """Load a language model: its graph, and what keeps its KV caches and chooses its tokens.

        Args:
            directory: holds the graph.
            stage: "llm" or "speech_lm".
            config: its dimensions.
            table: its token embeddings.
            sessions: conversations that share decoding calls.

        Raises:
            EngineDirectoryError, BackendError: as `open`.
            CapacityError: the device has no room for the embeddings.
        """
        ...

    def keep(self, directory: EngineDirectory) -> None:
        """Store in the engine's directory what makes the next start faster; called after the first turn."""
        ...

    def free_memory(self) -> int:
        """Free bytes of the memory that holds state."""
        ...

    def device_memory(self) -> MemoryUse | None:
        """What the backend uses of a device's memory at present; None on the CPU."""
        ...


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of a device's memory: `free` and `total`, and what this process `holds`, by purpose."""

    free: int
    total: int
    holds: Mapping[str, int]


@contextmanager
def logged_load(stage: str, precision: str) -> Iterator[None]:
    """Log that a stage was loaded in the `with` block, its precision and the milliseconds it took."""
    began = perf_counter()
    yield
    log.info("loaded %s (%s) in %.0f ms", stage, precision, 1000 * (perf_counter() - began))
