"""Hooks that give what is no token: the error of their own turn, while others decoded in the same calls go on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_engine import Engine, Sampling
from omni2_engine.backends.base.decode_request import DecodeRequest
from omni2_engine.errors import SettingError
from omni2_engine.sampling import Chooser, DrawKey, Stream

from ..waiting import SOON

RATE = 16_000
LIMITS = {"max_new_tokens": 14, "max_last_write": 30}
Utterance = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def pair(tiny_engine_dir: Path) -> Engine:
    """An engine that decodes two conversations in one call."""
    return Engine.load(tiny_engine_dir, threads=1, warm_up=False, sessions=2)


def sound(chunks: Any) -> np.ndarray:
    return np.concatenate([chunk.pcm for chunk in chunks])


def wrong_ids(vocabulary: int) -> list[Any]:
    return [vocabulary, -1, 2**40, 2.5, "7", None, True, np.array([1, 2])]


@pytest.mark.parametrize("number", range(8))
def test_a_wrong_id_fails_its_row_alone(pair: Engine, number: int) -> None:
    """Two rows of one call to the model: one fails at its fourth token, the other gets what it gets alone."""
    model = pair.pipeline.llm
    wrong = wrong_ids(model.config.vocab)[number]
    choose = Chooser(Sampling(temperature=0), DrawKey(0, Stream.TEXT, 0))

    def steer(ids: list[int], chosen: int) -> Any:
        return wrong if len(ids) == 3 else chosen

    def ask(cache: Any, prompt: list[int]) -> DecodeRequest:
        state = cache.acquire()
        model.extend(state, model.embed(prompt))
        return DecodeRequest(state, None, choose, [], 8, ())

    (expected,) = model.decode_many([ask(model.new_cache(1, 40), [4, 5, 6])])
    cache = model.new_cache(2, 40)
    requests = [ask(cache, [1, 2, 3]), ask(cache, [4, 5, 6])]
    failed, other = model.decode_many([replace(requests[0], choose=replace(choose, steer=steer)), requests[1]])
    assert other.ids == expected.ids and len(failed.ids) == 3
    with pytest.raises(SettingError, match=r"what steer returned is .*use an id from 0 to"):
        failed.check()


@pytest.mark.parametrize("stream", [Stream.TEXT, Stream.SPEECH])
def test_a_wrong_id_fails_its_turn_alone(pair: Engine, utterance: Utterance, stream: Stream) -> None:
    expected = sound(pair.stream(utterance(1), sample_rate=RATE, seed=1, **LIMITS))
    with ThreadPoolExecutor(1) as pool, pair.session(**LIMITS) as session:
        for wrong in wrong_ids(pair.pipeline.vocabularies[stream]):

            def steer(asked: Stream, ids: list[int], chosen: int, wrong: Any = wrong) -> Any:
                return wrong if asked is stream and len(ids) == 3 else chosen

            beside = pool.submit(lambda: sound(pair.stream(utterance(1), sample_rate=RATE, seed=1, **LIMITS)))
            with pytest.raises(SettingError, match="what steer returned is"):
                list(session.stream(utterance(2), sample_rate=RATE, steer=steer))
            np.testing.assert_array_equal(beside.result(SOON), expected)
        assert len(sound(session.stream(utterance(2), sample_rate=RATE)))  # the session goes on as well


def test_forced_ids_are_checked_at_the_call(tiny_engine: Engine, utterance: Utterance) -> None:
    with tiny_engine.session(**LIMITS) as session:
        for stream in Stream.TEXT, Stream.SPEECH:
            for wrong in wrong_ids(tiny_engine.pipeline.vocabularies[stream]):
                with pytest.raises(SettingError, match="a forced id is"):
                    session.stream(utterance(1), sample_rate=RATE, forced={stream: [1, wrong]})
        for forced in ([1, 2], {"speech": [1]}, {Stream.FLOW_NOISE: [1]}, {Stream.TEXT: 3}, {Stream.TEXT: "12"}):
            with pytest.raises(SettingError, match="forced"):
                session.stream(utterance(1), sample_rate=RATE, forced=forced)  # type: ignore[arg-type]
        for hook in ("steer", "on_text"):
            with pytest.raises(SettingError, match=f"{hook} is 3"):
                session.stream(utterance(1), sample_rate=RATE, **{hook: 3})


def test_ids_of_every_integer_type_and_the_whole_vocabulary(tiny_engine: Engine, utterance: Utterance) -> None:
    """The first and the last id are as good as any other, in arrays or as floats."""
    last = tiny_engine.pipeline.vocabularies[Stream.TEXT] - 1

    def answer(**how: Any) -> np.ndarray:
        return sound(tiny_engine.stream(utterance(1), sample_rate=RATE, **how, **LIMITS))

    plain = answer(forced={Stream.TEXT: [0, last, 5]})
    np.testing.assert_array_equal(answer(forced={Stream.TEXT: np.array([0, last, 5], np.uint16)}), plain)

    def steer(asked: Stream, ids: list[int], chosen: int) -> Any:
        return [0.0, np.int32(last), np.array(5)][len(ids)] if asked is Stream.TEXT and len(ids) < 3 else chosen

    np.testing.assert_array_equal(answer(steer=steer), plain)
