"""Who may come in: keys, short-lived keys for browsers, and the pages that may open a connection."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic, time
from urllib.parse import urlsplit

from omni2_engine.errors import SettingError
from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.session_config import SessionConfig

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
KEY_PROTOCOL = "openai-insecure-api-key."  # how browsers, which can set no header, send a key
REALTIME_PROTOCOL = "realtime"
SHORTEST_KEY = 16  # characters
LEAST_SECONDS, USUAL_SECONDS, MOST_SECONDS = 10, 600, 7200  # that a short-lived key is good for
MOST_SECRETS = 1_000


@dataclass(frozen=True)
class Secret:
    """A short-lived key.

    Args:
        value: "ek_…".
        expires_at: seconds since 1970, for the client to read.
        until: the same by `time.monotonic`, which counts: the time of day may be set meanwhile.
        config: settings of the sessions that it opens.
    """

    value: str
    expires_at: int
    until: float
    config: SessionConfig


@dataclass
class Access:
    """What is asked of who comes in.

    Args:
        keys: one of them is wanted; empty for none.
        hosts: names under which the server may be called; None for all. On loopback this keeps pages out whose name
            was made to point here (DNS rebinding).
        origins: pages that may come in beside the server's own, as "https://example.org".
    """

    keys: Sequence[str] = ()
    hosts: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()
    _secrets: dict[str, Secret] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if any(len(key) < SHORTEST_KEY for key in self.keys):
            raise SettingError(
                "an API key is too short",
                f"use {SHORTEST_KEY} characters or more, such as those of `openssl rand -hex 24`",
            )

    def session(self, key: str | None, config: SessionConfig) -> SessionConfig:
        """Let a client in.

        Args:
            key: that was sent.
            config: settings of a session that no short-lived key has changed.

        Returns:
            Settings to begin a session with: those of the short-lived key, if it was one.

        Raises:
            RequestError: the key is not right.
        """
        secret = self._secrets.get(key) if key is not None else None
        if secret is not None and secret.until > monotonic():
            return secret.config
        self.check(key)
        return config

    def check(self, key: str | None) -> None:
        """Let a client in that may do everything.

        Raises:
            RequestError: the key is not right.
        """
        if not self.keys:
            return
        sent = (key or "").encode()  # compared with all, so that the time it takes tells nothing
        if not any([hmac.compare_digest(sent, known.encode()) for known in self.keys]):
            raise RequestError(
                "the API key is missing or wrong", "send it as `Authorization: Bearer KEY`", code="invalid_api_key"
            )

    def new_secret(self, config: SessionConfig, seconds: int = USUAL_SECONDS) -> Secret:
        """A short-lived key.

        Raises:
            RequestError: there are too many, or the time makes no sense.
        """
        if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
            raise RequestError(
                f"a client secret cannot last {seconds} s",
                f"use {LEAST_SECONDS} to {MOST_SECONDS}",
                code="invalid_value",
                param="expires_after.seconds",
            )
        now = monotonic()
        self._secrets = {value: secret for value, secret in self._secrets.items() if secret.until > now}
        if len(self._secrets) >= MOST_SECRETS:
            raise RequestError("there are too many client secrets", "wait until some expire", code="too_many_secrets")
        secret = Secret(f"ek_{secrets.token_hex(24)}", int(time()) + seconds, now + seconds, config)
        self._secrets[secret.value] = secret
        return secret

    def knows_host(self, host: str) -> bool:
        """Whether a request's `Host` is one of ours."""
        return self.hosts is None or host_name(host) in self.hosts

    def knows_origin(self, origin: str | None, host: str) -> bool:
        """Whether the page that a browser names may come in; programs name none."""
        if origin is None or origin in self.origins:
            return True
        return urlsplit(origin).netloc.lower() == host.lower() != ""


def split_keys(variable: str) -> list[str]:
    """The keys of an environment variable that holds several, with commas between them."""
    return [key for key in variable.split(",") if key]


def host_name(host: str) -> str:
    """The name in a `Host` header, which may end with a port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def sent_key(authorization: str | None, protocols: Iterable[str] = ()) -> str | None:
    """The key that a request carries, in its header or among the subprotocols of a WebSocket."""
    if authorization is not None:
        scheme, _, key = authorization.partition(" ")
        return key.strip() if scheme.lower() == "bearer" else None
    return next((name.removeprefix(KEY_PROTOCOL) for name in protocols if name.startswith(KEY_PROTOCOL)), None)
