"""Each line of the log says whose conversation it is, on every thread."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from omni2_engine.system.log_names import NO_CONVERSATION, CarryingExecutor, NamesConversation, carried, conversation
from omni2_serve.client_secrets import client_secret
from omni2_serve.service import Service

from ..waiting import SOON, eventually


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []
        self.addFilter(NamesConversation())

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def names(self, logger: str, message: str) -> list[str]:
        """The conversations that such lines name."""
        return [each.conversation for each in self.records if each.name == logger and re.search(message, each.msg)]


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler, loggers = Kept(), [logging.getLogger(name) for name in ("omni2_engine", "omni2_serve")]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def test_a_key_for_a_browser_is_no_conversation(host: Any) -> None:
    async def make() -> str:
        body = json.dumps({}).encode()
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"application/json")]}

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        await client_secret(Request(scope, receive), Service(host))
        return conversation.get()

    assert asyncio.run(make()) == NO_CONVERSATION


def test_conversations_at_the_same_time_are_told_apart(server: Any, kept: Kept) -> None:
    async def one_turn() -> str:
        async with server.client() as client:
            assert (await client.ask("one"))["status"] == "completed"
            return str(client.events[0]["session"]["id"])

    async def both() -> list[str]:
        return await asyncio.gather(one_turn(), one_turn())

    sessions = asyncio.run(both())
    assert eventually(lambda: not server.service.sessions)
    server.stop()
    assert sorted(kept.names("omni2_engine.turn", "{")) == sorted(sessions), "on a thread of the engine"
    for message in ("begins", "has ended"):
        assert sorted(kept.names("omni2_serve.realtime.connection", message)) == sorted(sessions)


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_completion_is_named_by_its_id(server: Any, kept: Kept, stream: bool) -> None:
    body = {"messages": [{"role": "user", "content": "one"}], "stream": stream}
    answer = httpx.post(f"http://{server.address}/v1/chat/completions", json=body, timeout=SOON)
    name = re.search(r"chatcmpl_?\w+", answer.text)
    assert eventually(lambda: not server.service.requests)
    server.stop()
    assert name is not None and kept.names("omni2_engine.turn", "{") == [name[0]]


def test_work_has_the_name_that_was_in_force_when_it_was_given_away() -> None:
    async def one(name: str, threads: CarryingExecutor) -> tuple[str, str, str]:
        conversation.set(name)
        work = carried(conversation.get)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)  # the other one has set its own
        return name, await loop.run_in_executor(threads, conversation.get), await asyncio.to_thread(work)

    async def both(threads: CarryingExecutor) -> list[tuple[str, str, str]]:
        return await asyncio.gather(one("kitchen", threads), one("hall", threads))

    with CarryingExecutor(1) as threads:
        assert asyncio.run(both(threads)) == [("kitchen",) * 3, ("hall",) * 3]
        assert threads.submit(conversation.get).result() == NO_CONVERSATION
