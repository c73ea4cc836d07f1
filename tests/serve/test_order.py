"""In what order a client is told what happens, on conversations that a test writes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from omni2_engine.errors import CapacityError, SettingError
from omni2_engine.live import events as live
from omni2_serve.limits import ServiceLimits

from .client import Client
from .scripted import METRICS, Script, ScriptedConversation, chunk

Talk = Callable[[Client, ScriptedConversation], Awaitable[None]]
SPOKEN = (
    live.SpeechBegan(at=16_000, begin=11_200),
    live.SpeechEnded(at=32_000, decided=40_000),
    live.Committed(begin=11_200, end=33_600, answered=True),
    live.TurnBegun(0, speculative=False),
    live.AnswerBegun(0),
)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def session(new_server: Any, script: Script) -> Callable[[Talk], None]:
    """Runs a client's side of a session whose conversation is open."""
    server = new_server(host=script.host)

    def run(talk: Talk) -> None:
        async def connected() -> None:
            async with server.client() as client:
                await client.append(bytes(9600))
                await client.update()
                await talk(client, script.conversations[0])

        asyncio.run(connected())

    return run


def test_an_interruption(session: Any) -> None:
    """`speech_started` comes before the events that close the answer: agents-js stops its player with it."""

    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        conversation.happens(*SPOKEN, live.TextWritten(0, "Well, I"), live.SoundMade(0, chunk(0, spoken="Well,")))
        await client.until("response.output_audio.delta")
        before = len(client.events)
        cut = replace(METRICS, finish_reason="cancelled")
        conversation.happens(
            live.SpeechBegan(at=64_000, begin=60_000),
            live.Interrupted(0, heard=0.4),
            live.SoundMade(0, chunk(1)),
            live.TextWritten(0, " think"),
            live.Finished(0, "cancelled", cut),
        )
        done = (await client.until("response.done"))["response"]
        assert client.kinds(before) == [
            "input_audio_buffer.speech_started",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "conversation.item.done",
            "response.done",
        ]
        assert done["status"] == "cancelled"
        assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        assert done["output"][0]["status"] == "incomplete"
        assert done["output"][0]["content"][0]["transcript"] == "Well, I"
        assert done["usage"]["total_tokens"] == 65
        item = done["output"][0]["id"]
        await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=400)
        await client.until("conversation.item.truncated")
        await client.send("conversation.item.retrieve", item_id=item)
        retrieved = (await client.until("conversation.item.retrieved"))["item"]
        assert retrieved["content"][0]["transcript"] == "Well,"
        assert conversation.calls[-1] == ("truncate", {"heard": 0.4})
        # a client that has sent one already may send another, by a clock of its own: nothing comes back
        await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=500)
        await client.until("conversation.item.truncated")
        await client.send("conversation.item.retrieve", item_id=item)
        assert (await client.until("conversation.item.retrieved"))["item"] == retrieved

    session(talk)


def test_an_answer_is_truncated_before_the_next_one_is_asked_for(session: Any) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        conversation.happens(*SPOKEN, live.SoundMade(0, chunk(0)), live.Finished(0, "end", METRICS))
        item = (await client.until("response.done"))["response"]["output"][0]["id"]
        cut = {"item_id": item, "content_index": 0, "audio_end_ms": 1}
        await client.type("two")
        await client.send("response.create")
        await client.send("conversation.item.truncate", event_id="late", **cut)
        error = await client.error()
        assert (error["event_id"], error["param"]) == ("late", "item_id")
        assert "truncate" not in [name for name, _ in conversation.calls]

    session(talk)


def test_an_answer_is_deleted_before_the_next_one_is_asked_for(session: Any) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        conversation.happens(*SPOKEN, live.SoundMade(0, chunk(0)), live.Finished(0, "end", METRICS))
        item = (await client.until("response.done"))["response"]["output"][0]["id"]
        await client.type("two")
        await client.send("response.create")
        await client.send("conversation.item.delete", event_id="late", item_id=item)
        error = await client.error()
        assert (error["event_id"], error["code"]) == ("late", "item_delete_unsupported")
        assert "truncate" not in [name for name, _ in conversation.calls]

    session(talk)


