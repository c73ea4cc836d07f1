"""One server: its model, bounds, doors and counters, and whether it takes new clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import time
from typing import Any

from omni2_engine.system.log_names import conversation
from omni2_serve.access import Access
from omni2_serve.host import Host
from omni2_serve.limits import ServiceLimits
from omni2_serve.metrics import Metrics
from omni2_serve.protocol.errors import SERVER, RequestError
from omni2_serve.protocol.ids import new_id
from omni2_serve.protocol.session_config import SessionConfig
from omni2_serve.recogniser.base import Recogniser

RETRY_AFTER = 5  # seconds after which one that was not let in may ask again


@dataclass
class Service:
    """What requests share.

    Args:
        host: the model.
        limits: see `ServiceLimits`.
        access: see `Access`.
        metrics: see `Metrics`.
        recogniser: writes down what the user says; None for none.

    Attributes:
        draining: set when the server is to stop: no new client comes in.
        sessions: Realtime sessions that are open.
        requests: chat completions that run.
        began: seconds since 1970.
    """

    host: Host
    limits: ServiceLimits = field(default_factory=ServiceLimits)
    access: Access = field(default_factory=Access)
    metrics: Metrics = field(default_factory=Metrics)
    recogniser: Recogniser | None = None
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    sessions: int = 0
    requests: int = 0
    began: float = field(default_factory=time)

    def config(self) -> SessionConfig:
        """Settings of a new session."""
        config = SessionConfig(model=self.host.name, expires_at=int(time() + self.limits.length))
        return config.updated({}, self.host.voices)

    def changed(self, config: SessionConfig, changes: Mapping[str, Any]) -> SessionConfig:
        """Settings with some of them changed, before a session has begun.

        Raises:
            RequestError: a value makes no sense, or cannot be done.
        """
        name = None if self.recogniser is None else self.recogniser.name
        return config.updated(changes, self.host.voices, recogniser=name)

    def named(self, config: SessionConfig) -> SessionConfig:
        """These settings for one session more."""
        return config.model_copy(update={"id": new_id("sess"), "expires_at": int(time() + self.limits.length)})

    def begun(self, config: SessionConfig) -> SessionConfig:
        """The same for one that begins: what is logged from here on, in this task, has the session's id."""
        config = self.named(config)
        conversation.set(config.id)
        return config

    @contextmanager
    def session(self) -> Iterator[None]:
        """A Realtime session is open.

        Raises:
            RequestError: there is no room for one, or the server is about to stop.
        """
        self._admit(self.sessions, self.limits.sessions)
        self.sessions += 1
        self.metrics.sessions.set(self.sessions)
        try:
            yield
        finally:
            self.sessions -= 1
            self.metrics.sessions.set(self.sessions)

    @contextmanager
    def request(self) -> Iterator[None]:
        """A chat completion runs. Errors as `session`."""
        self._admit(self.requests, self.limits.requests)
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    def _admit(self, there: int, most: int) -> None:
        if self.draining.is_set():
            self.metrics.refused.labels("draining").inc()
            raise RequestError("the server is about to stop", "use another", code="server_stopping", kind=SERVER)
        if there >= most:
            self.metrics.refused.labels("full").inc()
            raise RequestError(
                "the server is full", f"ask again in {RETRY_AFTER} s or more", code="server_full", kind=SERVER
            )
