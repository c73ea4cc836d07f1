"""Says which extra to install when a command needs packages the engine itself does without."""

from __future__ import annotations

from importlib.util import find_spec

from omni2_engine.errors import BackendError


def require(extra: str, *modules: str) -> None:
    """Check that packages are installed.

    Args:
        extra: the extra of omni2-engine that brings them.
        modules: import names.

    Raises:
        BackendError: one is missing.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise BackendError(f"this needs {', '.join(missing)}", f"install it with `pip install 'omni2-engine[{extra}]'`")
