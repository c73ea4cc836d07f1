"""A process of its own for one measurement: a JSON request on standard input, one line of JSON on standard output."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

from omni2_engine.errors import Omni2Error


def call(function: str, request: dict[str, Any]) -> Any:
    """Call "module:name" with the request's fields as arguments.

    The module is imported here alone: a second thread pool in the process would slow a measurement down.
    """
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)(**request)


def main() -> None:
    """Serve one request."""
    # prints of libraries go to standard error: standard output carries the answer alone
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    try:
        answer: dict[str, Any] = {"result": call(request["function"], request["request"])}
    except Omni2Error as error:
        answer = {"problem": error.problem, "remedy": error.remedy}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
