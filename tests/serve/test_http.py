"""The routes beside the WebSocket, called by `openai` where it calls them."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from openai import APIStatusError, OpenAI
from openai.types.realtime.client_secret_create_response import ClientSecretCreateResponse

from omni2_engine import Engine
from omni2_serve.app import make_app
from omni2_serve.host import Host
from omni2_serve.limits import ServiceLimits
from omni2_serve.service import Service

from ..waiting import SOON

TYPED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}]


@pytest.fixture
def http(server: Any) -> httpx.Client:
    return httpx.Client(base_url=f"http://{server.address}", timeout=SOON)


@pytest.fixture
def client(server: Any) -> OpenAI:
    return OpenAI(base_url=f"http://{server.address}/v1", api_key="any", max_retries=0, timeout=SOON)


@pytest.fixture(scope="module")
def spoken(question: Path) -> list[dict[str, Any]]:
    """A message that holds a recording."""
    audio = {"data": base64.b64encode(question.read_bytes()).decode(), "format": "wav"}
    return [{"role": "user", "content": [{"type": "input_audio", "input_audio": audio}]}]


def test_health_models_and_the_page(http: httpx.Client, client: OpenAI, served_engine: Engine) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"ready": True}
    assert [model.id for model in client.models.list()] == [served_engine.config.name]
    assert "<html" in http.get("/").text
    for path in ("/none", "/v1/none", "/../../setup.py", "/%2e%2e/cli.py"):
        answer = http.get(path)
        assert answer.status_code == 404 and "error" in answer.json()


def test_metrics_count_what_happened(server: Any, http: httpx.Client) -> None:
    async def connected() -> None:
        async with server.client() as talking:
            await talking.ask("one")

    asyncio.run(connected())
    page = http.get("/metrics").text
    assert 'omni2_turns_total{reason="end"} 1.0' in page
    assert "omni2_first_sound_seconds_count 1.0" in page
    assert "omni2_waiting_turns 0.0" in page and "omni2_memory_bytes" in page


def test_a_client_secret_is_what_openai_expects(client: OpenAI) -> None:
    made = client.realtime.client_secrets.create(session={"type": "realtime", "instructions": "Be brief."})
    ClientSecretCreateResponse.model_validate(made.model_dump(), strict=True)
    assert made.session.instructions == "Be brief."  # type: ignore[union-attr]


def test_replicas_refuse_what_one_process_alone_knows(host: Host) -> None:
    async def ask() -> None:
        app = make_app(Service(host), replicated=True)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            for path in ("client_secrets", "calls"):
                answer = await http.post(f"/v1/realtime/{path}", json={})
                error = answer.json()["error"]
                assert answer.status_code == 501 and error["code"] == "unsupported" and "under Ray" in error["message"]
            assert (await http.get("/v1/models")).status_code == 200

    asyncio.run(ask())


def test_a_spoken_question_is_answered_with_a_file(
    client: OpenAI, served_engine: Engine, spoken: Any, question: Path
) -> None:
    expected = np.concatenate([chunk.pcm for chunk in served_engine.stream(question)])
    for name in ("wav", "flac", "mp3", "opus", "pcm16"):
        done = client.chat.completions.create(
            model="any",
            messages=spoken,
            modalities=["text", "audio"],
            audio={"voice": "alloy", "format": name},  # type: ignore[typeddict-item]
        )
        audio = done.choices[0].message.audio
        assert audio is not None and audio.transcript and done.choices[0].finish_reason == "stop"
        data = base64.b64decode(audio.data)
        if name == "pcm16":
            samples, rate = np.frombuffer(data, "<i2") / 32_768, 24_000
        else:
            samples, rate = soundfile.read(io.BytesIO(data))
        assert abs(len(samples) / rate - len(expected) / 24_000) < 0.1
        if name in ("wav", "pcm16"):
            assert np.abs(samples - np.clip(expected, -1, 1)).max() < 1e-4
    assert done.usage is not None and done.usage.prompt_tokens_details is not None
    assert done.usage.prompt_tokens_details.audio_tokens and done.usage.completion_tokens


def test_an_answer_is_streamed(client: OpenAI, spoken: Any) -> None:
    whole = client.chat.completions.create(
        model="any", messages=spoken, modalities=["text", "audio"], audio={"voice": "alloy", "format": "pcm16"}
    )
    chunks = list(
        client.chat.completions.create(
            model="any",
            messages=spoken,
            modalities=["text", "audio"],
            audio={"voice": "alloy", "format": "pcm16"},
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    deltas = [chunk.choices[0].delta.model_dump().get("audio") or {} for chunk in chunks if chunk.choices]
    audio = whole.choices[0].message.audio
    assert audio is not None and chunks[-1].usage == whole.usage
    assert "".join(delta.get("transcript") or "" for delta in deltas) == audio.transcript
    sound = b"".join(base64.b64decode(delta.get("data") or "") for delta in deltas)
    assert sound == base64.b64decode(audio.data) and chunks[-2].choices[0].finish_reason == "stop"


def test_text_alone(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="any", messages=TYPED, max_completion_tokens=3)  # type: ignore[arg-type]
    assert whole.choices[0].finish_reason == "length" and whole.choices[0].message.audio is None
    stream = client.chat.completions.create(model="any", messages=TYPED, max_completion_tokens=3, stream=True)  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == whole.choices[0].message.content


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}, "messages"),
        ({"messages": TYPED, "n": 2}, "n"),
        ({"messages": TYPED, "tool_choice": "required"}, "tool_choice"),
        ({"messages": TYPED, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": TYPED, "modalities": ["audio"], "audio": {"voice": "nobody"}}, "audio.voice"),
        ({"messages": TYPED, "modalities": ["audio"], "audio": {"format": "midi"}}, "audio.format"),
        ({"messages": TYPED, "modalities": ["audio"], "stream": True}, "audio.format"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, None),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "?"}}]}]}, "audio"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}]}, None),
    ],
)
def test_what_cannot_be_answered_is_said(http: httpx.Client, body: dict[str, Any], param: str | None) -> None:
    answer = http.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["type"] == "invalid_request_error"
    assert param is None or error["param"] == param
    assert http.post("/v1/chat/completions", content=b"\xff{").status_code == 400


def test_a_body_is_not_read_without_end(new_server: Any) -> None:
    server = new_server(ServiceLimits(message=1_000))
    answer = httpx.post(f"http://{server.address}/v1/chat/completions", content=b" " * 2_000, timeout=SOON)
    assert answer.status_code == 413


def test_a_full_server_refuses_a_completion(new_server: Any) -> None:
    server = new_server(ServiceLimits(requests=0))
    client = OpenAI(base_url=f"http://{server.address}/v1", api_key="any", max_retries=0, timeout=SOON)
    with pytest.raises(APIStatusError) as error:
        client.chat.completions.create(model="any", messages=TYPED)  # type: ignore[arg-type]
    assert error.value.status_code == 503 and error.value.response.headers["Retry-After"]


def test_a_stream_that_is_left_gives_everything_back(server: Any, served_engine: Engine) -> None:
    body = {"messages": TYPED, "stream": True}
    address = f"http://{server.address}/v1/chat/completions"
    with httpx.stream("POST", address, json=body, timeout=SOON) as answer:
        assert next(answer.iter_bytes())

    async def left() -> None:
        while server.service.requests or served_engine.waiting:
            await asyncio.sleep(0.01)

    asyncio.run(left())
