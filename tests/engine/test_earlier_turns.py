"""Earlier turns that are given to a session: it goes on as one that had them itself."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_engine import Chunk, EarlierTurn, Engine, Session, TurnRecord
from omni2_engine.errors import AudioError, ContextError, SettingError
from omni2_engine.live.events import Failed, Finished, TurnAdded
from omni2_engine.model.manifest import MANIFEST
from omni2_engine.sampling import Stream

from ..waiting import SOON, eventually

LIMITS: dict[str, Any] = {"seed": 3, "max_new_tokens": 14, "max_last_write": 30}
Utterance = Callable[..., np.ndarray]
Question = np.ndarray | str
ANSWERS = ["hello there my friend", "no", "it is in the drawer"]


def ask(session: Session, question: Question, **options: Any) -> list[Chunk]:
    if isinstance(question, str):
        return list(session.stream(text=question, **options))
    return list(session.stream(question, sample_rate=16_000, **options))


def had(engine: Engine, session: Session, questions: Sequence[Question], answers: Sequence[str]) -> None:
    """Have these turns in a session: its answers are made to be these texts."""
    for question, answer in zip(questions, answers, strict=True):
        ids = [*engine.pipeline.tokenizer.encode(answer), next(iter(engine.config.tokens.eos))]
        assert "".join(chunk.text for chunk in ask(session, question, forced={Stream.TEXT: ids})) == answer


def earlier(questions: Sequence[Question], answers: Sequence[str]) -> list[EarlierTurn]:
    return [
        EarlierTurn(answer, text=question)
        if isinstance(question, str)
        else EarlierTurn(answer, audio=question, sample_rate=16_000)
        for question, answer in zip(questions, answers, strict=True)
    ]


def sound(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.pcm for chunk in chunks])


def check_equal(engine: Engine, one: Session, other: Session) -> None:
    """Their KV caches hold the same items at the same positions, their next turn has the same number.

    Prompts are equal to the last bit. Answers were decoded token by token in the one and fed at once to the other:
    attention kernels sum those in another order, so from the second layer on they are equal to float32 rounding.
    """
    mine, theirs = one._state, other._state
    assert mine.history.fed == theirs.history.fed and mine.turns == theirs.turns
    assert [exchange.reply for exchange in mine.history.exchanges] == [
        exchange.reply for exchange in theirs.history.exchanges
    ]
    assert mine.held.conversation is not None and theirs.held.conversation is not None
    filled = theirs.held.conversation.state.filled()
    prompt = len(engine.prompts.lay_out(theirs.history.exchanges[:1], None).items)
    for name, cache in mine.held.conversation.state.filled().items():
        assert np.array_equal(cache[:, :prompt], filled[name][:, :prompt])
        np.testing.assert_allclose(cache, filled[name], atol=1e-5 * float(np.abs(cache).max()))


@pytest.fixture(scope="module", params=["threaded", "inline"])
def engine(tiny_engine_dir: Path, request: pytest.FixtureRequest) -> Engine:
    return Engine.load(tiny_engine_dir, threads=1, warm_up=False, schedule=request.param)


@pytest.mark.parametrize("kinds", ["typed", "spoken", "both"])
def test_a_session_goes_on_as_one_that_had_these_turns(engine: Engine, utterance: Utterance, kinds: str) -> None:
    questions: list[Question] = {
        "typed": ["where is it", "and the key"],
        "spoken": [utterance(1), utterance(2)],
        "both": [utterance(1), "and the key"],
    }[kinds]
    with engine.session(**LIMITS) as session, engine.session(**LIMITS) as given:
        had(engine, session, questions, ANSWERS[:2])
        given.add_turns(earlier(questions, ANSWERS[:2]))
        check_equal(engine, session, given)
        expected, answer = ask(session, utterance(7)), ask(given, utterance(7))
        assert np.array_equal(sound(expected), sound(answer))
        assert given.metrics is not None and session.metrics is not None
        assert given.metrics.reused_positions == session.metrics.reused_positions > 60
        assert [record.answer for record in given.history] == [record.answer for record in session.history]
    with engine.session(**LIMITS, history=earlier(questions, ANSWERS[:2])) as resumed:
        assert np.array_equal(sound(ask(resumed, utterance(7))), sound(expected))


def test_turns_are_added_between_two(engine: Engine, utterance: Utterance) -> None:
    with engine.session(**LIMITS) as session, engine.session(**LIMITS) as given:
        for one in (session, given):
            ask(one, utterance(1))
        had(engine, session, ["and the key", utterance(2)], ANSWERS[:2])
        given.add_turns(earlier(["and the key", utterance(2)], ANSWERS[:2]))
        given.add_turns([])
        check_equal(engine, session, given)
        assert np.array_equal(sound(ask(session, "really")), sound(ask(given, "really")))
        assert given.history[1] == TurnRecord("and the key", ANSWERS[0], "given")
        assert given.history[2] == TurnRecord(None, ANSWERS[1], "given")


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_as_many_count_as_ever(shared_engine: Engine, utterance: Utterance, turns: int) -> None:
    questions = [utterance(1), "two", utterance(3)]
    options = {**LIMITS, "history_turns": turns}
    with shared_engine.session(**options) as session, shared_engine.session(**options) as given:
        had(shared_engine, session, questions, ANSWERS)
        given.add_turns(earlier(questions, ANSWERS))
        assert [e.reply for e in given._state.history.exchanges] == [e.reply for e in session._state.history.exchanges]
        expected, answer = ask(session, utterance(7)), ask(given, utterance(7))
        assert np.array_equal(sound(expected), sound(answer))
        assert given._state.history.fed == session._state.history.fed
        more = ask(session, "more", history_turns=3), ask(given, "more", history_turns=3)
        assert np.array_equal(sound(more[0]), sound(more[1]))


def test_the_oldest_go_when_the_context_is_full(tiny_engine_dir: Path, utterance: Utterance) -> None:
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False, max_context=400)
    questions: list[Question] = [utterance(1), "two", utterance(3), utterance(4), "five", utterance(6)]
    answers = [*ANSWERS, *ANSWERS]
    with engine.session(**LIMITS) as session, engine.session(**LIMITS) as given:
        had(engine, session, questions, answers)
        given.add_turns(earlier(questions, answers))
        kept = [exchange.reply for exchange in session._state.history.exchanges]
        assert 0 < len(kept) < len(questions)
        check_equal(engine, session, given)
        assert np.array_equal(sound(ask(session, utterance(7))), sound(ask(given, utterance(7))))


def test_each_turn_is_laid_out_once_where_there_is_room_for_all(
    shared_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared_engine.session(**LIMITS, system="Be brief.") as session:
        session.add_turns([TURN])  # the system prompt is prefilled
    laid_out: list[int] = []
    real = shared_engine.prompts.lay_out

    def counted(exchanges: list[Any], system: str | None) -> Any:
        laid_out.append(len(exchanges))
        return real(exchanges, system)

    monkeypatch.setattr(shared_engine.prompts, "lay_out", counted)
    with shared_engine.session(**LIMITS, system="Be brief.") as session:
        session.add_turns([TURN] * 5)
    assert laid_out == [1, 2, 3, 4, 5]


def test_the_next_turn_may_have_a_system_prompt_of_its_own(shared_engine: Engine, utterance: Utterance) -> None:
    turns = earlier([utterance(1)], ANSWERS[:1])
    with shared_engine.session(**LIMITS, system="Be brief.") as session, shared_engine.session(**LIMITS) as given:
        session.add_turns(turns)
        given.add_turns(turns, system="Be brief.")
        check_equal(shared_engine, session, given)
        expected = sound(ask(session, utterance(7)))
        assert np.array_equal(sound(ask(given, utterance(7), system="Be brief.")), expected)
        assert given.metrics is not None and given.metrics.reused_positions > 60
    with shared_engine.session(**LIMITS) as given:
        given.add_turns(turns)  # and with another one all is prefilled anew
        assert np.array_equal(sound(ask(given, utterance(7), system="Be brief.")), expected)


def test_an_answer_that_was_given_counts_as_heard(shared_engine: Engine, utterance: Utterance) -> None:
    with shared_engine.session(**LIMITS) as session:
        ask(session, utterance(1))
        session.add_turns(earlier(["and the key"], ANSWERS[:1]))
        session.truncate(1)
        session.interrupt(0.5)
        assert session.history[-1] == TurnRecord("and the key", ANSWERS[0], "given")
        session.truncate(0)
        assert session.history[-1] == TurnRecord("and the key", "", "given", truncated=True)
        assert session._state.history.exchanges[-1].reply == [] != session._state.history.exchanges[0].reply
        assert ask(session, utterance(2))[-1].final
    with shared_engine.session(**LIMITS, history=earlier(["and the key"], [""])) as session:
        assert ask(session, utterance(2))[-1].final


TURN = EarlierTurn("no", text="is it")


@pytest.mark.parametrize(
    ("turn", "error", "words"),
    [
        (EarlierTurn("no"), SettingError, "either spoken or typed"),
        (EarlierTurn("no", audio="there is none.wav", text="is it"), SettingError, "either spoken or typed"),
        (EarlierTurn("no", audio="there is none.wav"), AudioError, "there is none.wav"),
        (EarlierTurn("no", text="<|im_end|>"), SettingError, "control token"),
        (EarlierTurn("no<|im_end|>", text="is it"), SettingError, "answer of an earlier turn contains the control"),
        (EarlierTurn(None, text="is it"), SettingError, "the answer of an earlier turn is None"),  # type: ignore[arg-type]
        (("is it", "no"), SettingError, "give EarlierTurn objects"),
        (EarlierTurn("no " * 5_000, text="is it"), ContextError, "an earlier turn takes .* with its answer"),
    ],
)
def test_what_cannot_be_added_is_said_and_nothing_is(
    shared_engine: Engine, utterance: Utterance, turn: Any, error: type[Exception], words: str
) -> None:
    with shared_engine.session(**LIMITS) as session:
        expected = sound(ask(session, utterance(7)))
    with shared_engine.session(**LIMITS) as session:
        with pytest.raises(error, match=words) as raised:
            session.add_turns([TURN, turn])
        assert raised.value.remedy  # type: ignore[attr-defined]
        assert session.history == () and np.array_equal(sound(ask(session, utterance(7))), expected)
    with pytest.raises(error, match=words):
        shared_engine.session(**LIMITS, history=[turn])
    assert not shared_engine.states._open


def test_a_history_that_cannot_be_read_opens_no_session(shared_engine: Engine) -> None:
    def broken() -> Iterator[EarlierTurn]:
        yield TURN
        raise KeyError("out of order")

    for begin in (shared_engine.session, shared_engine.live):
        with pytest.raises(KeyError) as kept:
            begin(history=broken())
        assert kept.value and not shared_engine.states._open


def test_turns_are_added_to_no_session_that_is_busy_or_closed(shared_engine: Engine, utterance: Utterance) -> None:
    with shared_engine.session(**LIMITS) as session:
        answer = session.stream(utterance(1), sample_rate=16_000)
        with pytest.raises(SettingError, match="another turn of this session is running"):
            session.add_turns([TURN])
        answer.close()
        prepared = session.prepare(utterance(1), sample_rate=16_000)
        with pytest.raises(SettingError, match="is prepared"):
            session.add_turns([TURN])
        prepared.take_back()
        with pytest.raises(SettingError, match="voice cannot change"):
            session.add_turns([TURN], voice="voice")  # type: ignore[call-arg]
    with pytest.raises(SettingError, match="the session is closed"):
        session.add_turns([TURN])


@pytest.mark.parametrize("broken", ["llm", "encoder"])
def test_a_step_that_fails_leaves_the_session_as_it_was(
    shared_engine: Engine, utterance: Utterance, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The second turn fails; the KV cache holds the first one then, and the next turn's speech must not be taken
    for it."""
    with shared_engine.session(**LIMITS) as session:
        expected = [sound(ask(session, utterance(seed))) for seed in (1, 2)]
    pipeline, calls = shared_engine.pipeline, []
    place = (type(pipeline.llm), "extend") if broken == "llm" else (type(pipeline.encoder), "__call__")
    real = getattr(*place)

    def fails_second(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise RuntimeError("out of order")
        return real(*arguments)

    with shared_engine.session(**LIMITS) as session:
        assert np.array_equal(sound(ask(session, utterance(1))), expected[0])
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of order"):
            patch.setattr(*place, fails_second)
            session.add_turns(earlier([utterance(4), utterance(5)], ANSWERS[:2]))
        assert len(session.history) == 1
        assert np.array_equal(sound(ask(session, utterance(2))), expected[1])


def test_what_failed_turns_leave_is_no_beginning_of_a_prompt(
    tiny_engine_dir: Path, shared_engine: Engine, utterance: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The KV cache holds the first of two turns, and the session none; all sessions share the beginning of prompts that
    the next turn prefills."""
    options = {**LIMITS, "system": "Answer in rhymes."}
    with shared_engine.session(**options) as session:
        expected = sound(ask(session, utterance(7)))
    with Engine.load(tiny_engine_dir, threads=1, warm_up=False) as engine:
        kind = type(engine.pipeline.encoder)
        real, calls = kind.__call__, []

        def fails_second(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 2:
                raise RuntimeError("out of order")
            return real(*arguments)

        with engine.session(**LIMITS) as session:
            with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of order"):
                patch.setattr(kind, "__call__", fails_second)
                session.add_turns(earlier([utterance(1), utterance(2)], ANSWERS[:2]))
            assert np.array_equal(sound(ask(session, utterance(7), system=options["system"])), expected)
        with engine.session(**options) as other:
            assert np.array_equal(sound(ask(other, utterance(7))), expected)


def test_for_asyncio(shared_engine: Engine, utterance: Utterance, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = earlier([utterance(1), "and the key"], ANSWERS[:2])
    with shared_engine.session(**LIMITS, history=turns) as session:
        expected = sound(ask(session, utterance(7)))

    async def added() -> np.ndarray:
        with shared_engine.session(**LIMITS) as session:
            with monkeypatch.context() as patch:
                left, given_up = asyncio.Event(), threading.Event()
                loop, kind = asyncio.get_running_loop(), type(shared_engine.pipeline.encoder)
                real = kind.__call__

                def slow(encoder: Any, log_mel: Any) -> Any:
                    loop.call_soon_threadsafe(left.set)
                    assert given_up.wait(SOON)
                    return real(encoder, log_mel)

                patch.setattr(kind, "__call__", slow)
                task = asyncio.create_task(session.aadd_turns(turns))
                await left.wait()
                task.cancel()  # the turns that were asked for are given up
                given_up.set()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert session.history == ()
            await session.aadd_turns(turns)
            return sound([chunk async for chunk in session.astream(utterance(7), sample_rate=16_000)])

    assert np.array_equal(asyncio.run(added()), expected)


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_closing_and_cancelling_end_it(
    shared_engine: Engine,
    utterance: Utterance,
    monkeypatch: pytest.MonkeyPatch,
    is_free: Callable[[Engine], bool],
    how: str,
) -> None:
    kind = type(shared_engine.pipeline.encoder)
    real = kind.__call__
    with shared_engine.session(**LIMITS) as session:

        def stops(encoder: Any, log_mel: Any) -> Any:
            getattr(session, how)()
            return real(encoder, log_mel)

        with monkeypatch.context() as patch, pytest.raises(SettingError, match="was stopped while earlier turns"):
            patch.setattr(kind, "__call__", stops)
            session.add_turns(earlier([utterance(1), utterance(2)], ANSWERS[:2]))
        if how == "cancel":
            session.add_turns([TURN])
            assert len(session.history) == 1
    assert is_free(shared_engine)


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("asked", ["aadd_turns", "astream"])
def test_a_coroutine_is_told_why_its_turn_stopped(
    tiny_engine_dir: Path, utterance: Utterance, monkeypatch: pytest.MonkeyPatch, asked: str, cancelled: bool
) -> None:
    """The engine is closed while a step runs, and its threads with it; a task that is cancelled, too, is cancelled."""
    began, go, before = threading.Event(), threading.Event(), set(threading.enumerate())

    def helpers() -> list[threading.Thread]:
        return [each for each in set(threading.enumerate()) - before if each.name.startswith("omni2-helper")]

    async def main(engine: Engine) -> None:
        session, kind = engine.session(**LIMITS), type(engine.pipeline.encoder)
        real = kind.__call__

        def held(*arguments: Any) -> Any:
            began.set()
            assert go.wait(SOON)
            return real(*arguments)

        async def work() -> None:
            if asked == "aadd_turns":
                await session.aadd_turns(earlier([utterance(1)], ANSWERS[:1]))
            else:
                async for _ in session.astream(utterance(1), sample_rate=16_000):
                    pass

        monkeypatch.setattr(kind, "__call__", held)
        task = asyncio.create_task(work())
        assert await asyncio.to_thread(began.wait, SOON)
        others = helpers()
        threading.Thread(target=lambda: eventually(lambda: session._state.closed) and go.set()).start()
        engine.close()  # while the event loop stands still
        if cancelled:
            task.cancel()
        error, words = (asyncio.CancelledError, None) if cancelled else (SettingError, "session was (closed|stopped)")
        with pytest.raises(error, match=words):
            await task
        assert task.cancelled() == cancelled and session._state.turn is None
        assert others and eventually(lambda: not any(each.is_alive() for each in others))

    asyncio.run(main(Engine.load(tiny_engine_dir, threads=1, warm_up=False)))


def test_a_typed_turn_is_refused_where_none_was_taught(tiny_engine_dir: Path, tmp_path: Path) -> None:
    for item in tiny_engine_dir.iterdir():
        if item.name != MANIFEST:
            (tmp_path / item.name).symlink_to(item)
    manifest = json.loads((tiny_engine_dir / MANIFEST).read_text())
    manifest["model"]["capabilities"] = {"typed_turns": False, "history_turns": None}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    engine = Engine.load(tmp_path, threads=1, warm_up=False)
    with pytest.raises(SettingError, match="was not taught typed questions") as refused:
        engine.session(history=[TURN])
    assert "typed_turns" in refused.value.remedy
    with engine.session(history=[TURN], typed_turns=True) as session:
        assert session.history[0].answer == "no"


@pytest.mark.parametrize("schedule", ["threaded", "inline"])
def test_a_live_conversation_goes_on_from_turns_that_were_had(tiny_engine_dir: Path, schedule: Any) -> None:
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False, schedule=schedule)

    def answered(live: Any) -> tuple[list[Any], np.ndarray]:
        live.say("really")
        live.respond()
        live.end()
        events = list(live)
        return events, np.concatenate([event.chunk.pcm for event in events if hasattr(event, "chunk")])

    with engine.session(**LIMITS) as session:
        had(engine, session, ["where is it", "and\nthe key"], ANSWERS[:2])
        expected = sound(ask(session, "really"))
    turns = earlier(["where is it", "and\nthe key"], ANSWERS[:2])
    with engine.live(detection=None, **LIMITS, history=turns[:1]) as live:
        for text in ("and", "the key"):  # both are the question
            live.say(text)
        live.answered(ANSWERS[1])
        events, heard = answered(live)
        assert isinstance(events[0], TurnAdded) and isinstance(events[-1], Finished)
        assert np.array_equal(heard, expected)
    with engine.live(detection=None, **LIMITS, history=turns) as live:
        live.answered("yes")  # there is nothing that it answers
        live.say("what")
        live.answered("no<|im_end|>")
        events, heard = answered(live)
        failed = [event for event in events if isinstance(event, Failed)]
        assert len(failed) == 2 and all(isinstance(event.error, SettingError) for event in failed)
        assert np.array_equal(heard, expected)


class HeldPrefill:
    """Prompts are fed to the language model when that is let go on.

    Args:
        engine: whose it is.
        patch: undoes it.
    """

    def __init__(self, engine: Engine, patch: pytest.MonkeyPatch) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        kind = type(engine.pipeline.llm)
        real = kind.extend

        def held(*arguments: Any) -> Any:
            self.began.set()
            assert self.go.wait(SOON)
            return real(*arguments)

        patch.setattr(kind, "extend", held)


def test_much_may_be_asked_for_behind_an_answer_that_is_made(
    shared_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be done is told, however often: given answers to nothing, and answers longer than there is room."""
    held = HeldPrefill(shared_engine, monkeypatch)
    with shared_engine.live(detection=None, **LIMITS) as live:
        live.say("really")
        live.respond()
        assert held.began.wait(SOON)
        for _ in range(1500):
            live.answered("no")
        for _ in range(400):
            live.say("and now")
            live.respond(max_new_tokens=100_000)
        live.end()
        assert eventually(lambda: len(live._turns._requests) == 1900)
        held.go.set()
        events = list(live)
    assert sum(isinstance(event, Finished) for event in events) == 1
    failed = [event for event in events if isinstance(event, Failed)]
    assert all(isinstance(event.error, SettingError) for event in failed)
    assert Counter(event.turn is None for event in failed) == {True: 1500, False: 400}


def test_a_given_answer_that_waits_for_another_is_truncated(
    shared_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldPrefill(shared_engine, monkeypatch)
    with shared_engine.live(detection=None, **LIMITS) as live:
        live.say("really")
        live.respond()
        assert held.began.wait(SOON)
        live.say("where is it")
        live.answered("in the drawer")
        assert eventually(lambda: live._turns._requests)
        live.truncate(0.0)
        live.truncate(1.0)  # what is cut does not come back
        live.say("and now")
        live.respond()
        live.end()
        held.go.set()
        kinds = [type(event) for event in live if isinstance(event, Failed | TurnAdded | Finished)]
    assert kinds == [Finished, TurnAdded, Finished]
    assert [(turn.typed, turn.truncated) for turn in live.history] == [
        ("really", False),
        ("where is it", True),
        ("and now", False),
    ]
    assert live.history[1].answer == "" != live.history[0].answer


def test_a_given_answer_is_truncated_behind_what_was_fed_before_it(engine: Engine) -> None:
    """Much sound is still to be heard when both are called."""
    with engine.live(**LIMITS, typed_turns=True) as live:
        live.feed(np.zeros(60 * 16_000, np.float32))
        live.say("where is it")
        live.answered("in the drawer")
        live.truncate(0.0)
        live.end()
        assert [type(event) for event in live] == [TurnAdded]
        assert [(turn.typed, turn.answer) for turn in live.history] == [("where is it", "")]
