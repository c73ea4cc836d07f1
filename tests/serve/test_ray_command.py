"""What `serve --ray` begins and ends of a cluster, with stand-ins for Ray."""

from __future__ import annotations

import signal
import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

import pytest

from omni2_engine.errors import SettingError
from omni2_serve import ray_command

OURS = ray_command.APPLICATION


class StandInServe:
    """Ray Serve of a cluster.

    Args:
        proxies, applications: that run before the command begins.
        deployed: by others meanwhile.
    """

    def __init__(self, proxies: set[str], applications: set[str], deployed: str | None) -> None:
        self.proxies, self.applications = set(proxies), set(applications)
        self._deployed = deployed

    def status(self) -> Any:
        return SimpleNamespace(
            proxies=dict.fromkeys(self.proxies, "HEALTHY"), applications=dict.fromkeys(self.applications, "RUNNING")
        )

    def start(self, **_: Any) -> None:
        self.proxies.add("node")

    def run(self, app: Any, name: str, **_: Any) -> None:
        self.applications |= {name} if self._deployed is None else {name, self._deployed}

    def delete(self, name: str, _blocking: bool) -> None:
        self.applications.remove(name)

    def shutdown(self) -> None:
        self.proxies.clear()
        self.applications.clear()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs it until a signal comes; returns what is left of Serve."""

    def run(proxies: set[str], applications: set[str], deployed: str | None = None) -> StandInServe:
        serve = StandInServe(proxies, applications, deployed)
        ray: Any = SimpleNamespace(init=lambda **_: None, shutdown=lambda: None, serve=serve)
        ray.__spec__ = ModuleSpec("ray", None)
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setitem(sys.modules, "omni2_serve.ray", SimpleNamespace(app=dict))  # type: ignore[arg-type]
        monkeypatch.setattr(ray_command.time, "sleep", lambda _: signal.raise_signal(signal.SIGTERM))
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            ray_command.serve_with_ray({"replicas": 1}, "127.0.0.1", 8000)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return serve

    monkeypatch.setenv(ray_command.PROXY_CALLBACK, "")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "")
    return run


def test_it_ends_the_serve_that_it_began(command: Any) -> None:
    assert not command(set(), set()).proxies


@pytest.mark.parametrize("applications", [set(), {"another"}])
def test_a_serve_that_it_joined_goes_on(command: Any, applications: set[str]) -> None:
    serve = command({"node"}, applications)
    assert serve.proxies == {"node"} and serve.applications == applications


def test_what_others_have_deployed_meanwhile_goes_on(command: Any) -> None:
    assert command(set(), set(), deployed="another").applications == {"another"}


def test_an_application_of_its_name_is_not_replaced(command: Any) -> None:
    with pytest.raises(SettingError, match="already"):
        command({"node"}, {OURS})
