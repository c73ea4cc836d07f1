"""Garbage collection in a process that does nothing but serve."""

from __future__ import annotations

import gc


def leave_out_what_is_loaded() -> None:
    """Leave the engine, its modules and all else that is there now out of later collections.

    A full collection holds the interpreter lock while it looks at every object. Some 65,000 are loaded, which takes 15
    to 25 ms of a processor, in the middle of other people's answers.
    """
    gc.collect()
    gc.freeze()
