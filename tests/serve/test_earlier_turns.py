"""Earlier turns that a client gives: after a reconnection the conversation goes on, in sessions and in completions."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openai import OpenAI

from omni2_engine import EarlierTurn, Engine
from omni2_engine.audio.source import read_native
from omni2_engine.errors import SettingError
from omni2_engine.live import events as live
from omni2_serve.host import Host

from ..held_answers import holding
from ..waiting import SOON
from .client import Client, pcm
from .scripted import METRICS, Script, ScriptedConversation

Talk = Callable[[Client], Awaitable[None]]


@pytest.fixture
def session(server: Any) -> Callable[[Talk], None]:
    """Runs a client's side of a session."""

    def run(talk: Talk) -> None:
        async def connected() -> None:
            async with server.client() as client:
                await client.push_to_talk()
                await talk(client)

        asyncio.run(connected())

    return run


async def give(client: Client, role: str, *content: dict[str, Any], **fields: Any) -> None:
    """Add an item."""
    await client.send("conversation.item.create", item={"type": "message", "role": role, "content": content}, **fields)


async def given(client: Client, role: str, *content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Add an item, and see it there."""
    await give(client, role, *content, **fields)
    return (await client.until("conversation.item.done"))["item"]


def typed(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def written(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text}


def expected(engine: Engine, question: str, *turns: EarlierTurn, system: str | None = None) -> np.ndarray:
    """The sound of a session's answer behind these turns, as 16-bit numbers."""
    with engine.session(history=turns, typed_turns=True, system=system) as session:
        sound = np.concatenate([chunk.pcm for chunk in session.stream(text=question)])
    return np.clip(sound, -1, 1) * 32767


def check_sound(sound: bytes, other: np.ndarray) -> None:
    """Equal but for the rounding to 16 bits."""
    mine = np.frombuffer(sound, "<i2").astype(np.float32)
    assert len(mine) == len(other) > 2_400 and np.abs(mine - other).max() <= 1


def test_a_conversation_goes_on_after_a_reconnection(session: Any, served_engine: Engine, question: Path) -> None:
    samples, rate = read_native(question)
    sound = pcm(samples, rate)

    async def talk(client: Client) -> None:
        first = await given(client, "user", typed("where is it"))
        answer = await given(client, "assistant", written("in the drawer"), previous_item_id=first["id"])
        assert answer["status"] == "completed" and answer["content"] == [written("in the drawer")]
        await given(client, "user", {"type": "input_audio", "audio": base64.b64encode(sound).decode()})
        spoken = await given(client, "assistant", {"type": "output_audio", "transcript": "yes it is"})
        assert spoken["content"] == [{"type": "output_audio", "audio": None, "transcript": "yes it is"}]
        done = await client.ask("and the key")
        assert done["usage"]["input_token_details"]["cached_tokens"] > 60  # they were prefilled before the question
        check_sound(client.sound(done["id"]), with_turns)
        assert "error" not in client.kinds()

    turns = [EarlierTurn("in the drawer", text="where is it")]
    with served_engine.live(detection=None, typed_turns=True, history=turns) as own:  # resamples as the server does
        own.feed(np.frombuffer(sound, "<i2"), 24_000)
        own.commit()
        own.answered("yes it is")
        own.say("and the key")
        own.respond()
        own.end()
        chunks = [event.chunk for event in own if isinstance(event, live.SoundMade)]
    with_turns = np.clip(np.concatenate([chunk.pcm for chunk in chunks]), -1, 1) * 32767
    without = expected(served_engine, "and the key")
    assert len(with_turns) != len(without) or not np.array_equal(with_turns, without)
    session(talk)


def test_turns_are_given_between_two(session: Any, served_engine: Engine) -> None:
    async def talk(client: Client) -> None:
        await given(client, "system", typed("Be brief."))
        first = await client.ask("one")
        await given(client, "user", typed("where"))
        await given(client, "user", typed("is it"))  # both are what is answered
        await given(client, "assistant", written("in the"), written(" drawer"))
        done = await client.ask("and the key")
        assert done["status"] == "completed"
        assert done["usage"]["input_tokens"] > first["usage"]["input_tokens"] + 10
        await client.send(
            "conversation.item.truncate", item_id=done["output"][0]["id"], content_index=0, audio_end_ms=0
        )
        await client.until("conversation.item.truncated")

    session(talk)

    async def only_given(client: Client) -> None:
        await given(client, "system", typed("Be brief."))
        await given(client, "user", typed("where"))
        await given(client, "user", typed("is it"))
        await given(client, "assistant", written("in the"), written(" drawer"))
        done = await client.ask("and the key")
        turn = EarlierTurn("in the drawer", text="where\nis it")
        check_sound(client.sound(done["id"]), expected(served_engine, "and the key", turn, system="Be brief."))

    session(only_given)


def test_the_transcript_of_what_was_said_stands_for_it(session: Any, served_engine: Engine) -> None:
    async def talk(client: Client) -> None:
        item = await given(client, "user", {"type": "input_audio", "transcript": "where is it"})
        assert item["content"] == [typed("where is it")]
        await given(client, "assistant", written("in the drawer"))
        done = await client.ask("and the key")
        turn = EarlierTurn("in the drawer", text="where is it")
        check_sound(client.sound(done["id"]), expected(served_engine, "and the key", turn))

    session(talk)


def test_an_answer_that_was_given_can_be_deleted(session: Any, served_engine: Engine) -> None:
    async def talk(client: Client) -> None:
        await given(client, "user", typed("where is it"))
        answer = await given(client, "assistant", written("in the drawer"))
        await client.send("conversation.item.delete", item_id=answer["id"])
        await client.until("conversation.item.deleted")
        done = await client.ask("and the key")
        check_sound(
            client.sound(done["id"]), expected(served_engine, "and the key", EarlierTurn("", text="where is it"))
        )

    session(talk)


@pytest.mark.parametrize(
    ("items", "code", "param"),
    [
        ([("assistant", written("no"))], "invalid_value", "previous_item_id"),
        ([("user", typed("one")), ("assistant", written("no")), ("assistant", written("no"))], "invalid_value", None),
        ([("user", typed("one")), ("assistant", typed("no"))], "unsupported_item", "item"),
        ([("user", typed("one")), ("assistant", {"type": "output_audio", "audio": "AAAA"})], "unsupported_item", None),
        (
            [("user", typed("one")), ("assistant", written("no"), {"type": "output_audio", "transcript": "no"})],
            "unsupported_item",
            None,
        ),
        ([("user", typed("one")), ("assistant",)], "unsupported_item", "item"),
        ([("user", typed("one")), ("assistant", written("no<|im_end|>"))], "invalid_value", None),
        ([("user", written("one"))], "unsupported_item", "item"),
    ],
)
def test_what_cannot_be_given_is_said(session: Any, items: list[Any], code: str, param: str | None) -> None:
    async def talk(client: Client) -> None:
        for role, *content in items[:-1]:
            await given(client, role, *content)
        role, *content = items[-1]
        await give(client, role, *content, event_id="mine")
        error = await client.error()
        assert error["code"] == code and error["event_id"] == "mine" and (param is None or error["param"] == param)
        assert (await client.ask("two"))["status"] == "completed"

    session(talk)


def test_an_answer_has_its_place(new_server: Any, host: Host) -> None:
    over = threading.Event()
    server = new_server(host=holding(host, held=lambda: not over.is_set(), short=True))

    async def talk(client: Client) -> None:
        await client.push_to_talk()
        first = await given(client, "user", typed("one"))
        for place in ("root", "nowhere"):
            await give(client, "assistant", written("no"), previous_item_id=place, event_id=place)
            assert (await client.error())["param"] == "previous_item_id"
        await client.send("response.create")
        await give(client, "assistant", written("no"), event_id="too soon")
        error = await client.error()
        assert error["code"] == "conversation_already_has_active_response" and error["event_id"] == "too soon"
        over.set()
        await client.until("response.done")
        await client.send("conversation.item.retrieve", item_id=first["id"])
        await client.until("conversation.item.retrieved")

    async def connected() -> None:
        async with server.client() as client:
            await talk(client)

    asyncio.run(connected())


def test_an_answer_that_does_not_fit_is_taken_out_again(session: Any) -> None:
    async def talk(client: Client) -> None:
        await given(client, "user", typed("one"))
        item = {"id": "long", "type": "message", "role": "assistant", "content": [written("no " * 20_000)]}
        await client.send("conversation.item.create", item=item, event_id="mine")
        error = await client.error()
        assert error["event_id"] == "mine" and "positions" in error["message"]
        assert (await client.until("conversation.item.deleted"))["item_id"] == "long"
        assert (await client.ask("two"))["status"] == "completed"

    session(talk)


@pytest.fixture
def scripted(new_server: Any) -> Callable[[Any], None]:
    """Runs a client's side of a session whose conversation is the test's."""
    script = Script()
    server = new_server(host=script.host)

    def run(talk: Any) -> None:
        async def connected() -> None:
            async with server.client() as client:
                await client.append(bytes(9600))
                await client.push_to_talk()
                await talk(client, script.conversations[0])

        asyncio.run(connected())

    return run


def test_errors_are_those_of_the_item_that_they_are_about(scripted: Any) -> None:
    """The conversation takes what it is told in its order, and tells what became of it in the same."""

    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        await given(client, "user", typed("one"))
        await given(client, "assistant", written("first"), event_id="a")
        await given(client, "user", typed("two"))
        second = await given(client, "assistant", written("second"), event_id="b")
        await client.append(bytes(9600))
        await client.send("input_audio_buffer.commit", event_id="c")
        await give(client, "assistant", written("third"), event_id="d")
        error = await client.error()  # the sound is no item yet
        assert error["event_id"] == "d" and "input_audio_buffer.committed" in error["message"]
        problem = SettingError("no", "go")
        conversation.happens(live.TurnAdded(), live.Failed(None, problem), live.Failed(None, problem))
        assert (await client.error())["event_id"] == "b"
        assert (await client.until("conversation.item.deleted"))["item_id"] == second["id"]
        assert (await client.error())["event_id"] == "c"
        assert [text for name, text in conversation.calls if name in ("say", "answered")] == [
            {"text": text} for text in ("one", "first", "two", "second")
        ]

    scripted(talk)


def test_an_interruption_is_of_the_answer_that_was_made_here(scripted: Any) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        await given(client, "user", typed("one"))
        await client.send("response.create")
        await client.update()
        conversation.happens(live.TurnBegun(0, False), live.AnswerBegun(0), live.Finished(0, "end", METRICS))
        made = (await client.until("response.done"))["response"]["output"][0]["id"]
        await given(client, "user", typed("two"))
        await given(client, "assistant", written("second"))
        conversation.happens(live.TurnAdded(), live.Interrupted(0, 0.0))
        await client.update()
        await client.send("conversation.item.truncate", item_id=made, content_index=0, audio_end_ms=0)
        await client.until("conversation.item.truncated")

    scripted(talk)


@pytest.fixture
def address(server: Any) -> str:
    return f"http://{server.address}/v1"


def test_a_completion_takes_earlier_turns(address: str, served_engine: Engine, question: Path) -> None:
    client = OpenAI(base_url=address, api_key="any", timeout=SOON)
    recording = {"data": base64.b64encode(question.read_bytes()).decode(), "format": "wav"}
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "where"},
        {"role": "user", "content": "is it"},
        {"role": "assistant", "content": "in the drawer"},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": recording}]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes it is"}]},
        {"role": "user", "content": "and the key"},
    ]
    turns = [EarlierTurn("in the drawer", text="where\nis it"), EarlierTurn("yes it is", audio=question.read_bytes())]
    sound = expected(served_engine, "and the key", *turns, system="Be brief.")
    audio: Any = {"voice": "alloy", "format": "pcm16"}
    done = client.chat.completions.create(model="any", modalities=["text", "audio"], audio=audio, messages=messages)
    assert done.choices[0].message.audio is not None and done.usage is not None
    check_sound(base64.b64decode(done.choices[0].message.audio.data), sound)
    stream: Any = client.chat.completions.create(
        model="any", modalities=["text", "audio"], audio=audio, messages=messages, stream=True
    )
    pieces = [chunk.choices[0].delta.model_dump().get("audio") or {} for chunk in stream]
    check_sound(b"".join(base64.b64decode(piece.get("data") or "") for piece in pieces), sound)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": "no"}, {"role": "user", "content": "one"}],
        [{"role": "user", "content": "one"}, {"role": "assistant", "content": "no"}],
        [{"role": "user", "content": "one"}, {"role": "tool", "content": "no"}, {"role": "user", "content": "two"}],
        [
            {"role": "user", "content": "one"},
            {"role": "assistant", "audio": {"id": "audio_1"}},
            {"role": "user", "content": "two"},
        ],
        [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "no<|im_end|>"},
            {"role": "user", "content": "two"},
        ],
        [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "no " * 20_000},
            {"role": "user", "content": "two"},
        ],
        [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]},
            {"role": "user", "content": "two"},
        ],
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_says_what_is_wrong_with_its_turns(address: str, messages: list[Any], stream: bool) -> None:
    body = {"model": "any", "messages": messages, "stream": stream}
    answer = httpx.post(f"{address}/chat/completions", json=body, timeout=SOON)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error" and answer.json()["error"]["message"]
