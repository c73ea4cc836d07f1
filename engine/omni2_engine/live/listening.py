"""The thread that hears for all live conversations: windows of several go into one call of the voice detector."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from omni2_engine.live.detection.base import Floats, SentenceEnd, VoiceActivity
from omni2_engine.live.input import LiveInput
from omni2_engine.system.log_names import CarryingExecutor

log = logging.getLogger("omni2_engine.live")


class ListeningThread:
    """Takes in what conversations were fed. It begins with the first input and ends when the last one is gone.

    Args:
        voice: the voice detector, shared by all conversations.
    """

    def __init__(self, voice: VoiceActivity) -> None:
        self._voice = voice
        self._inputs: list[LiveInput] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._judging = CarryingExecutor(1, thread_name_prefix="omni2-judging")  # its thread begins with the first

    def attach(self, make: Callable[[object], LiveInput]) -> LiveInput:
        """Hear for another conversation.

        Args:
            make: makes its input from the state of the voice detector before the first window.
        """
        added = make(self._voice.begin())
        with self._changed:
            self._inputs = [*self._inputs, added]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="omni2-listening", daemon=True)
                self._thread.start()
        return added

    def detach(self, gone: LiveInput) -> None:
        """Hear for it no more."""
        with self._changed:
            self._inputs = [one for one in self._inputs if one is not gone]
            self._changed.notify()

    def wake(self) -> None:
        """An input was added to."""
        with self._changed:
            self._changed.notify()

    def judge(self, sentence_end: SentenceEnd, speech: Floats, told: Callable[[bool], None]) -> None:
        """Have a pause judged on another thread, so that no other conversation waits for that.

        Args:
            sentence_end: the model.
            speech: of the turn so far.
            told: is told whether it is over; not, where the model fails.
        """

        def work() -> None:
            try:
                is_over = sentence_end(speech)
            except Exception:
                log.exception("a pause could not be judged")
                is_over = False
            told(is_over)
            self.wake()

        with suppress(RuntimeError):  # closed: there is no conversation any more
            self._judging.submit(work)

    def close(self) -> None:
        """Hear for none any more."""
        self._judging.shutdown(wait=False, cancel_futures=True)
        with self._changed:
            self._inputs = []
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._inputs or any(one.waiting for one in self._inputs))
                if not self._inputs:
                    self._thread = None
                    return
                inputs = self._inputs
            hear_next(self._voice, inputs)


def hear_next(voice: VoiceActivity, inputs: list[LiveInput]) -> bool:
    """Let inputs hear their next window each, in one call.

    Returns:
        Whether any had one.
    """
    due = [one for one in inputs if one.due()]
    if due:
        probabilities, states = voice([one.window() for one in due], [one.voice for one in due])
        for one, probability, state in zip(due, probabilities, states, strict=True):
            one.hear(probability, state)
    return bool(due)
