"""Ports for programs that cannot say which one the system gave them."""

from __future__ import annotations

import random
import socket

RANGE = range(15_000, 30_000)  # below those that systems give away by themselves, of which another test may get one


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    while True:
        port = random.SystemRandom().choice(RANGE)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:  # it is taken
                continue
            return port
