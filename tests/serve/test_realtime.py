"""Sessions with the tiny engine, as a client has them."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from omni2_engine import Engine
from omni2_engine.audio.source import read_native
from omni2_serve.engine_host import engine_host

from ..held_answers import holding
from .client import Client, pcm

SILENCE = bytes(2 * 24_000)  # a second
ANSWER = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
]
END = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]
Talk = Callable[[Client], Awaitable[None]]


@pytest.fixture(scope="module")
def speech(question: Path) -> bytes:
    """A spoken question, 24 kHz."""
    return pcm(*read_native(question))


@pytest.fixture
def session(server: Any) -> Callable[[Talk], None]:
    """Runs a client's side of a session."""

    def run(talk: Talk) -> None:
        async def connected() -> None:
            async with server.client() as client:
                await talk(client)

        asyncio.run(connected())

    return run


def test_a_spoken_turn_by_server_vad(session: Any, speech: bytes) -> None:
    async def talk(client: Client) -> None:
        await client.append(SILENCE + speech + SILENCE)
        done = (await client.until("response.done"))["response"]
        kinds = [kind for kind in client.kinds() if not kind.endswith(".delta")]
        assert kinds == [
            "session.created",
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            *ANSWER,
            *END,
        ]
        began, stopped, committed = client.events[1:4]
        assert began["item_id"] == stopped["item_id"] == committed["item_id"]
        assert 500 < began["audio_start_ms"] < 1500 < stopped["audio_end_ms"] < 6200
        assert committed["previous_item_id"] is None
        assert done["status"] == "completed" and done["usage"]["input_token_details"]["audio_tokens"] > 0
        assert len(client.sound(done["id"])) > 24_000
        assert done["output"][0]["content"][0]["transcript"] == client.transcript(done["id"]) != ""

    session(talk)


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_a_telephone_is_understood_and_spoken_to(session: Any, speech: bytes, kind: str) -> None:
    async def talk(client: Client) -> None:
        shown = await client.update(audio={"input": {"format": {"type": kind}, "turn_detection": None}})
        assert shown["audio"]["input"]["format"] == {"type": kind}
        assert shown["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24_000}
        await client.append(bytes([0xD5, 0x55] * 8_000), piece=800)  # two seconds of the faintest tone
        await client.send("input_audio_buffer.commit")
        await client.send("response.create", response={"audio": {"output": {"format": {"type": kind}}}})
        coded = (await client.until("response.done"))["response"]
        assert coded["audio"]["output"]["format"] == {"type": kind}
        await client.append(bytes([0xD5, 0x55] * 8_000), piece=800)
        await client.send("input_audio_buffer.commit")
        await client.send("response.create")
        plain = (await client.until("response.done"))["response"]
        seconds = len(client.sound(coded["id"])) / 8_000
        assert seconds > 0.5 and len(client.sound(plain["id"])) > 24_000

    session(talk)


def test_typed_turns_follow_one_another(session: Any) -> None:
    async def talk(client: Client) -> None:
        first, second = await client.ask("one"), await client.ask("two")
        assert first["status"] == second["status"] == "completed"
        assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
        assert second["usage"]["input_token_details"]["audio_tokens"] == 0
        added = [event for event in client.events if event["type"] == "conversation.item.added"]
        names = [event["item"]["id"] for event in added]
        assert [event["previous_item_id"] for event in added] == [None, *names[:-1]]

    session(talk)


def test_a_turn_ends_with_its_sentence_where_something_hears_that(
    new_server: Any, served_engine: Engine, speech: bytes
) -> None:
    """Without it eight seconds of silence would have to come."""

    async def talk(server: Any) -> Client:
        async with server.client() as client:
            await client.update(audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}})
            await client.append(speech + SILENCE)
            await client.until("input_audio_buffer.committed")
            return client

    host = engine_host(served_engine, typed_turns=True, chunks="fixed", sentence_end=lambda speech: len(speech) > 0)
    client = asyncio.run(talk(new_server(host=host)))
    (stopped,) = [event for event in client.events if event["type"] == "input_audio_buffer.speech_stopped"]
    assert stopped["audio_end_ms"] < len(speech + SILENCE) // 48


