"""Memory of conversations and turns: slots of shared caches where there are some, all accounted before it is taken."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.kv_cache import DecoderState, SlotCache
from omni2_engine.backends.base.language_model import LanguageModel
from omni2_engine.errors import CapacityError
from omni2_engine.memory.budget import Admission, MemoryBudget
from omni2_engine.settings.tuning import MEMORY
from omni2_engine.stages.speech_decoder import SpeechDecoder, SpeechState
from omni2_engine.system import waits
from omni2_engine.system.waits import Waits

Floats = NDArray[np.float32]
log = logging.getLogger("omni2_engine.memory")
GiveUp = Callable[[], Future[None]]  # have a prepared turn taken back; done when its memory is


@dataclass
class Conversation:
    """What a session keeps between turns: its language model's `state`, and `promised` bytes of the budget."""

    state: DecoderState
    promised: int


@dataclass(eq=False)
class TurnStates:
    """What a turn needs besides.

    Attributes:
        speech: the speech LM's, empty.
        decoder: flow and vocoder.
        seconds: of sound at most.
        left_context: seconds the flow looks back on.
        promised: bytes of the budget.
    """

    speech: DecoderState
    decoder: SpeechState
    seconds: float
    left_context: float
    promised: int


class StatePool:
    """Makes and takes back states.

    The decoder state that came back last is kept with its memory: the next turn's first chunk need not wait until the
    system has found some. Its bytes count when it is used again; until then it goes as soon as others need them.

    A prepared turn, which may never be asked for, gets only what is left over: nothing while others are being let in,
    and it is taken back when they need its memory.

    Args:
        llm, speech_lm, decoder: the stages.
        sessions: conversations whose decoding shares calls; more may be open, in caches of their own.
        context: positions of a conversation.
        speech_positions: of a turn's speech that shared slots have room for.
        budget: bytes for all states together.
        admission: what happens to one for whom there is no room.
    """

    def __init__(
        self,
        llm: LanguageModel,
        speech_lm: LanguageModel,
        decoder: SpeechDecoder,
        sessions: int,
        context: int,
        speech_positions: int,
        budget: MemoryBudget,
        admission: Admission,
    ) -> None:
        self._llm = llm
        self._speech_lm = speech_lm
        self._decoder = decoder
        self._context = context
        self.budget = budget
        self._admission = admission
        self._conversations = llm.new_cache(sessions, context)
        self._speeches = speech_lm.new_cache(sessions, speech_positions)
        self._reserved = 0  # bytes that conversations leave for turns: if all held some and waited, none would end
        if admission is Admission.WAIT:
            turn = self._turn_sizes(speech_positions, speech_positions / decoder.flow.units_config.unit_rate)[1]
            self._reserved = min(turn, budget.limit - self._conversations.slot_nbytes)
        self._lasting = MemoryBudget(budget.limit - self._reserved)
        self._idle: TurnStates | None = None
        self._open = self._running = self._asking = 0
        self._prepared: dict[TurnStates, GiveUp] = {}  # in the order in which they began
        self._lock = threading.RLock()  # garbage collection may close a dropped session at any moment, in here too

    def warm_up(self) -> None:
        """Prepare the shared caches, before any of their slots is taken."""
        self._llm.warm_up(self._conversations)
        self._speech_lm.warm_up(self._speeches, in_groups=True)

    @property
    def shared_sessions(self) -> int:
        """Conversations whose decoding shares calls."""
        return self._conversations.slots

    @property
    def waits(self) -> bool:
        """Whether `open` and `begin` wait for room."""
        return self._admission is Admission.WAIT

    def open(self) -> Waits[Conversation]:
        """Room for a conversation.

        Raises:
            CapacityError: there is none; with "wait" only if there never will be.
        """
        with self._being_asked():
            size = self._conversations.slot_nbytes
            short = size > self._lasting.free or size > self.budget.free
            yield from self._make_room(math.inf if short else 0, self.waits)
            return (yield from self._open_now(self.waits))

    def open_left_over(self) -> Conversation | None:
        """Room for the conversation of a prepared turn; None if there is none left over."""
        with self._lock:
            try:
                return None if self._asking else waits.run(self._open_now(wait=False))
            except CapacityError:
                return None

    def _open_now(self, wait: bool) -> Waits[Conversation]:
        """`open`; with `wait` it waits for room."""
        size = self._conversations.slot_nbytes
        promised = yield from self._lasting.take(size, size, wait)
        with self._lasting.undone_on_error(promised):
            yield from self.budget.take(size, size, wait)
            with self.budget.undone_on_error(promised):
                state = self._slot(self._conversations, self._llm, self._context)
        with self._lock:
            self._open += 1
            if self._idle is not None and self._idle.promised > self.budget.free:
                self._idle = None
        return Conversation(state, promised)

    def close(self, conversation: Conversation) -> None:
        """Take a conversation's memory back."""
        conversation.state.release()
        self.budget.give_back(conversation.promised)
        self._lasting.give_back(conversation.promised)
        with self._lock:
            self._open -= 1

    def begin(self, speaker: Floats, positions: int, seconds: float) -> Waits[TurnStates]:
        """Room for a turn.

        Args:
            speaker: (1, mel) float32, see `Flow.speaker_features`.
            positions: of the speech LM at most.
            seconds: of sound at most.

        Raises:
            CapacityError: as in `open`; with "wait" also if a turn is longer than what is kept free for one.
        """
        least, full = self._turn_sizes(positions, seconds)
        with self._being_asked():
            promised = yield from self._admit(least, full)
        return self._new_states(speaker, positions, seconds, promised)

    def begin_left_over(self, speaker: Floats, positions: int, seconds: float, give_up: GiveUp) -> TurnStates | None:
        """Room for a prepared turn; None if there is none left over.

        Args:
            speaker, positions, seconds: see `begin`.
            give_up: called, once, when others need the memory; from any thread, and without waiting.
        """
        least, full = self._turn_sizes(positions, seconds)
        with self._lock:
            if self._asking:
                return None
            most = min(full, self.budget.free - self._for_others(least))
            if most < least:
                return None
            promised = waits.run(self.budget.take(most, least, wait=False))
            self._running += 1
            states = self._new_states(speaker, positions, seconds, promised)
            self._prepared[states] = give_up
            return states

    def keep(self, states: TurnStates) -> None:
        """A prepared turn was asked for: its memory is its own from now on."""
        with self._lock:
            self._prepared.pop(states, None)

    def _new_states(self, speaker: Floats, positions: int, seconds: float, promised: int) -> TurnStates:
        """A turn's states within the bytes promised."""
        try:
            left_context = self._fitting(promised - self._speech_size(positions), seconds)
            if left_context < self._decoder.flow.left_context:
                log.info(
                    "left context of a turn shortened from %g to %g s for lack of memory",
                    self._decoder.flow.left_context,
                    left_context,
                )
            decoder = self._decoder_state(speaker, seconds, left_context)
            speech = self._slot(self._speeches, self._speech_lm, positions)
            return TurnStates(speech, decoder, seconds, left_context, promised)
        except BaseException:
            self._leave(promised)
            raise

    def end(self, states: TurnStates) -> None:
        """Take a turn's memory back. No step of it runs."""
        states.speech.release()
        with self._lock:
            self._prepared.pop(states, None)
            self._idle = states
        self._leave(states.promised)

    def key(self, state: DecoderState) -> int:
        """States with one key can be decoded together; 0 is of those that can not."""
        shared = [self._conversations, self._speeches]
        return shared.index(state.cache) + 1 if state.cache in shared else 0

    def _admit(self, least: int, full: int) -> Waits[int]:
        """Promise a turn its bytes, from `least` to `full`."""
        wait = self.waits and full <= self._reserved
        with self._lock:
            lacking = full + self._for_others(least) - self.budget.free
        yield from self._make_room(lacking, wait)
        if self._admission is not Admission.SHORTEN:
            promised = yield from self.budget.take(full, full, wait)
            with self._lock:
                self._running += 1
            return promised
        with self._lock:  # or two at once might take what is meant for a third
            most = max(least, min(full, self.budget.free - self._for_others(least)))
            promised = yield from self.budget.take(most, least, wait=False)
            self._running += 1
        return promised

    def _for_others(self, least: int) -> int:
        """Bytes that shall be left for the turns of other conversations, where turns are shortened."""
        return max(self._open - self._running - 1, 0) * least if self._admission is Admission.SHORTEN else 0

    @contextmanager
    def _being_asked(self) -> Iterator[None]:
        """A conversation or a committed turn is being let in; lasts as long as it waits."""
        with self._lock:
            self._asking += 1
        try:
            yield
        except CapacityError as error:
            log.info("refused for lack of memory: %s", error.problem)
            raise
        finally:
            with self._lock:
                self._asking -= 1

    def _make_room(self, lacking: float, waits_anyway: bool) -> Waits[None]:
        """Have prepared turns taken back, the last one first, until they give as many bytes as are lacking.

        Args:
            lacking: bytes.
            waits_anyway: who lacks them goes on to wait for them in the budget, in the order of arrival.
        """
        given_up = []
        with self._lock:
            if self.budget.waiting:
                lacking = math.inf
            while lacking > 0 and self._prepared:
                states, give_up = self._prepared.popitem()
                lacking -= states.promised
                given_up.append(give_up)
        if given_up:
            log.info("%d prepared turns taken back, others need their memory", len(given_up))
        gone = [give_up() for give_up in given_up]
        if not waits_anyway:
            yield from gone

    def _leave(self, promised: int) -> None:
        self.budget.give_back(promised)
        with self._lock:
            self._running -= 1

    def _turn_sizes(self, positions: int, seconds: float) -> tuple[int, int]:
        """Bytes a turn needs at least, and for all of its left context."""
        flow, speech = self._decoder.flow, self._speech_size(positions)
        full = speech + flow.nbytes(seconds)
        if self._admission is not Admission.SHORTEN:
            return full, full
        return speech + flow.nbytes(seconds, min(MEMORY.least_context, flow.left_context)), full

    def _speech_size(self, positions: int) -> int:
        """Bytes of this number of positions of the speech LM."""
        return positions * self._speeches.slot_nbytes // self._speeches.positions

    def _fitting(self, size: int, seconds: float) -> float:
        """The longest left context, in whole blocks, whose caches fit in this number of bytes."""
        flow = self._decoder.flow
        block = flow.units_config.block_units / flow.units_config.unit_rate
        context = flow.left_context
        while flow.nbytes(seconds, context) > size and context > block:
            context -= block
        return context

    def _decoder_state(self, speaker: Floats, seconds: float, left_context: float) -> SpeechState:
        """The idle one if it fits, which means that it has not filled more than is promised now; else a new one."""
        with self._lock:
            idle, self._idle = self._idle, None
        if idle is None or idle.left_context != left_context or idle.seconds > seconds:
            return self._decoder.new_state(speaker, left_context)
        self._decoder.reset(idle.decoder, speaker)
        return idle.decoder

    def _slot(self, cache: SlotCache, model: LanguageModel, positions: int) -> DecoderState:
        """A slot of the shared cache if one is free and long enough, else a cache of its own."""
        with self._lock:
            if cache.free and positions <= cache.capacity:
                return cache.acquire()
        return model.new_state(positions)
