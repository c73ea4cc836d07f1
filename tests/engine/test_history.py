"""What a session tells about its turns, how many of them the model is given, and what it was not taught."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omni2_engine import Chunk, Engine, Session, TurnRecord
from omni2_engine.errors import SettingError
from omni2_engine.model.config import Capabilities
from omni2_engine.model.manifest import MANIFEST, EngineDirectory

LIMITS = {"max_new_tokens": 8, "max_last_write": 20}
Utterance = Callable[..., np.ndarray]


def text(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def given_turns(session: Session) -> list[str]:
    """What the model was given of the conversation, the last question among it."""
    return [exchange.text for exchange in session._state.history.exchanges]


@pytest.fixture(scope="module")
def untaught(tiny_engine_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The tiny engine as one that was taught nothing but single spoken questions."""
    path = tmp_path_factory.mktemp("untaught")
    for item in tiny_engine_dir.iterdir():
        if item.name != MANIFEST:
            (path / item.name).symlink_to(item)
    manifest = json.loads((tiny_engine_dir / MANIFEST).read_text())
    manifest["model"]["capabilities"] = {"typed_turns": False, "history_turns": 0}
    (path / MANIFEST).write_text(json.dumps(manifest))
    return Engine.load(path, threads=1, warm_up=False)


def test_every_turn_is_told(shared_engine: Engine, utterance: Utterance) -> None:
    with shared_engine.session(**LIMITS) as session:
        assert session.history == ()
        spoken = text(list(session.stream(utterance(1), sample_rate=16_000)))
        typed = text(list(session.stream(text="hello there")))
        reasons = [record.finish_reason for record in session.history]
        assert set(reasons) <= {"end", "limit"} and spoken and typed
        assert session.history == (TurnRecord(None, spoken, reasons[0]), TurnRecord("hello there", typed, reasons[1]))


def test_a_turn_that_fails_or_is_left_is_told_as_such(
    shared_engine: Engine, utterance: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of order")

    with shared_engine.session(**LIMITS) as session:
        with monkeypatch.context() as broken, pytest.raises(RuntimeError):
            broken.setattr(shared_engine.pipeline.llm, "extend", fail)
            list(session.stream(utterance(1), sample_rate=16_000))
        chunks = session.stream(utterance(2), sample_rate=16_000)
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
        for chunk in session.stream(utterance(3), sample_rate=16_000):
            if chunk.final:
                break
        assert [record.finish_reason for record in session.history[:2]] == ["error", "cancelled"]


def test_what_was_not_heard_is_not_told(shared_engine: Engine, utterance: Utterance) -> None:
    with shared_engine.session(**LIMITS) as session:
        answer = text(list(session.stream(utterance(1), sample_rate=16_000)))
        session.truncate(1e6)  # all of it was heard
        assert session.history[0].answer == answer and not session.history[0].truncated
        session.truncate(1)
        (record,) = session.history
        assert record.truncated and answer.startswith(record.answer) and record.answer != answer


@pytest.mark.parametrize(("turns", "kept"), [(0, 0), (1, 1), (2, 2), (9, 3), (None, 3)])
def test_the_model_is_given_the_last_turns(shared_engine: Engine, turns: int | None, kept: int) -> None:
    questions = ["one", "two", "three", "four"]
    with shared_engine.session(**LIMITS, history_turns=turns) as session:
        for question in questions:
            list(session.stream(text=question))
        assert given_turns(session) == questions[3 - kept :]
        assert len(session.history) == 4
        assert session.metrics is not None and session.metrics.dropped_turns == 0


def test_without_history_every_answer_is_as_the_first(shared_engine: Engine, utterance: Utterance) -> None:
    with shared_engine.session(**LIMITS) as session:
        alone = text(list(session.stream(utterance(2), sample_rate=16_000)))
    with shared_engine.session(**LIMITS, history_turns=0) as session:
        list(session.stream(utterance(1), sample_rate=16_000))
        assert text(list(session.stream(utterance(2), sample_rate=16_000))) == alone


def test_a_turn_may_have_more_history_than_its_session(shared_engine: Engine) -> None:
    with shared_engine.session(**LIMITS, history_turns=1) as session:
        for question in ("one", "two"):
            list(session.stream(text=question))
        list(session.stream(text="three", history_turns=0))
        assert given_turns(session) == ["three"]


def test_the_manifest_decides_where_nothing_is_asked_for(untaught: Engine, utterance: Utterance) -> None:
    with untaught.session(**LIMITS) as session:
        for seed in (1, 2):
            list(session.stream(utterance(seed), sample_rate=16_000))
        assert len(given_turns(session)) == 1
    with untaught.session(**LIMITS, history_turns=1) as session:
        for seed in (1, 2, 3):
            list(session.stream(utterance(seed), sample_rate=16_000))
        assert len(given_turns(session)) == 2


def test_a_typed_turn_is_refused_where_none_was_taught(untaught: Engine) -> None:
    with untaught.session(**LIMITS) as session:
        with pytest.raises(SettingError, match="was not taught typed questions") as refused:
            session.stream(text="hello")
        assert "typed_turns" in refused.value.remedy
        assert list(session.stream(text="hello", typed_turns=True))[-1].final
    with pytest.raises(SettingError, match="was not taught typed questions"):
        untaught.stream(text="hello", **LIMITS)
    assert list(untaught.stream(text="hello", typed_turns=True, **LIMITS))[-1].final


@pytest.mark.parametrize("turns", [-1, 1.5, "2"])
def test_history_that_makes_no_sense_is_said(shared_engine: Engine, turns: object) -> None:
    with pytest.raises(SettingError, match="history_turns"):
        shared_engine.session(history_turns=turns)


def test_a_model_that_says_nothing_was_taught_everything(tiny_engine_dir: Path) -> None:
    assert EngineDirectory(tiny_engine_dir).manifest.model.capabilities == Capabilities()


def test_the_warm_up_is_no_turn(tiny_engine_dir: Path, utterance: Utterance, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="omni2_engine.turn"):
        engine = Engine.load(tiny_engine_dir, threads=1)
        assert not caplog.records
        with engine.session(**LIMITS) as session:
            list(session.stream(utterance(1), sample_rate=16_000))
    assert len(caplog.records) == 1


def test_chunks_tell_when_to_start_and_metrics_what_became_of_it(shared_engine: Engine, utterance: Utterance) -> None:
    with shared_engine.session(max_new_tokens=14, max_last_write=30) as session:
        for seed in (1, 2):
            chunks = list(session.stream(utterance(seed), sample_rate=16_000))
        metrics = session.metrics
    assert metrics is not None and metrics.start_in == chunks[0].start_in >= 0
    assert all(chunk.start_in >= 0 for chunk in chunks) and chunks[-1].start_in == 0
    dry = 0.0
    played = metrics.chunk_times[0] + metrics.start_in
    for ready, chunk in zip(metrics.chunk_times, chunks, strict=False):
        dry += max(0.0, ready - played)
        played = max(played, ready) + chunk.duration
    assert metrics.underrun == pytest.approx(dry)
