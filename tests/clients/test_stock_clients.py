"""Clients from PyPI and npm, unmodified: each talks, and fails by itself where something is not as it expects."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ..waiting import SOON

HERE = Path(__file__).parent
LAST = 5000  # characters of what a client printed that a failure shows


def home(client: str, repository: Path) -> Path:
    """The folder of an installed client, or skip."""
    folder = repository / "build" / "clients" / client
    if not folder.with_suffix(".stamp").exists():
        pytest.skip(f"the client {client} is not installed; make test-clients installs it, or says why not")
    return folder


def from_npm(script: Path, repository: Path) -> list[str]:
    """The command that runs a script; node looks for packages beside it."""
    return ["node", str(shutil.copy(script, home("agents", repository)))]


def from_pypi(client: str, repository: Path) -> list[str]:
    """The command that runs a client's script in its own environment."""
    return [str(home(client, repository) / "bin" / "python"), str(HERE / f"{client}_client.py")]


def run(command: list[str]) -> str:
    """What a client printed; where it fails, or does not end, all it had to say is shown."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONUNBUFFERED": "1",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as client:
        try:
            printed, _ = client.communicate(timeout=SOON)
            ended = f"ended with {client.returncode}"
        except subprocess.TimeoutExpired:
            client.kill()
            printed, _ = client.communicate()
            ended = f"did not end in {SOON:.0f} s"
    assert ended == "ended with 0", f"{Path(command[1]).name} {ended}:\n{printed[-LAST:]}"
    return printed


@pytest.mark.parametrize("client", ["openai", "agents", "pipecat", "livekit"])
def test_a_stock_client_talks(client: str, address: str, recording: Path, hold: Path, repository: Path) -> None:
    hold.unlink(missing_ok=True)
    npm = client == "agents"
    command = from_npm(HERE / "agents_client.mjs", repository) if npm else from_pypi(client, repository)
    print(run([*command, address, str(recording), str(hold)]))


def test_the_example_of_the_agents_sdk(address: str, hold: Path, repository: Path) -> None:
    hold.unlink(missing_ok=True)
    command = from_npm(repository / "examples" / "realtime_agents.mjs", repository)
    assert "ms of sound" in run([*command, address, "What is seven plus five?"])