def test_push_to_talk(session: Any, speech: bytes) -> None:
    async def talk(client: Client) -> None:
        shown = await client.push_to_talk()
        assert shown["audio"]["input"]["turn_detection"] is None
        await client.append(speech)
        await client.send("input_audio_buffer.commit")
        await client.until("conversation.item.done")
        await client.send("response.create", response={"metadata": {"client_event_id": "mine"}})
        created = (await client.until("response.created"))["response"]
        assert created["metadata"] == {"client_event_id": "mine"} and created["status"] == "in_progress"
        done = (await client.until("response.done"))["response"]
        assert done["metadata"] == {"client_event_id": "mine"}
        assert "input_audio_buffer.speech_started" not in client.kinds()

    session(talk)


def test_speech_in_an_item_is_answered_as_speech_in_the_buffer_is(session: Any, server: Any, speech: bytes) -> None:
    answers = []

    async def by_item(client: Client) -> None:
        content = [{"type": "input_audio", "audio": base64.b64encode(speech).decode()}]
        item = {"id": "mine", "type": "message", "role": "user", "content": content}
        await client.send("conversation.item.create", item=item)
        assert (await client.until("conversation.item.added"))["item"]["id"] == "mine"
        await client.send("response.create")
        done = (await client.until("response.done"))["response"]
        assert "input_audio_buffer.committed" not in client.kinds()
        answers.append(client.sound(done["id"]))

    async def by_buffer(client: Client) -> None:
        await client.push_to_talk()
        await client.append(speech)
        await client.send("input_audio_buffer.commit")
        await client.send("response.create")
        answers.append(client.sound((await client.until("response.done"))["response"]["id"]))

    session(by_item)
    session(by_buffer)
    assert answers[0] == answers[1] != b""


def test_text_is_answered_with_text(session: Any) -> None:
    async def talk(client: Client) -> None:
        spoken = await client.ask("one")
        written = await client.ask("two", output_modalities=["text"])
        assert written["output_modalities"] == ["text"]
        assert written["output"][0]["content"] == [
            {"type": "output_text", "text": written["output"][0]["content"][0]["text"]}
        ]
        assert client.sound(written["id"]) == b"" != client.sound(spoken["id"])
        kinds = [event["type"] for event in client.events if event.get("response_id") == written["id"]]
        assert {"response.output_text.delta", "response.output_text.done"} <= set(kinds)

    session(talk)


def test_an_answer_that_reaches_its_limit_is_incomplete(session: Any) -> None:
    async def talk(client: Client) -> None:
        done = await client.ask("one", max_output_tokens=2)
        assert done["status"] == "incomplete"
        assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
        assert done["usage"]["output_token_details"]["text_tokens"] == 2

    session(talk)


@pytest.fixture
def held(new_server: Any, host: Any) -> Callable[[Callable[[Client, threading.Event], Awaitable[None]]], None]:
    """Runs a client's side of a session whose answers go no further than their first sound until the event is set."""

    def run(talk: Callable[[Client, threading.Event], Awaitable[None]]) -> None:
        async def connected() -> None:
            over = threading.Event()
            server = new_server(host=holding(host, held=lambda: not over.is_set(), short=True))
            async with server.client() as client:
                await talk(client, over)

        asyncio.run(connected())

    return run


def test_an_answer_is_cancelled(held: Any) -> None:
    async def talk(client: Client, over: threading.Event) -> None:
        await client.type("one")
        await client.send("response.create")
        created = await client.until("response.created")
        await client.send("response.cancel")
        await client.update()
        over.set()
        done = (await client.until("response.done"))["response"]
        assert done["id"] == created["response"]["id"] and done["status"] == "cancelled"
        assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert (await client.ask("two"))["status"] == "completed"

    held(talk)


def test_truncating_cuts_what_was_not_heard(session: Any) -> None:
    async def talk(client: Client) -> None:
        done = await client.ask("one")
        item, sound = done["output"][0]["id"], client.sound(done["id"])
        length = len(sound) // 48
        await client.send(
            "conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=length + 1, event_id="e"
        )
        error = await client.error()
        assert error["param"] == "audio_end_ms" and error["event_id"] == "e"
        await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=1)
        assert (await client.until("conversation.item.truncated"))["audio_end_ms"] == 1
        await client.send("conversation.item.retrieve", item_id=item)
        kept = (await client.until("conversation.item.retrieved"))["item"]["content"][0]["transcript"]
        assert done["output"][0]["content"][0]["transcript"].startswith(kept)
        after = await client.ask("two")
        assert after["usage"]["input_tokens"] < 200
        await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=0)
        assert (await client.error())["param"] == "item_id"  # it is not the last answer any more

    session(talk)


