"""Several tokens in one step: the same tokens, states and answers as one at a time, in any batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine import Engine, Sampling, Session
from omni2_engine.backends.base.decode_request import DecodeRequest, Tokens
from omni2_engine.backends.base.host_language_model import HostLanguageModel
from omni2_engine.backends.base.kv_cache import DecoderState
from omni2_engine.errors import ContextError
from omni2_engine.sampling import Chooser, DrawKey, Stream
from omni2_engine.turn.plan import StageIndex

from ...waiting import SOON, eventually

CAPACITY = 64
SAMPLINGS = (
    Sampling(temperature=0.0),
    Sampling(temperature=0.0, repetition_penalty=1.3),
    Sampling(temperature=1.0, top_k=50),
    Sampling(temperature=0.8, top_p=0.9, repetition_penalty=1.1),
)


@pytest.fixture(scope="module")
def model(shared_engine: Engine) -> HostLanguageModel:
    return shared_engine.pipeline.speech_lm


def prefilled(model: HostLanguageModel, state: DecoderState, seed: int) -> DecoderState:
    """A state that has been fed 5 to 14 positions of a seed."""
    random = np.random.default_rng(seed)
    model.extend(state, model.embed(random.integers(0, model.config.vocab, random.integers(5, 15)).tolist()))
    return state


def asked(state: DecoderState, seed: int, tokens: int) -> DecodeRequest:
    sampling = SAMPLINGS[seed % len(SAMPLINGS)]
    return DecodeRequest(state, None, Chooser(sampling, DrawKey(seed, Stream.SPEECH, 0)), [], tokens, (), hidden=True)


def going_on(request: DecodeRequest, found: Tokens, tokens: int) -> DecodeRequest:
    """The request that follows."""
    return replace(request, feed=found.ids[-1], generated=[*request.generated, *found.ids], tokens=tokens)


def one_at_a_time(model: HostLanguageModel, seed: int, tokens: int) -> tuple[Tokens, DecoderState]:
    """What a conversation alone writes, and its state after that."""
    state = prefilled(model, model.new_state(CAPACITY), seed)
    request, whole = asked(state, seed, 1), Tokens()
    for _ in range(tokens):
        (found,) = model.decode_many([request])
        whole.ids += found.ids
        whole.hidden += found.hidden
        request = going_on(request, found, 1)
    return whole, state


def assert_same(found: Tokens, wanted: Tokens) -> None:
    assert found.error is None and found.ids == wanted.ids
    np.testing.assert_array_equal(np.stack(found.hidden), np.stack(wanted.hidden))


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5))
def test_any_lengths_give_what_one_at_a_time_gives(model: HostLanguageModel, lengths: list[tuple[int, int]]) -> None:
    """Of several conversations in one call, each with settings of its own, twice in a row."""
    cache = model.new_cache(len(lengths), CAPACITY)
    states = [prefilled(model, cache.acquire(), seed) for seed in range(len(lengths))]
    first = [asked(state, seed, lengths[seed][0]) for seed, state in enumerate(states)]
    begun = model.decode_many(first)
    pairs = enumerate(zip(first, begun, strict=True))
    second = [going_on(request, found, lengths[seed][1]) for seed, (request, found) in pairs]
    ended = model.decode_many(second)
    for seed, (before, after) in enumerate(lengths):
        wanted, alone = one_at_a_time(model, seed, before + after)
        whole = Tokens(begun[seed].ids + ended[seed].ids, begun[seed].hidden + ended[seed].hidden)
        assert_same(whole, wanted)
        assert states[seed].length == alone.length
        np.testing.assert_array_equal(states[seed].logits, alone.logits)


@pytest.mark.parametrize("place", [0, 3, 6])
def test_an_end_id_ends_it(model: HostLanguageModel, place: int) -> None:
    wanted, _ = one_at_a_time(model, 2, 7)
    state = prefilled(model, model.new_state(CAPACITY), 2)
    length = state.length
    place = wanted.ids.index(wanted.ids[place])  # where that id comes first
    (found,) = model.decode_many([replace(asked(state, 2, 7), ends=(wanted.ids[place], -5))])
    assert_same(found, Tokens(wanted.ids[: place + 1], wanted.hidden[: place + 1]))
    assert state.length == length + place  # all but the last was fed


def test_what_fails_for_one_is_no_other_s(model: HostLanguageModel) -> None:
    cache = model.new_cache(2, CAPACITY)
    states = [prefilled(model, cache.acquire(), seed) for seed in (0, 2)]
    requests = [asked(states[0], 0, 6), asked(states[1], 2, 6)]

    def refuse(generated: list[int], chosen: int) -> int:
        if len(generated) == 3:
            raise RuntimeError("enough")
        return chosen

    assert isinstance(requests[0].choose, Chooser)
    requests[0] = replace(requests[0], choose=replace(requests[0].choose, steer=refuse))
    failed, fine = model.decode_many(requests)
    assert failed.ids == one_at_a_time(model, 0, 3)[0].ids
    with pytest.raises(RuntimeError, match="enough"):
        failed.check()
    failed.check()  # which is told once
    assert_same(fine, one_at_a_time(model, 2, 6)[0])


def test_it_ends_when_it_is_enough(model: HostLanguageModel) -> None:
    """After a token of each, and only where there is more to come."""
    cache = model.new_cache(2, CAPACITY)
    states = [prefilled(model, cache.acquire(), seed) for seed in (0, 1)]
    asked_at: list[int] = []

    def enough() -> bool:
        asked_at.append(states[1].length)
        return len(asked_at) == 3

    lengths = [state.length for state in states]
    short, long = model.decode_many([asked(states[0], 0, 2), asked(states[1], 1, 9)], enough)
    assert asked_at == [lengths[1], lengths[1] + 1, lengths[1] + 2]
    assert_same(short, one_at_a_time(model, 0, 2)[0])
    assert_same(long, one_at_a_time(model, 1, 3)[0])
    model.decode_many([asked(prefilled(model, model.new_state(CAPACITY), 2), 2, 1)], enough)
    assert len(asked_at) == 3


def test_steering_is_part_of_it(model: HostLanguageModel) -> None:
    state = prefilled(model, model.new_state(CAPACITY), 0)
    request = asked(state, 0, 4)
    assert isinstance(request.choose, Chooser)
    script = [7, 3, 7, 1]
    (found,) = model.decode_many(
        [replace(request, choose=replace(request.choose, steer=lambda ids, _: script[len(ids)]))]
    )
    assert found.ids == script
    alone = prefilled(model, model.new_state(CAPACITY), 0)
    for token in script[:3]:
        model.extend(alone, model.embed([token]))
    np.testing.assert_array_equal(state.logits, alone.logits)


def test_ids_may_be_given_instead_of_steering(shared_engine: Engine, utterance: Callable[..., np.ndarray]) -> None:
    """The same answer as when a function returns them."""
    random = np.random.default_rng(3)
    script = {Stream.TEXT: random.integers(5, 300, 7).tolist(), Stream.SPEECH: random.integers(300, 900, 25).tolist()}

    def steer(stream: Stream, generated: list[int], chosen: int) -> int:
        return script[stream][len(generated)] if len(generated) < len(script[stream]) else chosen

    sounds = []
    for steering in ({"forced": script}, {"steer": steer}):
        with shared_engine.session(max_new_tokens=9, max_last_write=20) as session:
            chunks = list(session.stream(utterance(1), sample_rate=16_000, **steering))
            assert session._state.history.exchanges[0].reply[:7] == script[Stream.TEXT]
        sounds.append(np.concatenate([chunk.pcm for chunk in chunks]))
    np.testing.assert_array_equal(*sounds)


def test_a_full_context_is_told(model: HostLanguageModel) -> None:
    state = prefilled(model, model.new_state(20), 0)
    with pytest.raises(ContextError, match="21 positions"):
        model.decode_many([asked(state, 0, 20)])


@pytest.fixture(params=[2, 1000])
def long_requests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Let turns ask for that many tokens at once, as they do of a device."""
    monkeypatch.setattr(HostLanguageModel, "longest", lambda model, choose: request.param)
    yield request.param


