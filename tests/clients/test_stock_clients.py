"""Clients from PyPI and npm, unmodified: each talks, and fails by itself where something is not as it expects."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LONGEST = 150  # seconds


@pytest.mark.parametrize("client", ["openai", "agents", "pipecat", "livekit"])
def test_a_stock_client_talks(client: str, address: str, recording: Path, repository: Path) -> None:
    home = repository / "build" / "clients"
    if client == "agents":
        script = shutil.copy(HERE / "agents_client.mjs", home / "agents")  # node looks for packages beside the script
        command = ["node", str(script)]
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
    home = repository / "build" / "clients" / "agents"
    script = shutil.copy(repository / "examples" / "realtime_agents.mjs", home)
    done = subprocess.run(
        ["node", str(script), address, "What is seven plus five?"], capture_output=True, text=True, timeout=LONGEST
    )
    assert done.returncode == 0 and "ms of sound" in done.stdout, done.stdout + done.stderr
