"""What every test may use: the given material beside the repository. No test reaches for the network."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is first imported

REPOSITORY = Path(__file__).resolve().parent.parent
LOCAL_HOSTS = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"}


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The given checkpoints, goldens and audio (`../shared` of the checkout)."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip("given material ../shared is not here; put it beside the checkout to run this test")
    return path


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Any:
    """Name look-ups of other hosts fail at once, so that a test that needs the network fails everywhere alike."""
    look_up = socket.getaddrinfo

    def local_only(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in LOCAL_HOSTS:
            raise socket.gaierror(socket.EAI_NONAME, f"tests use no network, and {host} is asked for")
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", local_only)
        yield
