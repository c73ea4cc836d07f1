"""Whisper through faster-whisper, in a process of its own: what that process runs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

LOWEST = 19  # niceness: it runs where no other process wants the processor
THREADS = "/proc/self/task"  # on Linux each thread has a niceness of its own


def load(model: str, niceness: int) -> int:
    """Load the model and hear a second of silence, so that the first speech is not the slowest; then give way.

    Args:
        model: a folder, or a name that faster-whisper knows, which it fetches where it has not before.
        niceness: of all that is heard from now on; on Windows the priority stays.

    Returns:
        The id of this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the server, which ends this process
    threading.Thread(target=_end_with_server, daemon=True).start()
    hear(model, np.zeros(16_000, np.float32), None, None)
    if sys.platform != "win32":
        threads = os.listdir(THREADS) if os.path.isdir(THREADS) else ["0"]
        for thread in threads:
            os.setpriority(os.PRIO_PROCESS, int(thread), niceness)
    return os.getpid()


def hear(model: str, speech: NDArray[np.float32], language: str | None, prompt: str | None) -> list[str]:
    """See `Recogniser.transcribe`.

    Raises:
        ValueError: the model does not know the language.
    """
    segments, _ = _model(model).transcribe(
        speech,
        beam_size=1,
        language=language,
        initial_prompt=prompt,
        condition_on_previous_text=False,
        without_timestamps=True,
    )
    return [segment.text for segment in segments]


def _end_with_server() -> None:
    """A server that is killed can end nothing itself."""
    server = multiprocessing.parent_process()
    assert server is not None
    server.join()
    os._exit(1)


@cache
def _model(model: str) -> WhisperModel:
    from faster_whisper import WhisperModel

    return WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=1)