def test_behind_a_deleted_answer_no_other_can_be_deleted_or_truncated(session: Any) -> None:
    """The engine would cut the last turn once more, and remember the one that the client is told is gone."""

    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        conversation.happens(*SPOKEN, live.SoundMade(0, chunk(0)), live.Finished(0, "end", METRICS))
        first = (await client.until("response.done"))["response"]["output"][0]["id"]
        await client.type("two")
        await client.send("response.create")
        await client.update()
        conversation.happens(
            live.TurnBegun(1, speculative=False), live.AnswerBegun(1), live.Finished(1, "end", METRICS)
        )
        second = (await client.until("response.done"))["response"]["output"][0]["id"]
        await client.send("conversation.item.delete", item_id=second)
        await client.until("conversation.item.deleted")
        await client.send("conversation.item.delete", event_id="delete", item_id=first)
        error = await client.error()
        assert (error["event_id"], error["code"]) == ("delete", "item_delete_unsupported")
        cut = {"item_id": first, "content_index": 0, "audio_end_ms": 1}
        await client.send("conversation.item.truncate", event_id="truncate", **cut)
        error = await client.error()
        assert (error["event_id"], error["param"]) == ("truncate", "item_id")
        assert [call for call in conversation.calls if call[0] == "truncate"] == [("truncate", {"heard": 0.0})]
        await client.send("conversation.item.retrieve", item_id=first)
        await client.until("conversation.item.retrieved")

    session(talk)


def test_a_speculative_turn_that_is_taken_back_is_not_seen(session: Any, script: Script) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        before = len(client.events)
        begun, ended, committed, _, answer = SPOKEN
        conversation.happens(
            begun,
            live.TurnBegun(0, speculative=True),
            live.TurnTakenBack(0),
            live.TurnBegun(0, speculative=True),
            ended,
            committed,
            answer,
            live.Finished(0, "end", METRICS),
        )
        await client.until("response.done")
        assert client.kinds(before)[:4] == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
        ]
        started = client.events[before]
        assert started["audio_start_ms"] == 700

    session(talk)


def test_sound_is_held_until_it_can_be_played_through(session: Any) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        conversation.happens(*SPOKEN, live.SoundMade(0, chunk(0, start_in=3600.0)), live.TextWritten(0, "Yes."))
        await client.until("response.output_audio_transcript.delta")
        conversation.happens(live.SoundMade(0, chunk(1)))
        assert "response.output_audio.delta" not in client.kinds()
        conversation.happens(live.Finished(0, "end", METRICS))  # all is there: it can be played through
        done = (await client.until("response.done"))["response"]
        assert len(client.sound(done["id"])) == 48_000

    session(talk)


def test_held_sound_is_let_go_in_its_time(session: Any) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        conversation.happens(*SPOKEN, live.SoundMade(0, chunk(0, start_in=0.01)), live.SoundMade(0, chunk(1)))
        await client.until("response.output_audio.delta")
        await client.until("response.output_audio.delta")
        conversation.happens(live.SoundMade(0, chunk(2)))
        await client.until("response.output_audio.delta")

    session(talk)


def test_held_sound_of_a_cancelled_answer_is_never_sent(session: Any) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        conversation.happens(*SPOKEN, live.SoundMade(0, chunk(0, start_in=3600.0)), live.TextWritten(0, "Yes."))
        await client.until("response.output_audio_transcript.delta")
        await client.send("response.cancel")
        await client.update()
        conversation.happens(live.Finished(0, "cancelled", METRICS))
        done = (await client.until("response.done"))["response"]
        assert client.sound(done["id"]) == b"" and ("interrupt", {"heard": 0.0}) in conversation.calls

    session(talk)


