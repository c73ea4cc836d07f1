"""A process of its own for one measurement: a JSON request on standard input, one line of JSON on standard output."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from omni2_bench.turn import TurnRequest
from omni2_engine.errors import Omni2Error


def perform(task: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run one task; each imports only what it needs, as a second thread pool in the process would slow it down."""
    if task == "turn":
        turn = TurnRequest(**request)
        if turn.pipeline == "reference":
            from omni2_bench.reference_run import run as run_reference

            return asdict(run_reference(turn))
        from omni2_bench.engine_run import run as run_engine

        return asdict(run_engine(turn))
    if task == "rate":
        from omni2_bench.rates import measure

        return measure(**request)
    if task == "batching":
        from omni2_bench.decode_times import measure_batching

        return measure_batching(**request)
    from omni2_bench.stage_times import measure_stages

    return measure_stages(**request)


def main() -> None:
    """Serve one request."""
    # whatever libraries print goes to standard error: standard output carries the answer alone
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    try:
        answer: dict[str, Any] = {"result": perform(request["task"], request["request"])}
    except Omni2Error as error:
        answer = {"problem": error.problem, "remedy": error.remedy}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
