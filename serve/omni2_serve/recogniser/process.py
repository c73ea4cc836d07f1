"""A recogniser in a process of its own, which takes one stretch of speech at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from omni2_engine.errors import SettingError
from omni2_serve.protocol.errors import SERVER, RequestError
from omni2_serve.recogniser import whisper
from omni2_serve.sound.formats import Floats

MOST_WAITING = 8  # stretches of speech, the one that is heard among them
log = logging.getLogger(__name__)


@dataclass
class Hearing:
    """The process that hears.

    Args:
        executor: of this process alone.
        pid: its id; None until it is loaded.
    """

    executor: ProcessPoolExecutor
    pid: int | None = None

    def loaded(self, loading: Future[int]) -> None:
        """Take the id, unless it could not be loaded."""
        if not loading.cancelled() and loading.exception() is None:
            self.pid = loading.result()


class RecogniserProcess:
    """See `Recogniser`. A process that has died is replaced.

    Args:
        model: a folder of a Whisper model for faster-whisper, or a name that it knows, such as "base.en".
        most_waiting: stretches of speech at most; more are refused.
        niceness: of the process, not below this one's; the highest runs only where nothing else wants the processor.

    Raises:
        SettingError: it cannot be loaded.
    """

    def __init__(self, model: str, most_waiting: int = MOST_WAITING, niceness: int = whisper.LOWEST) -> None:
        self._model = model
        self._niceness = niceness
        self._most_waiting = most_waiting
        self._waiting = 0
        self._hearing = Hearing(_executor())
        try:
            self._hearing.pid = self._hearing.executor.submit(whisper.load, model, niceness).result()
        except Exception as error:
            self._hearing.executor.shutdown()  # which waits for the process: it must not outlive this one
            use = "give a folder that holds a model for faster-whisper, or a name that it can fetch"
            raise SettingError(f"the recogniser {model} cannot be loaded: {str(error)[:200]}", use) from error

    @property
    def name(self) -> str:
        """Of the model: the folder's own, where one was given."""
        return Path(self._model).name

    async def transcribe(self, speech: Floats, language: str | None, prompt: str | None) -> list[str]:
        """See `Recogniser.transcribe`."""
        if self._waiting >= self._most_waiting:
            raise RequestError(
                f"the recogniser has {self._waiting} recordings to hear already",
                "the answer does not depend on it",
                code="recogniser_busy",
                kind=SERVER,
            )
        self._waiting += 1
        hearing = self._hearing
        try:
            heard = hearing.executor.submit(whisper.hear, self._model, speech, language, prompt)
            return await asyncio.wrap_future(heard)
        except BrokenProcessPool:
            if hearing is self._hearing:  # the first of those that waited for it
                self._begin_anew()
            raise RequestError("the recogniser has died", code="recogniser_failed", kind=SERVER) from None
        except ValueError as error:
            raise RequestError(f"the recogniser says: {str(error)[:200]}", code="invalid_value") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the process, also in the middle of a recording, and wait until it is gone."""
        if self._hearing.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._hearing.pid, signal.SIGTERM)
        self._hearing.executor.shutdown(cancel_futures=True)

    def _begin_anew(self) -> None:
        """Put another process in the place of one that has died."""
        log.warning("the recogniser has died, and another is begun")
        self._hearing.executor.shutdown(wait=False)
        self._hearing = begun = Hearing(_executor())
        begun.executor.submit(whisper.load, self._model, self._niceness).add_done_callback(begun.loaded)


def _executor() -> ProcessPoolExecutor:
    """One process, which inherits nothing of this one's threads and locks."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))
