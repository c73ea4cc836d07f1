"""`pipecat-ai`: every kind of turn. Arguments: as of openai_client.py.

Any error but two ends pipecat's session, so a wrong event is one of these two: a cancel of nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
import wave
from pathlib import Path
from typing import Any

from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMTextFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

RATE = 24_000
PIECE = RATE // 20
SILENCE = bytes(2 * RATE)
LONGEST = 100.0  # seconds that a step may take, on a machine however busy


class Taken(FrameProcessor):
    """The end of the pipeline: keeps what comes."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction == FrameDirection.DOWNSTREAM:
            self.frames.put_nowait(frame)
        await self.push_frame(frame, direction)

    async def until(self, *kinds: type[Frame]) -> list[Frame]:
        """Take frames up to one of these kinds."""
        taken: list[Frame] = []
        try:
            async with asyncio.timeout(LONGEST):
                while not taken or not isinstance(taken[-1], kinds):
                    taken.append(await self.frames.get())
        except TimeoutError:
            raise AssertionError(f"no {kinds}, only {taken}") from None
        return taken


class Errors(FrameProcessor):
    """The beginning of the pipeline, where errors arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[ErrorFrame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, ErrorFrame):
            self.seen.append(frame)
        await self.push_frame(frame, direction)


def service(address: str) -> OpenAIRealtimeLLMService:
    vad = events.TurnDetection(type="server_vad", silence_duration_ms=300)
    properties = events.SessionProperties(
        audio=events.AudioConfiguration(
            input=events.AudioInput(transcription=events.InputAudioTranscription(), turn_detection=vad)
        )
    )
    settings = OpenAIRealtimeLLMService.Settings(
        model="any", system_instruction="Be brief.", session_properties=properties
    )
    return OpenAIRealtimeLLMService(api_key="any", base_url=f"ws://{address}/v1/realtime", settings=settings)


async def talk(address: str, speech: bytes, hold: Path) -> None:
    llm, taken, errors = service(address), Taken(), Errors()
    items: dict[str, Any] = {}

    @llm.event_handler("on_conversation_item_updated")
    async def updated(_: Any, name: str, item: Any) -> None:
        items[name] = item

    worker = PipelineWorker(Pipeline([errors, llm, taken]), cancel_on_idle_timeout=False)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())

    async def say(sound: bytes) -> None:
        for start in range(0, len(sound), 2 * PIECE):
            await worker.queue_frame(InputAudioRawFrame(sound[start : start + 2 * PIECE], RATE, 1))

    print("a typed turn")
    context = LLMContext([{"role": "user", "content": "one"}])
    await worker.queue_frame(LLMContextFrame(context))
    frames = await taken.until(LLMFullResponseEndFrame)
    assert any(isinstance(frame, LLMTextFrame) for frame in frames)

    async def ask() -> None:
        """A turn. When speech begins pipecat truncates the answer before, which must reach the server before this turn
        has ended and has an answer of its own.
        """
        await say(SILENCE + speech)
        await taken.until(ProposedUserStartedSpeakingFrame)
        await say(SILENCE)

    async def retrieve_nothing() -> None:
        try:
            await llm.retrieve_conversation_item("none")
            raise AssertionError("there is no such item")
        except Exception as error:
            assert "no item" in str(error), error

    print("spoken turns")
    for _ in range(2):
        await ask()
        await taken.until(ProposedUserStoppedSpeakingFrame)
        frames = await taken.until(LLMFullResponseEndFrame)
        sound = sum(len(frame.audio) for frame in frames if isinstance(frame, TTSAudioRawFrame))
        assert sound > RATE, sound

    print("retrieve")
    name = next(name for name, item in items.items() if item is not None and item.role == "user")
    assert (await llm.retrieve_conversation_item(name)).id == name
    await retrieve_nothing()

    print("barge-in, truncate")
    hold.touch()
    await ask()
    await taken.until(TTSAudioRawFrame)
    await ask()
    await taken.until(LLMFullResponseEndFrame)  # of the answer that was interrupted
    await taken.until(TTSAudioRawFrame)

    print("cancel, twice")
    for _ in range(2):
        await llm.send_client_event(events.ResponseCancelEvent())
    await taken.until(LLMFullResponseEndFrame)
    hold.unlink()

    print("reconnect")
    await worker.queue_frame(BotStoppedSpeakingFrame())  # as the player says; else it truncates the old session's item
    await taken.until(BotStoppedSpeakingFrame)
    await llm.reset_conversation()
    await retrieve_nothing()  # answered once the session has been set up: what is said now ends as it was asked to
    await ask()
    await taken.until(TTSAudioRawFrame)
    await taken.until(LLMFullResponseEndFrame)

    await worker.queue_frame(EndFrame())
    await running
    assert not errors.seen, errors.seen


async def main(address: str, speech: bytes, hold: Path) -> None:
    """`talk`, or the end of the process: cancelled, the pipeline waits for an end that does not come."""
    try:
        await talk(address, speech, hold)
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)


with wave.open(sys.argv[2]) as recording:
    question = recording.readframes(recording.getnframes())
asyncio.run(main(sys.argv[1], question, Path(sys.argv[3])))
