"""`livekit-plugins-openai`: every kind of turn. Arguments: as of openai_client.py."""

from __future__ import annotations

import asyncio
import sys
import wave
from pathlib import Path
from typing import Any

import aiohttp
from livekit import rtc
from livekit.agents import llm
from livekit.plugins.openai.realtime import RealtimeModel
from openai.types.realtime.realtime_audio_input_turn_detection import ServerVad

RATE = 24_000
PIECE = RATE // 20
SILENCE = bytes(2 * RATE)


class Talk:
    """A session, and what came of it.

    Attributes:
        spoken: what came of speech: "began", "ended", or a generation.
        seen: types of all events from the server.
    """

    def __init__(self, address: str, http: aiohttp.ClientSession) -> None:
        vad = ServerVad(type="server_vad", silence_duration_ms=300, create_response=True, interrupt_response=True)
        self.model = RealtimeModel(
            model="any", base_url=f"http://{address}/v1", api_key="any", http_session=http, turn_detection=vad
        )
        self.session = self.model.session()
        self.spoken: asyncio.Queue[Any] = asyncio.Queue()
        self.seen: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.errors: list[Any] = []
        self.session.on("input_speech_started", lambda event: self.spoken.put_nowait("began"))
        self.session.on("input_speech_stopped", lambda event: self.spoken.put_nowait("ended"))
        self.session.on("generation_created", self._generation)
        self.session.on("openai_server_event_received", self.seen.put_nowait)
        self.session.on("error", self.errors.append)

    def _generation(self, event: llm.GenerationCreatedEvent) -> None:
        if not event.user_initiated:
            self.spoken.put_nowait(event)

    def say(self, sound: bytes) -> None:
        for start in range(0, len(sound), 2 * PIECE):
            data = sound[start : start + 2 * PIECE]
            self.session.push_audio(rtc.AudioFrame(data, RATE, 1, len(data) // 2))

    async def until(self, kind: str) -> dict[str, Any]:
        while (event := await self.seen.get())["type"] != kind:
            pass
        return event

    async def type(self, text: str) -> llm.GenerationCreatedEvent:
        context = self.session.chat_ctx.copy()
        context.add_message(role="user", content=text)
        await self.session.update_chat_ctx(context)
        return await self.session.generate_reply()


async def heard(generation: llm.GenerationCreatedEvent) -> tuple[str, str, float]:
    """Name, text and seconds of sound of an answer."""
    async for message in generation.message_stream:
        text, seconds = "", 0.0

        async def read(stream: Any = message.text_stream) -> str:
            return "".join([piece async for piece in stream])

        reading = asyncio.create_task(read())
        async for frame in message.audio_stream:
            seconds += frame.duration
        text = await reading
        return message.message_id, text, seconds
    raise AssertionError("no message")


async def main(address: str, speech: bytes, hold: Path) -> None:
    async with aiohttp.ClientSession() as http:
        talk = Talk(address, http)
        await talk.until("session.updated")

        print("a spoken turn")
        talk.say(SILENCE + speech + SILENCE)
        assert await talk.spoken.get() == "began" and await talk.spoken.get() == "ended"
        name, text, seconds = await heard(await talk.spoken.get())
        assert text and seconds > 0.5, (text, seconds)

        print("typed turns")
        for question in ("one", "two"):
            name, text, seconds = await heard(await talk.type(question))
            assert text, text

        print("instructions")
        await talk.session.update_instructions("Be brief.")
        assert (await talk.until("session.updated"))["session"]["instructions"] == "Be brief."

        print("cancel")
        hold.touch()
        talk.say(speech + SILENCE)
        assert await talk.spoken.get() == "began" and await talk.spoken.get() == "ended"
        generation = await talk.spoken.get()
        await talk.until("response.output_audio.delta")
        talk.session.interrupt()
        done = (await talk.until("response.done"))["response"]
        assert done["status_details"]["reason"] == "client_cancelled", done
        await heard(generation)

        print("barge-in, truncate")
        talk.say(speech + SILENCE)
        assert await talk.spoken.get() == "began" and await talk.spoken.get() == "ended"
        generation = await talk.spoken.get()
        await talk.until("response.output_audio.delta")
        talk.say(speech)
        assert await talk.spoken.get() == "began"
        hold.unlink()
        name, text, seconds = await heard(generation)
        talk.session.truncate(message_id=name, modalities=["audio"], audio_end_ms=100)
        assert (await talk.until("conversation.item.truncated"))["item_id"] == name
        talk.say(SILENCE)
        assert await talk.spoken.get() == "ended"
        await heard(await talk.spoken.get())

        print("an item that cannot be: the session goes on")
        context = talk.session.chat_ctx.copy()
        context.add_message(role="assistant", content="I never said this.")
        await talk.session.update_chat_ctx(context)
        assert not talk.errors, talk.errors

        await talk.session.aclose()
        print("reconnect")
        talk = Talk(address, http)
        _, text, _ = await heard(await talk.type("one"))
        assert text
        await talk.session.aclose()
        assert not talk.errors, talk.errors


with wave.open(sys.argv[2]) as recording:
    question = recording.readframes(recording.getnframes())
asyncio.run(main(sys.argv[1], question, Path(sys.argv[3])))
