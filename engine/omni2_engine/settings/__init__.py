"""Checks of the settings that users hand in, and the tuning constants that they do not set."""

from omni2_engine.settings.checks import choice, integer, real, shown

__all__ = ["choice", "integer", "real", "shown"]
