"""What a turn does next, by counts alone: which step follows which, and how far each stage may run ahead of the next.

    encode → prefill → decode … → R pairs → read → write … → units → flow → vocoder → sound

The language model goes on while the speech LM writes, the speech LM while the flow runs, the flow while the vocoder
does. A plan holds no arrays, threads or clocks: a run tells it what has happened, and gets the steps to submit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum

from omni2_engine.settings.tuning import TURN
from omni2_engine.turn.chunking import ChunkSchedule


class StageIndex(IntEnum):
    """The stages of the pipeline, in the order of the data."""

    ENCODER = 0
    LLM = 1
    SPEECH_LM = 2
    FLOW = 3
    VOCODER = 4


@dataclass(frozen=True, slots=True)
class Encode:
    """Encode the question; `TurnPlan.encoded` follows."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """Feed the prompt to the language model and choose `tokens` text tokens, 0 or 1; `TurnPlan.decoded` follows."""

    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Decode:
    """Choose at most `tokens` text tokens, one after another; `TurnPlan.decoded` follows."""

    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Read:
    """Fuse `pairs` pairs, feed them to the speech LM and choose `tokens` speech tokens, 0 or 1; `TurnPlan.wrote`
    follows. `final`: no text comes after them."""

    pairs: int
    final: bool
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Write:
    """Choose at most `tokens` speech tokens, one after another; `TurnPlan.wrote` follows."""

    tokens: int = 1


@dataclass(frozen=True, slots=True)
class RunFlow:
    """Make mel frames of the next `units`: `TurnPlan.flow_begins` says how many when the call begins, `flow_done`
    follows. `final`: no unit comes after them."""

    units: int
    final: bool


@dataclass(frozen=True, slots=True)
class RunVocoder:
    """Make sound of the oldest mel frames; `TurnPlan.vocoder_done` follows. `final`: none come after them."""

    final: bool


Step = Encode | Prefill | Decode | Read | Write | RunFlow | RunVocoder
STAGE_OF: dict[type, StageIndex] = {
    Encode: StageIndex.ENCODER,
    Prefill: StageIndex.LLM,
    Decode: StageIndex.LLM,
    Read: StageIndex.SPEECH_LM,
    Write: StageIndex.SPEECH_LM,
    RunFlow: StageIndex.FLOW,
    RunVocoder: StageIndex.VOCODER,
}


@dataclass(frozen=True, slots=True)
class TokensPerStep:
    """How many tokens each language model chooses in one step at most.

    A model that chooses one at a time chooses its first in the step that feeds what it goes on from. A model that
    chooses several leaves that to the step that follows: then the host waits for nothing in between.

    Args:
        text, speech: tokens, ≥ 1; a step never takes more than complete a group of R, or a write of W.
    """

    text: int = 1
    speech: int = 1


class TurnPlan:
    """The counts of one turn. Not thread-safe; each method returns the steps to submit, in their order.

    Args:
        read: R, pairs the speech LM reads before each write.
        write: W, speech tokens of each write but the final one.
        chunks: units per flow call.
        tokens: per step.
    """

    def __init__(self, read: int, write: int, chunks: ChunkSchedule, tokens: TokensPerStep = TokensPerStep()) -> None:
        self._read = read
        self._write = write
        self._text = min(tokens.text, read)
        self._speech = min(tokens.speech, write)
        self.chunks = chunks
        self._pairs = 0  # since the last group
        self._written = 0  # speech tokens of the present write
        self._groups: deque[Read] = deque()  # the speech LM has still to read
        self._text_waits = self._speech_waits = False  # for the stage that follows to catch up
        self._writing: Read | None = None  # the group the speech LM is at
        self._units = 0  # waiting for a flow call
        self._flow: deque[int] = deque()  # units of the flow calls that are queued or run
        self._last = 0  # units of the last flow call
        self._all_written = self._ended = False

    def begin(self, spoken: bool) -> list[Step]:
        """Start with a question that was spoken, or typed."""
        return [Encode()] if spoken else self.encoded()

    def encoded(self) -> list[Step]:
        """The question's vectors are there."""
        return [Prefill(_with_its_prompt(self._text))]

    def decoded(self, tokens: int, ended: bool, lead: float) -> list[Step]:
        """Text tokens were chosen.

        Args:
            tokens: their number.
            ended: the last of them ends the text.
            lead: seconds of sound the player has left; as in all methods, only a growing chunk schedule looks at it.
        """
        self._pairs += tokens
        if ended or self._pairs == self._read:
            self._groups.append(Read(self._pairs, ended, _with_its_prompt(self._speech)))
            self._pairs = 0
        self._text_waits = not ended
        return self._next(lead)

    def add_units(self, units: int, lead: float) -> list[Step]:
        """Units became certain."""
        self._units += units
        return self._cut(lead)

    def wrote(self, tokens: int, over: bool, lead: float) -> list[Step]:
        """Speech tokens were chosen; `over`: this write is finished with them."""
        self._written += tokens
        if over:
            assert self._writing is not None
            self._all_written, self._writing, self._written = self._writing.final, None, 0
        self._speech_waits = not over
        return self._next(lead)

    def flow_begins(self, call: RunFlow, lead: float) -> RunFlow:
        """What a flow call takes. A growing schedule adds units that came while the call was queued."""
        if self.chunks.growing:
            more = min(self._units, max(0, self.chunks.room(lead) - call.units))
            self._units -= more
            self._last += more
            self._flow[0] += more
            self._ended = self._all_written and not self._units
            call = RunFlow(call.units + more, self._ended)
        return call

    def flow_done(self, final: bool, lead: float) -> list[Step]:
        """The flow has finished its oldest call."""
        self._flow.popleft()
        return [RunVocoder(final), *self._next(lead)]

    def vocoder_done(self, lead: float) -> list[Step]:
        """Sound went out, which changed the player's lead."""
        return self._next(lead)

    def _next(self, lead: float) -> list[Step]:
        """What may run now, the stage nearest to the sound first."""
        steps = self._cut(lead)
        if self._units + sum(self._flow) < TURN.chunks_ahead * self.chunks.most:
            if self._speech_waits:
                self._speech_waits = False
                steps.append(Write(self._next_speech()))
            elif self._writing is None and self._groups:
                self._writing = self._groups.popleft()
                steps.append(self._writing)
        if self._text_waits and len(self._groups) < TURN.groups_ahead:
            self._text_waits = False
            steps.append(Decode(min(self._text, self._read - self._pairs)))
        return steps

    def _next_speech(self) -> int:
        """Tokens the present write is asked for next; how long the final one gets is not known before its end."""
        assert self._writing is not None
        return self._speech if self._writing.final else min(self._speech, self._write - self._written)

    def _cut(self, lead: float) -> list[Step]:
        """A flow call if its units are there. A growing schedule decides late: not before the flow is free."""
        chunks = self.chunks
        if self._ended or (chunks.growing and self._flow):
            return []
        units = min(self._units, chunks.room(lead)) if chunks.growing else self._units
        if self._all_written:
            self._ended = units == self._units
            return [self._take(units, self._ended)]
        if self._units and self._units >= chunks.next(lead, self._last):
            return [self._take(units, final=False)]
        return []

    def _take(self, units: int, final: bool) -> RunFlow:
        self._units -= units
        self._last = units
        self._flow.append(units)
        return RunFlow(units, final)


def _with_its_prompt(tokens_per_step: int) -> int:
    """Tokens to choose in the step that feeds what they follow from, see `TokensPerStep`."""
    return 1 if tokens_per_step == 1 else 0
