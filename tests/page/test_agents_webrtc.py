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

from ..serve.running import RunningServer
from ..waiting import SOON

BUNDLE = "@openai/agents-realtime/dist/bundle"
CLIENT = """
<!doctype html>
<script type="module">
  import { OpenAIRealtimeWebRTC, RealtimeAgent, RealtimeSession } from "/bundle/openai-realtime-agents.mjs";
  window.events = [];
  window.transport = new OpenAIRealtimeWebRTC({ useInsecureApiKey: true });
  const turnDetection = { type: "server_vad", silenceDurationMs: 500, interruptResponse: true };
  const session = new RealtimeSession(new RealtimeAgent({ name: "any" }), {
    transport, model: "any", tracingDisabled: true, config: { audio: { input: { turnDetection } } },
  });
  window.transport.on("*", (event) => window.events.push(event));
  session.on("error", ({ error }) => window.events.push({ type: "failed", error: JSON.stringify(error) }));
  await session.connect({ apiKey: "any-key-will-do", url: `${location.origin}/v1/realtime/calls` });
  window.session = session;
</script>
"""
ENERGY = """
async () => {
  const stats = await transport.connectionState.peerConnection.getStats();
  return [...stats.values()].find((each) => each.type === "inbound-rtp").totalAudioEnergy;
}
"""


@pytest.fixture
def address(demo_engine_dir: Path) -> Iterator[str]:
    with Engine.load(demo_engine_dir, threads=1, sessions=1) as engine:
        server = RunningServer(Service(engine_host(engine)))
        yield f"http://{server.address}"
        server.stop()


def test_a_spoken_turn_and_an_interruption(browser: Any, packages: Path, address: str, repository: Path) -> None:
    questions = repository / "examples" / "questions"
    # As in test_page.py: the second question comes into the answer to the first, the first time or a later one.
    microphone = browser.hearing(1.0, questions / "082-0.ogg", 2.8, questions / "135-0.ogg", 3.2, loop=True)
    page = microphone.new_page()
    page.set_default_timeout(1000 * SOON)
    page.route("**/agents.html", lambda route: route.fulfill(body=CLIENT, content_type="text/html"))
    page.route("**/bundle/*", lambda route: route.fulfill(path=packages / BUNDLE / route.request.url.split("/")[-1]))
    page.goto(f"{address}/agents.html")
    _until(page, "window.session")
    _until(page, "events.some((event) => event.type === 'output_audio_buffer.started')")
    while page.evaluate(ENERGY) < 0.001:
        page.wait_for_timeout(20)
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
    while not page.evaluate(f"!!({condition})"):
        wrong = page.evaluate("(window.events ?? []).filter((event) => ['error', 'failed'].includes(event.type))")
        assert wrong == [], json.dumps(wrong)
        page.wait_for_timeout(20)
