"""`openai` for Python: every kind of turn.

Arguments: the server's address, a recording (WAV, 24 kHz, 16 bits, mono), a file. While it is there, the server holds
answers back after their first sound until they are interrupted.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import wave
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

PIECE = 4800  # bytes: a tenth of a second
SILENCE = bytes(48_000)
PATIENCE = 300.0  # seconds with a busy machine


async def until(connection: AsyncRealtimeConnection, kind: str) -> Any:
    """Take events up to one of this kind."""
    while True:
        event = await connection.recv()
        if event.type == kind:
            return event
        assert event.type != "error", event


async def say(connection: AsyncRealtimeConnection, sound: bytes) -> None:
    for start in range(0, len(sound), PIECE):
        audio = base64.b64encode(sound[start : start + PIECE]).decode()
        await connection.input_audio_buffer.append(audio=audio)


async def type_(connection: AsyncRealtimeConnection, text: str) -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await connection.conversation.item.create(item=item)
    await connection.response.create()


async def main(address: str, speech: bytes, hold: Path) -> None:
    client = AsyncOpenAI(base_url=f"http://{address}/v1", websocket_base_url=f"ws://{address}/v1", api_key="any")
    assert [model.id async for model in await client.models.list()]
    patient = {"open_timeout": PATIENCE, "ping_timeout": PATIENCE}
    async with client.realtime.connect(model="any", websocket_connection_options=patient) as connection:
        await until(connection, "session.created")
        vad = {"type": "server_vad", "silence_duration_ms": 300, "interrupt_response": True}
        await connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": vad}}})
        assert (
            await until(connection, "session.updated")
        ).session.audio.input.turn_detection.silence_duration_ms == 300

        print("a spoken turn")
        await say(connection, SILENCE + speech + SILENCE)
        await until(connection, "input_audio_buffer.committed")
        await until(connection, "response.output_audio.delta")
        done = (await until(connection, "response.done")).response
        assert done.status == "completed" and done.usage.input_token_details.audio_tokens, done

        print("a typed turn, and another")
        for text in ("one", "two"):
            await type_(connection, text)
            done = (await until(connection, "response.done")).response
            assert done.status == "completed" and done.output[0].content[0].transcript, done

        print("cancel")
        hold.touch()
        await say(connection, speech + SILENCE)
        await until(connection, "response.output_audio.delta")
        await connection.response.cancel()
        done = (await until(connection, "response.done")).response
        assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled"), done

        print("barge-in, truncate, retrieve")
        await say(connection, speech + SILENCE)
        sounded = await until(connection, "response.output_audio.delta")
        await say(connection, speech)
        await until(connection, "input_audio_buffer.speech_started")
        hold.unlink()
        done = (await until(connection, "response.done")).response
        assert (done.status, done.status_details.reason) == ("cancelled", "turn_detected"), done
        await connection.conversation.item.truncate(item_id=sounded.item_id, content_index=0, audio_end_ms=100)
        await until(connection, "conversation.item.truncated")
        await connection.conversation.item.retrieve(item_id=sounded.item_id)
        assert (await until(connection, "conversation.item.retrieved")).item.id == sounded.item_id
        await say(connection, SILENCE)
        done = (await until(connection, "response.done")).response
        assert done.status == "completed", done

        print("a wrong event")
        await connection.send({"type": "no.such.event", "event_id": "mine"})
        error = await until(connection, "error")
        assert error.error.event_id == "mine", error

    print("reconnect")
    async with client.realtime.connect(model="any", websocket_connection_options=patient) as connection:
        await type_(connection, "one")
        assert (await until(connection, "response.done")).response.status == "completed"


with wave.open(sys.argv[2]) as recording:
    question = recording.readframes(recording.getnframes())
asyncio.run(main(sys.argv[1], question, Path(sys.argv[3])))
