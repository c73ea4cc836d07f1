"""`stream` and `astream` of frames: the turn ends by detection, or with the iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_engine import Engine
from omni2_engine.errors import AudioError
from omni2_engine.live.detection.base import RATE

from .hearing import hear
from .scenes import Floats, recording, silence

OPTIONS: dict[str, Any] = {"seed": 3, "max_new_tokens": 8, "max_last_write": 20}
FRAME = 320


@pytest.fixture(scope="module")
def sound(repository: Path) -> Floats:
    """Two spoken questions."""
    question = recording(repository, "examples/sum.wav")
    return np.concatenate([question, silence(1.0), question, silence(0.1)])


def frames(sound: Floats) -> Iterator[Floats]:
    yield from np.split(sound, range(FRAME, len(sound), FRAME))


async def aframes(sound: Floats) -> AsyncIterator[bytes]:
    for frame in frames(sound):
        yield (frame * 32768).astype("<i2").tobytes()
        await asyncio.sleep(0)


def spoken(sound: Floats) -> list[Floats]:
    """What each turn's question is."""
    told = [call for call in hear(sound, soft_end=None).told if call[0] == "sound_committed"]
    return [sound[begin:end] for _, begin, end, _ in told]


def pcm(answer: Any) -> Floats:
    return np.concatenate([chunk.pcm for chunk in answer])


def test_a_turn_ends_with_the_speech_and_the_next_goes_on_from_there(tiny_engine: Engine, sound: Floats) -> None:
    microphone = frames(sound)
    first, _ = spoken(sound)
    with tiny_engine.session(**OPTIONS) as session, tiny_engine.session(**OPTIONS) as plain:
        assert np.array_equal(
            pcm(session.stream(microphone, sample_rate=RATE)), pcm(plain.stream(first, sample_rate=RATE))
        )
        rest = list(microphone)
        assert 0 < len(rest) * FRAME < len(sound) - len(first)
        (second,) = spoken(np.concatenate(rest))
        assert np.array_equal(
            pcm(session.stream(iter(rest), sample_rate=RATE)), pcm(plain.stream(second, sample_rate=RATE))
        )


def test_a_single_turn_of_an_engine(tiny_engine: Engine, sound: Floats) -> None:
    question = spoken(sound)[0]
    expected = pcm(tiny_engine.stream(question, sample_rate=RATE, **OPTIONS))
    assert np.array_equal(pcm(tiny_engine.stream(frames(sound), sample_rate=RATE, **OPTIONS)), expected)


def test_coroutines_give_frames(tiny_engine: Engine, sound: Floats) -> None:
    async def answer(source: Any) -> Floats:
        return pcm([chunk async for chunk in tiny_engine.astream(source, sample_rate=RATE, **OPTIONS)])

    exact = np.concatenate([np.frombuffer(b, "<i2") for b in asyncio.run(collected(aframes(sound)))])
    question = spoken((exact / np.float32(32768)).astype(np.float32))[0]
    assert np.array_equal(asyncio.run(answer(aframes(sound))), asyncio.run(answer(question)))


async def collected(source: AsyncIterator[bytes]) -> list[bytes]:
    return [item async for item in source]


def test_what_cannot_be_heard_is_refused(tiny_engine: Engine, sound: Floats) -> None:
    with pytest.raises(AudioError, match="rate"):
        tiny_engine.stream(frames(sound))
    with pytest.raises(AudioError, match="no speech"):
        tiny_engine.stream(frames(silence(2.0)), sample_rate=RATE)
    with pytest.raises(AudioError, match="use astream"):
        tiny_engine.stream(aframes(sound), sample_rate=RATE)

    async def wrong() -> None:
        async for _ in tiny_engine.astream(frames(sound), sample_rate=RATE):
            pass

    with pytest.raises(AudioError, match="asynchronous iterator"):
        asyncio.run(wrong())


def test_speech_beyond_the_window(tiny_engine: Engine, sound: Floats) -> None:
    endless = np.tile(sound[:27_000], 8)
    with pytest.raises(AudioError, match="the model hears 10 s"):
        tiny_engine.stream(frames(endless), sample_rate=RATE, **OPTIONS)
    heard = pcm(tiny_engine.stream(frames(endless), sample_rate=RATE, long="truncate", **OPTIONS))
    assert np.array_equal(heard, pcm(tiny_engine.stream(endless[: 10 * RATE], sample_rate=RATE, **OPTIONS)))