def test_the_last_answer_can_be_deleted(session: Any) -> None:
    async def talk(client: Client) -> None:
        done = await client.ask("one")
        item = done["output"][0]["id"]
        await client.send("conversation.item.delete", item_id=item)
        assert (await client.until("conversation.item.deleted"))["item_id"] == item
        await client.send("conversation.item.retrieve", item_id=item, event_id="gone")
        error = await client.error()
        assert error["code"] == "item_retrieve_invalid_item_id" and error["event_id"] == "gone"
        assert (await client.ask("two"))["status"] == "completed"

    session(talk)


def test_instructions_change_between_turns(session: Any) -> None:
    async def talk(client: Client) -> None:
        plain = await client.ask("one")
        await client.update(instructions="Be brief.")
        briefly = await client.ask("one")
        await client.send(
            "conversation.item.create",
            item={"type": "message", "role": "system", "content": [{"type": "input_text", "text": "They are Ann."}]},
        )
        await client.until("conversation.item.done")
        by_name = await client.ask("one")
        costs = [answer["usage"]["input_tokens"] for answer in (plain, briefly, by_name)]
        assert costs == sorted(costs) and briefly["usage"]["input_token_details"]["cached_tokens"] < costs[1]
        other = await client.ask("one", instructions="")
        assert other["status"] == "completed"

    session(talk)


