"""Objects that are no plain files: read, or refused at the call with a remedy and without a warning."""

from __future__ import annotations

import asyncio
import gc
import io
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from omni2_engine.audio.source import read_audio
from omni2_engine.engine import Engine
from omni2_engine.errors import AudioError, SettingError

RATE = 16_000
WINDOW = 3.0  # seconds

pytestmark = pytest.mark.filterwarnings("error")  # "coroutine … was never awaited" among them


@pytest.fixture
def wav(tone: Callable[..., np.ndarray]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(0.5), RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


class AsyncFile:
    """As aiofiles and Starlette's UploadFile."""

    name = "upload.wav"

    async def read(self, size: int = -1) -> bytes:
        return b""


class HiddenAsyncFile:
    """One whose method does not look like a coroutine function."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.read = make


async def nothing() -> bytes:
    return b""


class Awaitable:
    """Neither coroutine nor future."""

    def __await__(self) -> Any:
        yield


def refused(source: Any, match: str) -> AudioError:
    with pytest.raises(AudioError, match=match) as caught:
        read_audio(source, None, WINDOW)
    assert caught.value.remedy and "\n" not in str(caught.value)
    gc.collect()  # a coroutine that was dropped complains here
    return caught.value


def test_asynchronous_files() -> None:
    loop = asyncio.new_event_loop()
    try:
        sources = [
            AsyncFile(),
            asyncio.StreamReader(loop=loop),
            HiddenAsyncFile(nothing),
            HiddenAsyncFile(lambda: nothing()),
            HiddenAsyncFile(loop.create_future),
            HiddenAsyncFile(Awaitable),
        ]
        for source in sources:
            assert "await file.read()" in refused(source, "asynchronous").remedy
        for forgotten in (nothing(), loop.create_future()):
            assert "await" in refused(forgotten, "still to be awaited").remedy
    finally:
        loop.close()


def test_an_engine_refuses_them_before_the_turn(tiny_engine: Engine) -> None:
    with tiny_engine.session() as session, pytest.raises(AudioError, match="asynchronous"):
        session.stream(AsyncFile())  # type: ignore[arg-type]

    async def ask() -> AsyncIterator[object]:
        async for chunk in tiny_engine.astream(AsyncFile()):  # type: ignore[arg-type]
            yield chunk

    async def all_of_it() -> None:
        async for _ in ask():
            pass

    with pytest.raises(AudioError, match="asynchronous"):
        asyncio.run(all_of_it())


def test_files_that_give_nothing(wav: bytes, tmp_path: Path) -> None:
    path = tmp_path / "question.wav"
    path.write_bytes(wav)
    with path.open("rb") as closed:
        pass
    with path.open() as text, (tmp_path / "new.wav").open("wb") as output, path.open("rb") as read:
        read.read()
        refused(text, "open as text")
        refused(output, "cannot be read")
        refused(read, "nothing left")
    refused(closed, "cannot be read.*closed")
    refused(io.StringIO("text"), "open as text")
    refused(HiddenAsyncFile(lambda: "text"), "open as text")
    refused(HiddenAsyncFile(lambda: None), "gave NoneType")
    refused(HiddenAsyncFile(lambda: 3), "gave int")
    refused(io.BytesIO(), "nothing left")
    refused(0, "cannot be read from int")


def test_whatever_holds_bytes(wav: bytes) -> None:
    plain = read_audio(wav, None, WINDOW)
    twice = np.repeat(np.frombuffer(wav, np.uint8), 2).tobytes()
    sources = [
        bytearray(wav),
        memoryview(wav),
        memoryview(twice)[::2],
        HiddenAsyncFile(lambda: bytearray(wav)),
        HiddenAsyncFile(lambda: memoryview(wav)),
    ]
    for source in sources:
        np.testing.assert_array_equal(read_audio(source, None, WINDOW), plain)


@pytest.mark.parametrize("rate", [16_000.0, np.float32(16_000), np.int64(16_000), np.array(16_000), np.uint16(16_000)])
def test_rates_of_any_type(rate: Any, tone: Callable[..., np.ndarray]) -> None:
    np.testing.assert_array_equal(read_audio(tone(0.5), rate, WINDOW), tone(0.5))


@pytest.mark.parametrize("rate", ["16000", 16_000.5, math.nan, math.inf, True, [16_000], np.array([16_000]), 1j])
def test_rates_that_are_none(rate: Any, tone: Callable[..., np.ndarray]) -> None:
    with pytest.raises(SettingError, match="sample_rate"):
        read_audio(tone(0.5), rate, WINDOW)
