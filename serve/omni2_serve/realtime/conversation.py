"""The live conversation behind a session."""

from __future__ import annotations

from omni2_engine.live.conversation import LiveConversation
from omni2_engine.live.settings import Detection
from omni2_serve.host import Host
from omni2_serve.realtime.detection import detection_of
from omni2_serve.realtime.state import RealtimeState
from omni2_serve.threads import on_a_thread


class SessionConversation:
    """Begins with its first use, since a client sets voice and instructions first.

    Args:
        host: the model.
        state: of the session.

    Attributes:
        current: None before it has begun.
    """

    def __init__(self, host: Host, state: RealtimeState) -> None:
        self.current: LiveConversation | None = None
        self._host, self._state = host, state

    def open(self) -> LiveConversation:
        """The conversation; it begins now if it has not.

        Raises:
            CapacityError: there is no room for one.
        """
        if self.current is None:
            config = self._state.config
            self.current = self._host.open(config.audio.output.voice, self.detection, self._state.system(config))
        return self.current

    @property
    def detection(self) -> Detection | None:
        """The session's turn detection in the engine's terms."""
        return detection_of(self._state.config.detection, self._host.soft_end)

    def update(self) -> None:
        """Settings or system items have changed."""
        if self.current is not None:
            self.current.update(detection=self.detection, system=self._state.system(self._state.config))

    def update_system(self) -> None:
        """System items have changed, or were answered."""
        if self.current is not None:
            self.current.update(system=self._state.system(self._state.config))

    async def close(self) -> None:
        """Give back what it holds of the engine; its events end. Another may be opened."""
        conversation, self.current = self.current, None
        if conversation is not None:
            await on_a_thread(conversation.close)
