"""What a worker process runs: one turn of the engine or of the reference, which are imported there alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from omni2_bench.latency.turn import TurnRequest


def answer_turn(**request: Any) -> dict[str, Any]:
    """Run a turn in this process.

    Args:
        request: the fields of a `TurnRequest`.

    Returns:
        The fields of a `TurnResult`.
    """
    asked = TurnRequest(**request)
    if asked.pipeline == "reference":
        from omni2_bench.latency.reference_turn import run as run_reference

        return asdict(run_reference(asked))
    from omni2_bench.latency.engine_turn import run as run_engine

    return asdict(run_engine(asked))
