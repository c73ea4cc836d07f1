"""The data flow of one turn: which step follows which, how far each stage may run ahead of the next.

Knows counts, not arrays: the engine's turns and the simulation's run on it alike.

    prefill → text token → … → R pairs → read → speech token → … → units → flow → vocoder → sound

The language model goes on while the speech LM writes, that while the flow renders, that while the vocoder does. Every
method is called by the step that has just been done; they may come from several threads at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from omni2_engine.scheduling.chunking import ChunkSchedule

GROUPS_AHEAD = 2  # of R pairs, that the language model may be ahead of the speech LM
CHUNKS_AHEAD = 2  # of the longest kind, that the speech LM may be ahead of the flow


class StageIndex(IntEnum):
    """The scheduler's stages, by their index."""

    ENCODER = 0
    LLM = 1
    SPEECH_LM = 2
    FLOW = 3
    VOCODER = 4


@dataclass(frozen=True, slots=True)
class Prefill:
    """Feed the prompt to the language model and choose `tokens` text tokens, 0 or 1; `wrote` follows."""

    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Decode:
    """Choose at most `tokens` text tokens, one after another; `wrote` follows."""

    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Read:
    """Fuse `pairs` pairs, feed them to the speech LM and choose `tokens` speech tokens, 0 or 1; `heard` and `spoke`
    follow."""

    pairs: int
    final: bool
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Speak:
    """Choose at most `tokens` speech tokens, one after another; `heard` and `spoke` follow."""

    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Render:
    """Let the flow make mel of the next units: `rendering` says how many when its call begins; `rendered` follows."""

    units: int
    final: bool


@dataclass(frozen=True, slots=True)
class Voice:
    """Let the vocoder make sound of the oldest mel; `voiced` follows."""

    final: bool


Step = Prefill | Decode | Read | Speak | Render | Voice
STAGE_OF: dict[type, StageIndex] = {
    Prefill: StageIndex.LLM,
    Decode: StageIndex.LLM,
    Read: StageIndex.SPEECH_LM,
    Speak: StageIndex.SPEECH_LM,
    Render: StageIndex.FLOW,
    Voice: StageIndex.VOCODER,
}


@dataclass(frozen=True, slots=True)
class Bursts:
    """How many tokens each model can be asked for in one step.

    A model that gives one at a time chooses its first with the step that feeds what it goes on from. One that gives
    more leaves that to the burst that follows: then nothing is waited for in between.

    Args:
        text, speech: tokens, ≥ 1; a step never takes more than complete a group of R, or a write of W.
    """

    text: int = 1
    speech: int = 1


class TurnPolicy:
    """One turn while it runs.

    Args:
        read: R, pairs the speech LM reads before each write.
        write: W, speech tokens of each write but the final one.
        chunks: units per flow call.
        submit: queues a step; steps of one stage run in the order they were queued.
        lead: seconds of sound the player has left.
        bursts: tokens of one step.
    """

    def __init__(
        self,
        read: int,
        write: int,
        chunks: ChunkSchedule,
        submit: Callable[[Step], None],
        lead: Callable[[], float],
        bursts: Bursts = Bursts(),
    ) -> None:
        self._read = read
        self._write = write
        self._text = min(bursts.text, read)
        self._speech = min(bursts.speech, write)
        self._chunks = chunks
        self._submit = submit
        self._lead = lead
        self._lock = threading.RLock()
        self._pairs = 0  # since the last group
        self._spoken = 0  # speech tokens of the present write
        self._groups: deque[Read] = deque()  # the speech LM has still to read
        self._text_waits = self._speech_waits = False  # for the stage that follows to catch up
        self._writing: Read | None = None  # the group the speech LM is at
        self._units = 0  # waiting for a call of their own
        self._rendering: deque[int] = deque()  # units of the flow calls that are queued or run
        self._last = 0  # units of the last flow call
        self._all_spoken = self._ended = False

    def begin(self) -> None:
        """Start."""
        self._submit(Prefill(_at_once(self._text)))

    def wrote(self, tokens: int, ended: bool) -> None:
        """So many text tokens were chosen; `ended` if the last of them is the text's."""
        with self._lock:
            self._pairs += tokens
            if ended or self._pairs == self._read:
                self._groups.append(Read(self._pairs, ended, _at_once(self._speech)))
                self._pairs = 0
            self._text_waits = not ended
            self._go_on()

    def heard(self, units: int) -> None:
        """So many further units are certain."""
        with self._lock:
            self._units += units
            self._cut()

    def spoke(self, tokens: int, over: bool) -> None:
        """So many speech tokens were chosen; `over` if this write is finished with them."""
        with self._lock:
            self._spoken += tokens
            if over:
                assert self._writing is not None
                self._all_spoken, self._writing, self._spoken = self._writing.final, None, 0
            self._speech_waits = not over
            self._go_on()

    def rendering(self, call: Render) -> Render:
        """The flow begins a call: what it takes. A growing schedule adds what was spoken while the call was queued."""
        with self._lock:
            if self._chunks.growing:
                more = min(self._units, self._chunks.most - call.units)
                self._units -= more
                self._last += more
                self._rendering[0] += more
                self._ended = self._all_spoken and not self._units
                call = Render(call.units + more, self._ended)
            return call

    def rendered(self, final: bool) -> None:
        """The flow has done its oldest call."""
        with self._lock:
            self._rendering.popleft()
            self._submit(Voice(final))
            self._go_on()

    def voiced(self) -> None:
        """Sound went out, so the lead is another."""
        with self._lock:
            self._go_on()

    def _go_on(self) -> None:
        """Queue what may run now, the stage nearest to the sound first."""
        self._cut()
        if self._units + sum(self._rendering) < CHUNKS_AHEAD * self._chunks.most:
            if self._speech_waits:
                self._speech_waits = False
                self._submit(Speak(self._next_speech()))
            elif self._writing is None and self._groups:
                self._writing = self._groups.popleft()
                self._submit(self._writing)
        if self._text_waits and len(self._groups) < GROUPS_AHEAD:
            self._text_waits = False
            self._submit(Decode(min(self._text, self._read - self._pairs)))

    def _next_speech(self) -> int:
        """Tokens the present write is asked for next; nobody knows how long the final one gets."""
        assert self._writing is not None
        return self._speech if self._writing.final else min(self._speech, self._write - self._spoken)

    def _cut(self) -> None:
        """Queue a flow call if its units are there. A growing schedule decides late: not before the flow is free."""
        chunks = self._chunks
        if self._ended or (chunks.growing and self._rendering):
            return
        if self._all_spoken and not (chunks.growing and self._units > chunks.most):
            self._ended = True
            self._render(self._units, final=True)
        elif self._all_spoken or (self._units and self._units >= chunks.next(self._lead(), self._last)):
            self._render(min(self._units, chunks.most) if chunks.growing else self._units, final=False)

    def _render(self, units: int, final: bool) -> None:
        self._units -= units
        self._last = units
        self._rendering.append(units)
        self._submit(Render(units, final))


def _at_once(burst: int) -> int:
    """Tokens to choose with the step that feeds what they follow from, see `Bursts`."""
    return 1 if burst == 1 else 0
