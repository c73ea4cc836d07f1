"""Every example runs as its docstring says, on a small engine with random weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omni2_engine import Engine

from .waiting import SOON

RUNS = {
    "stream_file": ["{engine}", "{question}", "{folder}/answer.wav"],
    "several_turns": ["{engine}", "{question}", "{question}"],
    "barge_in": ["{engine}", "{question}", "{question}"],
    "many_conversations": ["{engine}", "{question}", "3"],
    "with_asyncio": ["{engine}", "{question}", "3"],
    "metrics": ["{engine}", "{question}"],
    "live": ["{engine}", "{speech}", "{speech}"],
    "realtime_openai": ["{server}", "{question}", "{folder}/answer.wav"],
    "realtime_websocket": ["{server}", "{question}"],
}


def test_every_example_is_run(repository: Path) -> None:
    assert {path.stem for path in (repository / "examples").glob("*.py")} == set(RUNS)


@pytest.fixture(scope="module")
def address(tiny_engine: Engine) -> Iterator[str]:
    """Where a server listens."""
    from omni2_serve.engine_host import engine_host
    from omni2_serve.service import Service

    from .serve.running import RunningServer

    server = RunningServer(Service(engine_host(tiny_engine)))
    yield server.address
    server.stop()


@pytest.mark.parametrize("name", RUNS)
def test_an_example(repository: Path, tiny_engine_dir: Path, address: str, tmp_path: Path, name: str) -> None:
    question = tmp_path / "question.wav"
    soundfile.write(question, 0.1 * np.random.default_rng(1).standard_normal(8000), 16_000)
    speech = repository / "examples" / "sum.wav"
    places = {"engine": tiny_engine_dir, "server": address, "question": question, "speech": speech, "folder": tmp_path}
    arguments = [part.format(**places) for part in RUNS[name]]
    script = repository / "examples" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and not done.stderr.replace("omni2_engine", "").count("Traceback")
    if name in ("stream_file", "realtime_openai"):
        assert soundfile.info(tmp_path / "answer.wav").frames > 1000
