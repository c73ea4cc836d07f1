"""The errors a user may meet: each says in one sentence what is wrong and what to do about it."""

from __future__ import annotations

from omni2_engine._core import raise_cuda_errors_as


class Omni2Error(Exception):
    """Base of every error this project raises on purpose.

    Args:
        problem: what is wrong, one clause, with the offending name or value in it.
        remedy: what the user can do about it, one clause; empty where nothing can be done.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} — {remedy}" if remedy else problem)


class CheckpointError(Omni2Error):
    """A checkpoint is missing, truncated, of another shape or of a kind we do not know."""


class EngineDirectoryError(Omni2Error):
    """An engine directory is missing, incomplete, corrupt, or written by another version."""


class AudioError(Omni2Error):
    """Input audio cannot be used, or output audio cannot be written."""


class BackendError(Omni2Error):
    """The machine or its installed packages cannot run what was asked for."""


class SettingError(Omni2Error, ValueError):
    """An option or argument has a value that makes no sense here."""


class ContextError(Omni2Error):
    """A turn does not fit the language model's context."""


class CapacityError(Omni2Error):
    """The engine holds as many conversations as it has room for."""


class BusyError(CapacityError):
    """The engine has more turns to answer than it can in time.

    Args:
        problem: see `Omni2Error`.
        retry_after: seconds after which a turn is likely to be answered at once.
    """

    def __init__(self, problem: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(problem, f"ask again in {retry_after:.1f} s")


raise_cuda_errors_as(BackendError, out_of_memory=CapacityError)
