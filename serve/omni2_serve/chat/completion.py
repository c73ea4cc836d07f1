"""A chat completion: asked, answered, told at once or as a stream of events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial
from time import time
from typing import Any

import numpy as np
import soxr
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from omni2_engine import Session
from omni2_engine.errors import Omni2Error
from omni2_engine.system.log_names import conversation
from omni2_engine.turn.chunk import Chunk
from omni2_serve.access import sent_key
from omni2_serve.bodies import read_json
from omni2_serve.chat.request import ChatQuestion, ChatRequest, question
from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.ids import new_id
from omni2_serve.protocol.usage import usage
from omni2_serve.realtime.failures import in_words
from omni2_serve.service import Service
from omni2_serve.sound.files import encode_file
from omni2_serve.sound.formats import PCM, Encoder, Floats, to_base64
from omni2_serve.threads import on_a_thread

KEPT = 3600  # seconds: an answer's sound is not kept at all, and clients want a time


async def chat_completion(request: Request, service: Service) -> Response:
    """Answer a request.

    Raises:
        RequestError: it cannot be answered.
    """
    service.access.check(sent_key(request.headers.get("authorization")))
    asked = await read_json(request, ChatRequest, service.limits.message)
    name = new_id("chatcmpl")
    conversation.set(name)
    with ExitStack() as held:
        try:
            wanted = question(asked, service.host)
            held.enter_context(service.request())
            session = held.enter_context(service.host.session(wanted.voice, wanted.system))
        except Omni2Error as error:
            raise in_words(error) from None
        completion = Completion(name, service.host.name, wanted, session)
        if asked.stream:
            shows_usage = asked.stream_options is not None and asked.stream_options.include_usage
            events = completion.events(held.pop_all(), shows_usage)
            first = await anext(events)  # so that what cannot be answered has a status of its own
            return StreamingResponse(_followed(first, events), media_type="text/event-stream")
        return JSONResponse(await completion.whole())


@dataclass
class Completion:
    """One answer.

    Args:
        id: its own, which lines of the log name too.
        model: its name.
        question: what is asked.
        session: answers.
    """

    id: str
    model: str
    question: ChatQuestion
    session: Session
    created: int = field(default_factory=lambda: int(time()))

    async def whole(self) -> dict[str, Any]:
        """The object `chat.completion`."""
        chunks = [chunk async for chunk in self._chunks()]
        text = "".join(chunk.text for chunk in chunks)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self.question.format is not None:
            data = await on_a_thread(partial(_file, chunks, self.question.format))
            audio = {
                "id": new_id("audio"),
                "data": to_base64(data),
                "transcript": text,
                "expires_at": self.created + KEPT,
            }
            message |= {"content": None, "audio": audio}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(chunks[-1])}
        return self._object("chat.completion", choices=[choice], usage=self._usage())

    async def events(self, held: ExitStack, shows_usage: bool) -> AsyncIterator[bytes]:
        """Server-sent events; `held` is given back behind the last one."""
        with held:
            speaks, name = self.question.format is not None, new_id("audio")
            encoder: Encoder | None = None
            delta: dict[str, Any] = {"role": "assistant", "content": None if speaks else "", "refusal": None}
            if speaks:
                delta["audio"] = {"id": name}
            last: Chunk | None = None
            async for chunk in self._chunks():
                if last is None:
                    yield self._event(delta)
                last = chunk
                encoder = encoder or Encoder(PCM, chunk.sample_rate)
                if not speaks:
                    if chunk.text:
                        yield self._event({"content": chunk.text})
                    continue
                if chunk.text:
                    yield self._event({"audio": {"id": name, "transcript": chunk.text}})
                if data := encoder.encode(chunk.pcm, last=chunk.final):
                    yield self._event({"audio": {"id": name, "data": to_base64(data)}})
            assert last is not None
            if speaks:
                yield self._event({"audio": {"id": name, "expires_at": self.created + KEPT}})
            yield self._event({}, _reason(last))
            if shows_usage:
                yield _line(self._object("chat.completion.chunk", choices=[], usage=self._usage()))
            yield b"data: [DONE]\n\n"

    async def _chunks(self) -> AsyncIterator[Chunk]:
        asked = self.question
        chunks = self.session.astream(asked.audio, text=asked.text, **asked.options)
        try:
            if asked.earlier:
                await self.session.aadd_turns(asked.earlier, **asked.options)
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        except Omni2Error as error:
            raise in_words(error) from None

    def _event(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _line(self._object("chat.completion.chunk", choices=[choice]))

    def _object(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, **fields}

    def _usage(self) -> dict[str, Any]:
        counted = usage(self.session.metrics)
        heard, said = counted["input_token_details"], counted["output_token_details"]
        return {
            "prompt_tokens": counted["input_tokens"],
            "completion_tokens": counted["output_tokens"],
            "total_tokens": counted["total_tokens"],
            "prompt_tokens_details": {"audio_tokens": heard["audio_tokens"], "cached_tokens": heard["cached_tokens"]},
            "completion_tokens_details": {"audio_tokens": said["audio_tokens"], "text_tokens": said["text_tokens"]},
        }


async def _followed(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """All events, the first of which has been taken."""
    yield first
    try:
        async for event in events:
            yield event
    except RequestError as error:  # the status has been sent
        yield _line({"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}})


def _file(chunks: list[Chunk], name: str) -> bytes:
    samples: Floats = np.concatenate([chunk.pcm for chunk in chunks])
    if chunks[0].sample_rate != PCM.rate:
        samples = soxr.resample(samples, chunks[0].sample_rate, PCM.rate)
    return encode_file(samples, name)


def _reason(last: Chunk) -> str:
    return "length" if last.finish_reason == "limit" else "stop"


def _line(value: dict[str, Any]) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"