@pytest.mark.parametrize(
    ("kind", "fields", "code", "param"),
    [
        ("response.cancel", {}, "response_cancel_not_active", None),
        ("response.create", {}, "response_input_missing", None),
        ("input_audio_buffer.commit", {}, "input_audio_buffer_commit_empty", None),
        ("input_audio_buffer.append", {"audio": "no base64"}, "invalid_value", "audio"),
        ("input_audio_buffer.append", {"audio": "AAAA"}, "invalid_value", "audio"),
        ("input_audio_buffer.append", {}, "missing_required_parameter", "audio"),
        ("output_audio_buffer.clear", {}, "unsupported_event", "type"),
        ("conversation.item.retrieve", {"item_id": "none"}, "item_retrieve_invalid_item_id", "item_id"),
        ("conversation.item.delete", {"item_id": ""}, "invalid_value", "item_id"),
        (
            "conversation.item.truncate",
            {"item_id": "x", "content_index": 0, "audio_end_ms": -1},
            "invalid_value",
            "audio_end_ms",
        ),
        ("conversation.item.create", {"item": {"type": "function_call_output"}}, "unsupported_item", "item"),
        (
            "conversation.item.create",
            {"item": {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "No."}]}},
            "invalid_value",
            "previous_item_id",
        ),
        (
            "conversation.item.create",
            {"item": {"type": "message", "role": "user", "content": []}},
            "unsupported_item",
            "item",
        ),
        (
            "session.update",
            {"session": {"audio": {"output": {"voice": "nobody"}}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
        (
            "session.update",
            {"session": {"audio": {"output": {"speed": 2}}}},
            "unsupported_value",
            "session.audio.output.speed",
        ),
        (
            "session.update",
            {"session": {"audio": {"input": {"format": {"type": "audio/opus"}}}}},
            "invalid_value",
            "session.audio.input.format.type",
        ),
        ("session.update", {"session": {"type": "transcription"}}, "invalid_value", "session.type"),
        ("session.update", {"session": {"tool_choice": "required"}}, "unsupported_value", "session.tool_choice"),
        ("session.update", {"session": {"output_modalities": ["audio", "text"]}}, "invalid_value", None),
        ("no.such.event", {}, "invalid_value", "type"),
    ],
)
def test_a_wrong_event_is_named_and_the_session_goes_on(
    session: Any, kind: str, fields: dict[str, Any], code: str, param: str | None
) -> None:
    async def talk(client: Client) -> None:
        await client.send(kind, event_id="mine", **fields)
        error = await client.error()
        assert error["code"] == code and error["event_id"] == "mine" and error["type"] == "invalid_request_error"
        assert param is None or error["param"] == param
        await client.update(instructions="still here")

    session(talk)


def test_a_second_answer_at_a_time_is_refused(held: Any) -> None:
    async def talk(client: Client, over: threading.Event) -> None:
        await client.type("one")
        await client.send("response.create")
        await client.send("response.create", event_id="second")
        error = await client.error()
        assert error["code"] == "conversation_already_has_active_response" and error["event_id"] == "second"
        over.set()
        await client.until("response.done")

    held(talk)


def test_out_of_band_responses_are_refused(session: Any) -> None:
    async def talk(client: Client) -> None:
        await client.type("one")
        for response in ({"conversation": "none"}, {"input": []}):
            await client.send("response.create", response=response, event_id="aside")
            error = await client.error()
            assert error["code"] == "unsupported_value" and error["event_id"] == "aside"
        await client.send("response.create", response={"conversation": "auto"})
        await client.until("response.done")

    session(talk)


def test_items_have_names_and_places(session: Any) -> None:
    async def talk(client: Client) -> None:
        await client.type("one", id="first")
        assert (await client.until("conversation.item.done"))["previous_item_id"] is None
        item = {"id": "system", "type": "message", "role": "system", "content": [{"type": "input_text", "text": "Hm."}]}
        await client.send("conversation.item.create", item=item, previous_item_id="root")
        assert (await client.until("conversation.item.done"))["previous_item_id"] is None
        await client.send("conversation.item.create", item=item, event_id="again")
        assert (await client.error())["code"] == "item_create_duplicate_item_id"
        await client.send("conversation.item.create", item=item | {"id": "x"}, previous_item_id="none", event_id="lost")
        assert (await client.error())["code"] == "item_create_invalid_previous_item_id"
        await client.send("conversation.item.delete", item_id="first", event_id="heard")
        assert (await client.error())["code"] == "item_delete_unsupported"
        await client.send("conversation.item.delete", item_id="system")
        await client.until("conversation.item.deleted")

    session(talk)


def test_what_cannot_be_done_is_accepted_where_clients_send_it_unasked(session: Any) -> None:
    async def talk(client: Client) -> None:
        shown = await client.update(
            model="gpt-realtime",
            tools=[{"type": "function", "name": "f", "parameters": {}}],
            tool_choice="auto",
            tracing="auto",
            include=["item.input_audio_transcription.logprobs"],
            truncation={"type": "retention_ratio", "retention_ratio": 0.8},
            audio={
                "input": {
                    "transcription": {"model": "whisper-1"},
                    "noise_reduction": {"type": "near_field"},
                    "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
                },
                "output": {"voice": "marin", "speed": 1},
            },
        )
        assert shown["tools"] == [] and shown["tracing"] is None and shown["model"] != "gpt-realtime"
        heard = shown["audio"]["input"]
        assert heard["transcription"] is None and heard["noise_reduction"] is None
        assert heard["turn_detection"] == {
            "type": "semantic_vad",
            "eagerness": "high",
            "create_response": True,
            "interrupt_response": True,
        }
        assert shown["audio"]["output"]["voice"] != "marin"

    session(talk)


def test_a_client_has_the_model_speak_unasked(session: Any) -> None:
    """pipecat adds a system item and wants an answer; livekit gives instructions with the response."""

    async def talk(client: Client) -> None:
        item = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Greet them."}]}
        await client.send("conversation.item.create", item=item)
        await client.send("response.create")
        greeting = (await client.until("response.done"))["response"]
        await client.send("response.create", event_id="again")
        assert (await client.error())["code"] == "response_input_missing"
        await client.send("response.create", response={"instructions": "Greet them again."})
        again = (await client.until("response.done"))["response"]
        assert greeting["status"] == again["status"] == "completed"
        assert again["usage"]["input_tokens"] > greeting["usage"]["input_tokens"]

    session(talk)


def test_items_that_come_after_an_answer_was_asked_for_are_the_next_one(held: Any) -> None:
    """Though that answer had not begun when they came."""

    async def talk(client: Client, over: threading.Event) -> None:
        await client.push_to_talk()
        await client.type("one")
        await client.send("response.create")
        await client.send("response.cancel")
        await client.type("two")
        await client.update()
        over.set()
        assert (await client.until("response.done"))["response"]["status"] == "cancelled"
        await client.send("response.create")
        assert (await client.until("response.done"))["response"]["status"] in ("completed", "incomplete")

    held(talk)
