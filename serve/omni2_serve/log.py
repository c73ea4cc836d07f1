"""The log of a server's process."""

from __future__ import annotations

import logging

from omni2_engine.system.log_names import NamesConversation


def write_log() -> None:
    """To standard error, with the conversation that each line belongs to; handlers that are set up already stay."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(conversation)s %(name)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(NamesConversation())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("omni2_engine.turn").setLevel(logging.WARNING)