def test_long_sound_is_sent_in_pieces(session: Any) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        conversation.happens(*SPOKEN, live.SoundMade(0, chunk(0, seconds=2.5)), live.Finished(0, "end", METRICS))
        done = (await client.until("response.done"))["response"]
        assert client.kinds().count("response.output_audio.delta") == 3
        assert len(client.sound(done["id"])) == 120_000

    session(talk)


def test_an_answer_that_is_cancelled_before_it_begins(session: Any) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        await client.type("one")
        await client.send("response.create")
        await client.send("response.cancel")
        await client.update()
        conversation.happens(live.TurnBegun(0, speculative=False), live.AnswerBegun(0), live.TextWritten(0, "So"))
        await client.until("response.content_part.added")
        conversation.happens(live.Finished(0, "cancelled", METRICS))
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "cancelled" and done["output"][0]["content"][0]["transcript"] == ""
        assert ("interrupt", {"heard": 0.0}) in conversation.calls

    session(talk)


def test_a_failed_turn_closes_its_response(session: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        conversation.happens(*SPOKEN, live.TextWritten(0, "So"), live.Failed(0, RuntimeError("secret detail")))
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "failed" and done["status_details"]["error"]["code"] == "internal_error"
        assert "secret" not in str(client.events)

    session(talk)
    assert "secret detail" in caplog.text


def test_a_fault_of_the_server_is_told_without_its_details(
    session: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        def broken(text: str) -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(conversation, "say", broken)
        await client.type("one", id="lost")
        error = await client.error()
        assert error["code"] == "internal_error" and error["type"] == "server_error"
        assert "secret" not in str(client.events)
        monkeypatch.undo()
        await client.type("one", id="lost")  # the item that failed is not there
        await client.until("conversation.item.done")

    session(talk)
    assert "secret detail" in caplog.text


def test_a_request_that_fails_is_named(session: Any) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        await client.update(audio={"input": {"turn_detection": None}})
        await client.send("input_audio_buffer.commit", event_id="commit")
        await client.send("response.create", event_id="create")
        await client.update()
        nothing = SettingError("there is nothing to answer", "commit speech, or say something")
        conversation.happens(live.Failed(None, nothing), live.Failed(None, nothing))
        assert [(await client.error())["event_id"] for _ in range(2)] == ["commit", "create"]
        await client.type("one")
        await client.send("response.create")  # nothing is owed any more
        await client.update()
        assert [name for name, _ in conversation.calls].count("respond") == 2

    session(talk)


def test_settings_reach_the_conversation(session: Any) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        detection = {"type": "server_vad", "threshold": 1.0, "silence_duration_ms": 200, "interrupt_response": False}
        shown = await client.update(instructions="Be brief.", audio={"input": {"turn_detection": detection}})
        assert shown["audio"]["input"]["turn_detection"] | detection == shown["audio"]["input"]["turn_detection"]
        name, call = conversation.calls[-1]
        assert name == "update" and call["system"] == "Be brief."
        assert call["detection"].silence == 0.2 and not call["detection"].interrupt_response
        await client.type("one")
        await client.send("response.create", response={"instructions": "Be long.", "max_output_tokens": 7})
        await client.update()
        assert ("respond", {"max_new_tokens": 7, "system": "Be long."}) in conversation.calls

    session(talk)


def test_the_voice_can_change_until_the_conversation_begins(session: Any, script: Script) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        assert (await client.update(audio={"output": {"voice": "other"}}))["audio"]["output"]["voice"] == "other"
        await client.type("one")
        await client.until("conversation.item.done")
        assert script.conversations[-1].calls[0][1]["voice"] == "other"
        await client.send("session.update", session={"type": "realtime", "audio": {"output": {"voice": "own"}}})
        assert (await client.error())["code"] == "cannot_update_voice"
        assert (await client.update(instructions="x"))["audio"]["output"]["voice"] == "other"

    session(talk)


def test_the_voice_stays_while_an_item_or_an_answer_is_to_come(session: Any, script: Script) -> None:
    """Neither is told yet, and the conversation that owes them goes on."""

    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        await client.push_to_talk()
        other = {"type": "realtime", "audio": {"output": {"voice": "other"}}}
        await client.send("input_audio_buffer.commit")
        await client.send("session.update", session=other)
        assert (await client.error())["code"] == "cannot_update_voice"
        nothing = SettingError("there is nothing to answer", "commit speech, or say something")
        conversation.happens(live.Failed(None, nothing))
        await client.error()
        await client.send("response.create", response={"instructions": "Greet them."})
        await client.send("session.update", session=other)
        assert (await client.error())["code"] == "cannot_update_voice"
        conversation.happens(
            live.TurnBegun(0, speculative=False), live.AnswerBegun(0), live.Finished(0, "end", METRICS)
        )
        await client.until("response.done")
        assert script.conversations == [conversation]

    session(talk)


def test_nothing_that_was_heard_before_the_voice_changed_counts(session: Any, script: Script) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        conversation.happens(live.SpeechBegan(at=3_200, begin=0))
        await client.until("input_audio_buffer.speech_started")
        await client.update(audio={"output": {"voice": "other"}})
        await client.send("input_audio_buffer.commit")
        error = await client.error()
        assert error["code"] == "input_audio_buffer_commit_empty" and " 0 ms" in error["message"]
        content = [{"type": "input_audio", "audio": base64.b64encode(bytes(9_600)).decode()}]
        await client.send(
            "conversation.item.create", item={"id": "mine", "type": "message", "role": "user", "content": content}
        )
        await client.until("conversation.item.done")
        script.conversations[-1].happens(live.Committed(begin=0, end=3_200, answered=False))  # which is that item
        await client.send("response.create")
        await client.update()
        script.conversations[-1].happens(live.TurnBegun(0, speculative=False), live.AnswerBegun(0))
        answer = await client.until("response.output_item.added")
        assert (await client.until("conversation.item.added"))["previous_item_id"] == "mine" != answer["item"]["id"]
        assert "input_audio_buffer.committed" not in client.kinds()

    session(talk)


def test_a_refused_update_leaves_the_conversation(new_server: Any, script: Script) -> None:
    def refuse(text: str) -> None:
        raise SettingError("the instructions hold control tokens", "leave them out")

    server = new_server(host=replace(script.host, check_instructions=refuse))

    async def connected() -> None:
        async with server.client() as client:
            await client.append(bytes(9_600))
            changes = {"type": "realtime", "instructions": "x", "audio": {"output": {"voice": "other"}}}
            await client.send("session.update", session=changes)
            assert "control tokens" in (await client.error())["message"]
            await client.type("one")
            await client.until("conversation.item.done")
            (conversation,) = script.conversations
            assert ("say", {"text": "one"}) in conversation.calls

    asyncio.run(connected())


def test_a_session_that_is_not_heard_in_time_ends(
    session: Any, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(client: Client, conversation: ScriptedConversation) -> None:
        conversation.unheard = ServiceLimits().unheard
        await client.append(bytes(9_600))
        await client.update(instructions="x")  # it goes on so far
        conversation.unheard += 0.1
        await client.append(bytes(9_600))
        assert (await client.error())["code"] == "server_full"
        await client.socket.wait_closed()
        assert client.socket.close_code == 1013
        assert "use fewer --sessions" in caplog.text  # which is for the operator

    session(talk)


def test_a_full_engine_says_so_and_the_session_ends(new_server: Any, script: Script) -> None:
    def full(*_: Any) -> Any:
        raise CapacityError("no room", "come back")

    server = new_server(host=replace(script.host, open=full))

    async def connected() -> None:
        async with server.client() as client:
            await client.type("one")
            assert (await client.error())["code"] == "server_full"
            await client.socket.wait_closed()
            assert client.socket.close_code == 1013

    asyncio.run(connected())
