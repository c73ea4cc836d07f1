"""Names of sessions, items, responses and events."""

from __future__ import annotations

import secrets

LONGEST = 512  # characters that a client may give one of its own
BYTES = 12  # of randomness


def new_id(kind: str) -> str:
    """A name that no other object has: "item_3f…" for the kind "item"."""
    return f"{kind}_{secrets.token_hex(BYTES)}"
