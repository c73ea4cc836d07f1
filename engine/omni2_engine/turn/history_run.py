"""Earlier turns on their way into the KV cache: what was said is encoded and fed, and behind it what was answered.

    encode → prefill, for one turn after another

A turn that was had elsewhere leaves the same row of items as one that was had here (see `prompt`), so nothing else
needs to be made of it: the speech LM and what follows it begin every turn anew.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.kv_cache import DecoderState
from omni2_engine.stages.pipeline import Pipeline
from omni2_engine.turn.history import History
from omni2_engine.turn.plan import Encode, Prefill
from omni2_engine.turn.prefix import PrefixCache
from omni2_engine.turn.prompt import Exchange, Layout
from omni2_engine.turn.queue import SessionQueue

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FedTurn:
    """One earlier turn.

    Args:
        exchange: the turn.
        waveform: (n,) float32 at 16 kHz, in the encoder's window; None if typed.
        layout: the conversation up to its answer's last token; None where the KV cache is not to hold it.
    """

    exchange: Exchange
    waveform: Floats | None
    layout: Layout | None


class HistoryRun:
    """Feeds earlier turns, a step at a time.

    Args:
        pipeline: the stages.
        prefixes: beginnings of prompts that are prefilled already.
        history: of the conversation; what the KV cache holds grows.
        text_state: the conversation's KV cache.
        system: the system prompt.
        turns: at least one, in their order.
        queue: takes the steps.

    Attributes:
        done: has a result once all is fed, or the exception of a step.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        prefixes: PrefixCache,
        history: History,
        text_state: DecoderState,
        system: str | None,
        turns: list[FedTurn],
        queue: SessionQueue,
    ) -> None:
        self._pipeline = pipeline
        self._prefixes = prefixes
        self._history = history
        self._text_state = text_state
        self._system = system
        self._turns = deque(turns)
        self._queue = queue
        self.done: Future[None] = Future()

    def begin(self) -> None:
        """Submit the first step.

        Raises:
            SessionCancelledError: the session was closed, or cancelled.
        """
        self._queue.submit(Encode() if self._turns[0].waveform is not None else Prefill(0), self)

    def encode(self) -> None:
        """Turn the next question into vectors (positions, hidden) for the prompt."""
        try:
            turn = self._turns[0]
            assert turn.waveform is not None
            turn.exchange.speech = self._pipeline.encoder(self._pipeline.frontend(turn.waveform))
            self._queue.submit(Prefill(0), self)
        except BaseException as error:
            self._end(error)
            raise

    def prefill(self, tokens: int) -> None:
        """Feed the next turn; no token is chosen, and `tokens` is 0."""
        assert not tokens
        try:
            turn = self._turns.popleft()
            if turn.layout is not None:
                history, state = self._history, self._text_state
                reused = history.reuse(turn.layout, state, self._prefixes, self._system)
                history.feed(turn.layout, reused, state, self._pipeline.llm)
            if self._turns:
                self.begin()
            else:
                self._end(None)
        except BaseException as error:
            self._end(error)
            raise

    def _end(self, error: BaseException | None) -> None:
        """Tell who waits, unless that has been given up."""
        if self.done.done() or not self.done.set_running_or_notify_cancel():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
