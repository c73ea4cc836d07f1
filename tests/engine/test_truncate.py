"""`Session.truncate`: after an interruption the conversation goes on from what was heard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest

from omni2_engine import Chunk, Engine
from omni2_engine.errors import SettingError
from omni2_engine.sampling import Stream
from omni2_engine.sessions.session import Session
from omni2_engine.turn.prompt import Exchange

LIMITS = {"max_new_tokens": 14, "max_last_write": 30}
Utterance = Callable[..., np.ndarray]


class Listener:
    """Keeps what the models chose, and makes every write as long as it may be."""

    def __init__(self, engine: Engine) -> None:
        self._end = engine.config.tokens.speech_eos
        self.text: list[int] = []

    def __call__(self, model: Stream, generated: list[int], chosen: int) -> int:
        if model is Stream.TEXT:
            self.text.append(chosen)
        return 7 if model is Stream.SPEECH and chosen == self._end else chosen


@pytest.fixture
def session(shared_engine: Engine) -> Iterator[Session]:
    with shared_engine.session(seed=3, **LIMITS) as session:
        yield session


def answer(session: Session, audio: np.ndarray, **options: object) -> list[Chunk]:
    return list(session.stream(audio, sample_rate=16_000, **options))


def test_the_text_keeps_every_round_that_was_begun(
    shared_engine: Engine, session: Session, utterance: Utterance
) -> None:
    """Round k speaks R tokens, and begins when W units of each round before it were heard: here 10 of 25 a second."""
    config = shared_engine.config
    seconds = config.write / config.flow_encoder.unit_rate
    listener = Listener(shared_engine)
    chunks = answer(session, utterance(1), steer=listener)
    tokens = listener.text
    assert len(tokens) == LIMITS["max_new_tokens"] and not set(tokens) & set(config.tokens.eos)
    reply = session._state.history.exchanges[-1].reply
    assert reply == tokens
    rounds = -(-len(tokens) // config.read)
    assert chunks[-1].end > (rounds - 1) * seconds
    session.truncate(1000 * chunks[-1].end)  # all of it was heard
    assert reply == tokens
    for begun in reversed(range(rounds + 1)):
        session.truncate(1000 * begun * seconds - 1 if begun else 0)
        assert reply == tokens[: begun * config.read]
    session.truncate(1000 * chunks[-1].end)  # what was forgotten does not come back
    assert reply == []


def test_what_chunks_say_they_speak_is_what_stays(
    shared_engine: Engine, session: Session, utterance: Utterance
) -> None:
    """`Chunk.spoken` counts the last units of a chunk, held back for the cross-fade; so it may be a round ahead."""
    chunks = answer(session, utterance(1), steer=Listener(shared_engine))
    exchange = session._state.history.exchanges[-1]
    full, decode = list(exchange.reply), shared_engine.pipeline.tokenizer.decode
    kept = []
    for chunk in chunks:
        exchange.reply[:] = full
        session.truncate(1000 * chunk.end)
        kept.append(decode(exchange.reply))
        assert chunk.spoken.startswith(kept[-1])
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(kept))
    assert kept[0] and kept[-1] == chunks[-1].spoken


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("played_ms", [0.0, 10.0, 700.0, 1e6])
def test_the_next_turn_is_that_of_a_conversation_with_this_history(
    shared_engine: Engine, session: Session, utterance: Utterance, played_ms: float, cancelled: bool
) -> None:
    """To the logits of its first token; and only what is new is prefilled."""
    chunks = session.stream(utterance(1), sample_rate=16_000, steer=Listener(shared_engine))
    for chunk in chunks:
        if cancelled and chunk.index == 1:
            session.cancel()
    session.truncate(played_ms)
    first = session._state.history.exchanges[0]
    heard = list(first.reply)
    assert (len(heard) == 0) == (played_ms == 0) and (cancelled or len(heard) == min(14, 3 * -(-played_ms // 400)))
    fed = list(session._state.history.fed)

    answer(session, utterance(2), max_new_tokens=1, max_last_write=1)  # nothing but the prompt is fed
    metrics = session.metrics
    assert metrics is not None and session._state.held.conversation is not None
    second = session._state.history.exchanges[-1]
    assert session._state.history.exchanges[0].reply == heard
    assert first.speech is not None and second.speech is not None
    other = [Exchange(first.first_item, speech=first.speech, reply=heard), Exchange(second.first_item, second.speech)]
    layout = shared_engine.prompts.lay_out(other, None)
    assert session._state.history.fed == layout.items
    assert metrics.prompt_positions == len(layout.items)
    assert metrics.reused_positions == layout.common_prefix(fed) > len(first.speech) + len(heard)

    llm = shared_engine.pipeline.llm
    fresh = llm.new_state(shared_engine.max_context)
    llm.extend(fresh, layout.embeds(0, llm.table))
    state = session._state.held.conversation.state
    assert state.length == fresh.length
    np.testing.assert_allclose(state.logits, fresh.logits, atol=1e-3)
    np.testing.assert_allclose(state.hidden, fresh.hidden, atol=1e-4 * float(fresh.hidden.std()))


def test_an_answer_that_never_began_takes_nothing_from_the_one_before(
    shared_engine: Engine, session: Session, utterance: Utterance
) -> None:
    """A person who interrupts at once has heard the answer before, and none of this one."""
    answer(session, utterance(1))
    replies = [list(exchange.reply) for exchange in session._state.history.exchanges]
    before_it_began = session.stream(utterance(2), sample_rate=16_000)
    session.cancel()
    assert [(len(chunk.pcm), chunk.finish_reason) for chunk in before_it_began] == [(0, "cancelled")]
    session.truncate(0)
    assert [exchange.reply for exchange in session._state.history.exchanges] == replies

    def interrupt(*_: object) -> int:
        session.cancel()
        raise KeyError  # before the first text was chosen

    (chunk,) = session.stream(utterance(2), sample_rate=16_000, steer=interrupt)
    assert (len(chunk.pcm), chunk.finish_reason) == (0, "cancelled")
    session.truncate(0)
    assert [exchange.reply for exchange in session._state.history.exchanges] == replies and replies[0]
    assert answer(session, utterance(3))[-1].final
    session.truncate(0)
    assert [exchange.reply for exchange in session._state.history.exchanges] == [*replies, []]


def test_text_that_was_never_spoken_is_forgotten(shared_engine: Engine, session: Session, utterance: Utterance) -> None:
    """It was written ahead of the sound, and the turn was cancelled before any of it was heard."""

    def interrupt(_: str) -> None:
        session.cancel()

    (chunk,) = session.stream(utterance(1), sample_rate=16_000, on_text=interrupt)
    assert (len(chunk.pcm), chunk.finish_reason) == (0, "cancelled") and chunk.text
    assert session._state.history.exchanges[-1].reply != []
    session.truncate(0)
    assert session._state.history.exchanges[-1].reply == []
    assert answer(session, utterance(2))[-1].final


def test_not_while_a_turn_runs_nor_to_no_time(shared_engine: Engine, session: Session, utterance: Utterance) -> None:
    session.truncate(0)  # there is nothing to forget
    chunks = session.stream(utterance(1), sample_rate=16_000)
    next(chunks)
    with pytest.raises(SettingError, match="turn"):
        session.truncate(0)
    list(chunks)
    for time in (-1.0, float("nan")):
        with pytest.raises(SettingError, match="played_ms"):
            session.truncate(time)
