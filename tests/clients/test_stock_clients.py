"""Clients from PyPI and npm, unmodified: each talks, and fails by itself where something is not as it expects."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LONGEST = 150  # seconds


def from_npm(script: Path, repository: Path) -> list[str]:
    """The command that runs a script; node looks for packages beside it."""
    home = repository / "build" / "clients" / "agents"
    if not (home / "node_modules").is_dir():
        pytest.skip("npm has installed nothing here; make test-clients does where npm is")
    return ["node", str(shutil.copy(script, home))]


@pytest.mark.parametrize("client", ["openai", "agents", "pipecat", "livekit"])
def test_a_stock_client_talks(client: str, address: str, recording: Path, repository: Path) -> None:
    home = repository / "build" / "clients"
    if client == "agents":
        command = from_npm(HERE / "agents_client.mjs", repository)
    else:
        command = [str(home / client / "bin" / "python"), str(HERE / f"{client}_client.py")]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }
    done = subprocess.run(
        [*command, address, str(recording)], env=environment, capture_output=True, text=True, timeout=LONGEST
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


def test_the_example_of_the_agents_sdk(address: str, repository: Path) -> None:
    command = from_npm(repository / "examples" / "realtime_agents.mjs", repository)
    done = subprocess.run(
        [*command, address, "What is seven plus five?"], capture_output=True, text=True, timeout=LONGEST
    )
    assert done.returncode == 0 and "ms of sound" in done.stdout, done.stdout + done.stderr