def test_a_whole_answer_is_the_same(
    shared_engine: Engine, utterance: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sound, text, history and counts of two turns, in requests of any length."""
    found = []
    for longest in (1, 2, 1000):
        monkeypatch.setattr(HostLanguageModel, "longest", lambda model, choose, longest=longest: longest)
        with shared_engine.session(seed=3, text_sampling=SAMPLINGS[2], max_last_write=25) as session:
            record = []
            for turn in range(2):
                text: list[str] = []
                chunks = list(session.stream(utterance(turn), sample_rate=16_000, on_text=text.append))
                metrics = session.metrics
                assert metrics is not None
                counts = (metrics.text_tokens, metrics.speech_tokens, metrics.units, metrics.finish_reason)
                sound = [(chunk.pcm.tobytes(), chunk.spoken, chunk.units, chunk.final) for chunk in chunks]
                history = session._state.history
                fed = list(history.fed), [list(exchange.reply) for exchange in history.exchanges], list(history.rounds)
                record.append((text, counts, sound, fed))
        found.append(record)
    assert found[0] == found[1] == found[2]
    assert found[0][0][1][0] > 4


def test_a_request_is_one_step(
    shared_engine: Engine, ask: Callable[[Engine], np.ndarray], long_requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[int] = []
    decode_many = HostLanguageModel.decode_many

    def counted(model: HostLanguageModel, requests: list[DecodeRequest], *more: Any) -> list[Tokens]:
        asked_for.extend(request.tokens for request in requests)
        return decode_many(model, requests, *more)

    monkeypatch.setattr(HostLanguageModel, "decode_many", counted)
    ask(shared_engine)
    config = shared_engine.config
    assert set(asked_for) <= set(range(1, max(config.read, config.write) + 1))
    assert max(asked_for) == min(long_requests, config.write)


def test_a_question_comes_before_the_rest_of_a_request_for_text(
    shared_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken up after the next token of the other session, not after the group."""
    engine, read = shared_engine, 8
    config = engine.config.model_copy(update={"read": read})
    monkeypatch.setattr(engine.runtime, "pipeline", replace(engine.pipeline, config=config))
    monkeypatch.setattr(HostLanguageModel, "longest", lambda model, choose: read)
    heard, asked = threading.Event(), threading.Event()
    order: list[str] = []
    found: list[int] = []

    def steer(name: str, stream: Stream, generated: list[int], chosen: int) -> int:
        if stream is not Stream.TEXT:
            return chosen
        order.append(name)
        if name == "first" and len(generated) == 4 * read:
            assert heard.wait(SOON)  # else all of it might be written by then
        if name == "first" and heard.is_set() and not asked.is_set() and len(generated) % read == 1:
            found.append(len(order))
            asked.set()
            eventually(lambda: engine.scheduler.should_preempt(StageIndex.LLM))
        return 5

    def answer(name: str, session: Session, groups: int) -> None:
        limits = {"max_new_tokens": groups * read, "max_last_write": 10}
        for _ in session.stream(text=name, steer=partial(steer, name), **limits):
            heard.set()

    with engine.session() as first, engine.session() as second:
        answering = threading.Thread(target=answer, args=("first", first, 12))
        answering.start()
        assert asked.wait(SOON)
        answer("second", second, 1)
        answering.join(SOON)
    assert order.count("first") == 12 * read and order.count("second") == read
    assert order.index("second") <= found[0] + 1  # at most with the token that both are given then


def test_cancelling_takes_effect_before_the_next_request(
    shared_engine: Engine,
    utterance: Callable[..., np.ndarray],
    is_free: Callable[[Engine], bool],
    long_requests: int,
) -> None:
    with shared_engine.session() as session:
        seen: list[int] = []

        def stop(stream: Stream, generated: list[int], chosen: int) -> int:
            if stream is Stream.SPEECH:
                seen.append(chosen)
                session.cancel()
            return chosen

        chunks = list(session.stream(utterance(1), sample_rate=16_000, steer=stop, max_last_write=30))
        assert [(len(chunk.pcm), chunk.finish_reason) for chunk in chunks] == [(0, "cancelled")]
        most = min(long_requests, shared_engine.config.write)
        assert 1 <= len(seen) <= most
        metrics = session.metrics
        assert metrics is not None and metrics.finish_reason == "cancelled"
        assert list(session.stream(utterance(1), sample_rate=16_000, max_new_tokens=4, max_last_write=30))
    assert is_free(shared_engine)
