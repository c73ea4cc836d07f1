"""`@openai/agents` in a browser, over WebRTC: a microphone of its own, and sound from the server's track."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omni2_engine import Engine
from omni2_serve.engine_host import engine_host
from omni2_serve.service import Service

from ..held_answers import holding
from ..serve.running import RunningServer
from ..waiting import SOON
from .conftest import Speaker, until

HELD_AFTER = 2.0  # seconds of sound: an answer that is to be interrupted
BUNDLE = "@openai/agents-realtime/dist/bundle"
CLIENT = """
<!doctype html>
<button>Connect</button>
<script type="module">
  import { OpenAIRealtimeWebRTC, RealtimeAgent, RealtimeSession } from "/bundle/openai-realtime-agents.mjs";
  window.events = [];
  window.transport = new OpenAIRealtimeWebRTC({ useInsecureApiKey: true });
  const turnDetection = { type: "server_vad", silenceDurationMs: 500, interruptResponse: true };
  const session = new RealtimeSession(new RealtimeAgent({ name: "any" }), {
    transport, model: "any", tracingDisabled: true, config: { audio: { input: { turnDetection } } },
  });
  window.transport.on("*", (event) => window.events.push(event));
  window.onunhandledrejection = ({ reason }) => window.events.push({ type: "failed", error: String(reason) });
  session.on("error", ({ error }) => window.events.push({ type: "failed", error: JSON.stringify(error) }));
  document.querySelector("button").onclick = async () => {
    await session.connect({ apiKey: "any-key-will-do", url: `${location.origin}/v1/realtime/calls` });
    window.session = session;
  };
</script>
"""
SOUNDS = """
[...(await transport.connectionState.peerConnection.getStats()).values()]
  .find((each) => each.type === "inbound-rtp").totalAudioEnergy > 0.001
"""


@pytest.fixture
def address(demo_engine_dir: Path) -> Iterator[str]:
    with Engine.load(demo_engine_dir, threads=1, sessions=1) as engine:
        server = RunningServer(Service(holding(engine_host(engine, chunks="fixed"), HELD_AFTER)))
        yield f"http://{server.address}"
        server.stop()


def test_a_spoken_turn_and_an_interruption(browser: Any, packages: Path, address: str, repository: Path) -> None:
    questions = repository / "examples" / "questions"
    page = browser.hearing(1.0).new_page()
    speaker = Speaker(page)
    page.set_default_timeout(1000 * SOON)
    page.route("**/agents.html", lambda route: route.fulfill(body=CLIENT, content_type="text/html"))
    page.route("**/bundle/*", lambda route: route.fulfill(path=packages / BUNDLE / route.request.url.split("/")[-1]))
    page.goto(f"{address}/agents.html")
    page.click("button")  # without a click browsers let no page sound, and no AudioContext run
    _until(page, "window.session")
    speaker.say(questions / "082-0.ogg")
    _until(page, "events.some((event) => event.type === 'output_audio_buffer.started')")
    _until(page, SOUNDS)
    speaker.say(questions / "135-0.ogg")
    _until(page, "events.some((event) => event.type === 'conversation.item.truncated' && event.audio_end_ms > 0)")
    _until(
        page,
        "events.findLastIndex((event) => event.type === 'output_audio_buffer.started')"
        " > events.findIndex((event) => event.type === 'conversation.item.truncated' && event.audio_end_ms > 0)",
    )
    texts = page.evaluate("events.filter((event) => event.type === 'response.output_audio_transcript.done')")
    assert any(text["transcript"] for text in texts)
    page.evaluate("session.close()")
    page.context.close()


def _until(page: Any, condition: str) -> None:
    """Until a JavaScript expression holds; an error from the server ends it."""

    def look() -> None:
        wrong = page.evaluate("(window.events ?? []).filter((event) => ['error', 'failed'].includes(event.type))")
        assert wrong == [], json.dumps(wrong)

    until(page, condition, look)
