"""The configuration file for Ray, deployed on this machine: more replicas and fewer, an upgrade, a lost device."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

from .clusters import Cluster, eventually, free_port
from .talking import Stopping, Talker, open_when_free

SERVE_RUN = [sys.executable, "-m", "ray.serve.scripts", "run"]
KEY = "a key for tests only"
SESSIONS, QUESTIONS = 3, 3


class Deployment:
    """What Ray was given last of the file, and where it runs.

    Args:
        config: of the file, as a user would have changed it.
        folder: for what is written.
    """

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self._config, self._file = config, folder / "ray.yaml"
        options = config["http_options"]
        self.address = f"ws://{options['host']}:{options['port']}/v1/realtime?model=omni2"
        self._write()
        self.cluster = Cluster([*SERVE_RUN, str(self._file)], folder, "Submitted deploy config successfully")

    def _write(self) -> None:
        self._file.write_text(yaml.safe_dump(self._config))

    async def upgrade(self, **arguments: Any) -> None:
        """Deploy it again, with other arguments."""
        self._config["applications"][0]["args"] |= arguments
        self._write()
        command = [*SERVE_RUN, "--non-blocking", "--address", "auto", str(self._file)]
        run = await asyncio.create_subprocess_exec(*command, env=self.cluster.environment)
        assert await run.wait() == 0

    async def open(self) -> Talker:
        """A session as soon as there is a place."""
        return await open_when_free(self.address, KEY)

    async def alone(self) -> list[bytes]:
        """The answers of a conversation that has a replica to itself."""
        eventually(lambda: len(self.cluster.replicas()) == 1)
        talker = await self.open()
        answers = [await talker.ask(number) for number in range(QUESTIONS)]
        await talker.close()
        return answers


@pytest.fixture(scope="module")
def deployment(repository: Path, tiny_engine_dir: Path) -> Iterator[Deployment]:
    config = yaml.safe_load((repository / "serve" / "deploy" / "ray.yaml").read_text(encoding="utf-8"))
    config["http_options"] = {"host": "127.0.0.1", "port": free_port()}
    (application,) = config["applications"]
    application["runtime_env"]["env_vars"]["OMNI2_API_KEY"] = KEY
    application["args"] |= {"engine": str(tiny_engine_dir), "device": "cpu", "gpus": 0, "cpus": 1, "chunks": "fixed"}
    application["args"] |= {"sessions": SESSIONS, "most_replicas": 2, "upscale_delay": 0.1, "downscale_delay": 0.1}
    with TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # whose path has to be short, for Ray's sockets
        running = Deployment(config, Path(folder))
        try:
            yield running
        finally:
            running.cluster.stop()


def test_a_replica_comes_and_goes_with_the_conversations_and_no_answer_is_lost(deployment: Deployment) -> None:
    async def main() -> None:
        expected = await deployment.alone()
        first = [await deployment.open() for _ in range(SESSIONS)]
        assert await asyncio.gather(*(talker.ask(0) for talker in first)) == [expected[0]] * SESSIONS
        more = await deployment.open()  # a place that only the second replica has
        eventually(lambda: len(deployment.cluster.replicas()) == 2)
        assert await asyncio.gather(*(talker.ask(1) for talker in first)) == [expected[1]] * SESSIONS
        assert await more.ask(0) == expected[0]
        for talker in first:
            await talker.close()
        # one conversation after the other is what a single replica can bear: the other goes, the newer or the older
        talker, asked, one = more, 1, False
        while not (one and asked == QUESTIONS):
            if asked == QUESTIONS:
                await talker.close()
                talker, asked = await deployment.open(), 0
            one = len(deployment.cluster.replicas()) == 1
            try:
                assert await talker.ask(asked) == expected[asked]
                asked += 1
            except Stopping:
                assert (await talker.end())[1] == 1001
                talker, asked = await deployment.open(), 0
        await talker.close()

    asyncio.run(main())


def test_in_an_upgrade_answers_are_heard_to_their_end_and_new_conversations_go_to_the_new(
    deployment: Deployment,
) -> None:
    async def main() -> None:
        expected = await deployment.alone()
        (old,) = deployment.cluster.replicas()
        asking, idle = await deployment.open(), await deployment.open()
        deployment.cluster.hold(old)
        await asking.begin(0)
        await deployment.upgrade(length=1800)
        assert await idle.end() == (["server_stopping"], 1001)
        new = await deployment.open()
        assert await new.ask(0) == expected[0]  # while the old replica's answer is still held
        assert asking.sounds == [] and old in deployment.cluster.replicas()
        deployment.cluster.release(old)
        kinds, code = await asking.end()
        assert kinds[-2:] == ["response.done", "server_stopping"] and code == 1001
        assert asking.sounds == expected[:1]
        eventually(lambda: old not in deployment.cluster.replicas())
        assert await new.ask(1) == expected[1]
        await new.close()

    asyncio.run(main())


def test_a_replica_that_has_lost_its_device_is_replaced(deployment: Deployment) -> None:
    async def main() -> None:
        expected = await deployment.alone()
        (old,) = deployment.cluster.replicas()
        talker = await deployment.open()
        deployment.cluster.lose(old)
        assert await talker.end() == (["server_stopping"], 1001)
        eventually(lambda: old not in deployment.cluster.replicas())
        assert await deployment.alone() == expected

    asyncio.run(main())
