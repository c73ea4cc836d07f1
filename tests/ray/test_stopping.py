"""When a replica drains: what it makes of the lists of replicas that Ray sends it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

from omni2_serve import ray_stopping


def test_a_replica_drains_while_it_is_missing_among_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def handle(deployment: str, application: str) -> Any:
        asked.append((deployment, application))
        return SimpleNamespace(options=lambda: None)

    context = SimpleNamespace(replica_id="me", deployment="omni2", app_name="talk")
    monkeypatch.setattr(ray_stopping.serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(ray_stopping.serve, "get_deployment_handle", handle)
    monkeypatch.setattr(ray_stopping, "_listeners", [])

    async def main() -> list[bool]:
        draining, found = asyncio.Event(), []
        ray_stopping.follow(draining)
        for running in (["other"], ["other", "me"], ["other"], ["me"], []):  # not yet; runs; changed; runs; stopped
            replicas: Any = [SimpleNamespace(replica_id=name) for name in running]
            await asyncio.to_thread(ray_stopping.announce, replicas)
            await asyncio.sleep(0)
            found.append(draining.is_set())
        return found

    assert asyncio.run(main()) == [False, False, True, False, True]
    assert asked == [("omni2", "talk")]
