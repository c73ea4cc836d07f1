"""The user's sound on its way into the conversation: bounded, committed, cleared."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from omni2_engine.errors import CapacityError
from omni2_serve.limits import ServiceLimits
from omni2_serve.protocol import client_events as client
from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.items import Item
from omni2_serve.realtime.conversation import SessionConversation
from omni2_serve.realtime.state import PendingCommit, RealtimeState
from omni2_serve.sound.formats import Floats, from_base64
from omni2_serve.sound.pace import Pace

PER_MS = 16  # positions of a conversation in a millisecond
LEAST_COMMIT = 0.1  # seconds of sound in a message
log = logging.getLogger(__name__)


class InputBuffer:
    """See `input_audio_buffer` of the interface.

    Args:
        limits: see `ServiceLimits`.
        state: of the session.
        conversation: hears the sound.

    Attributes:
        pace: how fast sound may come.
    """

    def __init__(self, limits: ServiceLimits, state: RealtimeState, conversation: SessionConversation) -> None:
        self.pace = Pace(limits.ahead)
        self._limits, self._state, self._conversation = limits, state, conversation
        self._fed = 0.0  # seconds of sound

    def append(self, event: client.AudioAppend) -> None:
        """Sound of an event.

        Raises:
            RequestError: it is too much.
        """
        state, limits = self._state, self._limits
        source = state.config.audio.input.format.format
        data = from_base64(event.audio)
        seconds = source.seconds(len(data))
        if seconds > limits.append:
            raise RequestError(
                f"the event holds {seconds:.0f} s of sound",
                f"send at most {limits.append:g} s in one",
                code="invalid_value",
                param="audio",
            )
        if state.config.detection is None and state.uncommitted + seconds > limits.uncommitted:
            raise RequestError(
                f"more than {limits.uncommitted:g} s of sound are not committed",
                "commit or clear them first",
                code="input_audio_buffer_full",
                param="audio",
            )
        self._feed(source.decode(data), source.rate)

    def hear(self, samples: Floats, rate: int) -> None:
        """Sound that comes by itself; what is beyond the bounds is left out.

        Args:
            samples: (n,) in ±1.
            rate: of the samples, Hz.
        """
        kept = self._state.config.detection is not None or self._state.uncommitted < self._limits.uncommitted
        if kept and self.pace.wait() <= 0:
            self._feed(samples, rate)

    def commit(self, event: client.AudioCommit) -> None:
        """What was appended is a message.

        Raises:
            RequestError: it is too little.
        """
        state = self._state
        if state.uncommitted < LEAST_COMMIT and state.speaking is None:
            raise RequestError(
                f"the input audio buffer holds {1000 * state.uncommitted:.0f} ms of sound",
                f"append at least {1000 * LEAST_COMMIT:.0f} ms before it is committed",
                code="input_audio_buffer_commit_empty",
            )
        state.pending.append(PendingCommit(event.event_id, later=state.owed is not None))
        self._conversation.open().commit()
        state.uncommitted = 0.0

    def clear(self) -> None:
        """Forget what was appended."""
        if self._conversation.current is not None:
            self._conversation.current.clear()
        self._state.uncommitted, self._state.speaking = 0.0, None

    def begin_anew(self) -> None:
        """The conversation was closed: the next one has heard nothing."""
        self._fed, self._state.uncommitted, self._state.speaking = 0.0, 0.0, None

    def samples(self, pieces: Sequence[str]) -> Floats:
        """The sound of a client's item, (n,) in ±1 at the rate of the session's input.

        Args:
            pieces: base64.

        Raises:
            RequestError: it is too short or too long.
        """
        if not pieces:
            return np.zeros(0, np.float32)
        source = self._state.config.audio.input.format.format
        samples = np.concatenate([source.decode(from_base64(piece)) for piece in pieces])
        seconds = len(samples) / source.rate
        if not LEAST_COMMIT <= seconds <= self._limits.append:
            raise RequestError(
                f"the item holds {seconds:.1f} s of sound",
                f"use {LEAST_COMMIT:g} to {self._limits.append:g} s",
                code="invalid_value",
                param="item.content",
            )
        return samples

    def commit_item(self, samples: Floats, event_id: str | None, item: Item) -> None:
        """A message that was spoken elsewhere: turn detection does not hear it.

        Args:
            samples: from `samples`.
            event_id: of the client's event.
            item: that it becomes.
        """
        conversation, self._state.speaking = self._conversation.open(), None
        conversation.clear()
        conversation.update(detection=None)
        since = int(1000 * PER_MS * self._fed)
        self._feed(samples, self._state.config.audio.input.format.format.rate)
        self._state.pending.append(PendingCommit(event_id, item, since))
        conversation.commit()
        conversation.update(detection=self._conversation.detection)
        self._state.uncommitted = 0.0

    def _feed(self, samples: Floats, rate: int) -> None:
        if len(samples):
            conversation = self._conversation.open()
            if conversation.unheard > self._limits.unheard:
                problem, remedy = "the sound of all conversations cannot be heard in time", "use fewer --sessions"
                log.warning("a session ends: %s: %s", problem, remedy)
                raise CapacityError(problem, remedy)
            conversation.feed(samples, rate)
            seconds = len(samples) / rate
            self._fed += seconds
            self._state.uncommitted += seconds
            self.pace.add(seconds)
