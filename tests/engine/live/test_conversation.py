"""Live conversations on a small engine: events, their order, and what is left of an answer that was interrupted.

Nothing waits for real time: input is fed as fast as it is heard, and the clock goes when it is told to.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_engine import Engine
from omni2_engine.errors import AudioError, SettingError
from omni2_engine.live.conversation import LiveConversation
from omni2_engine.live.detection.base import RATE
from omni2_engine.live.events import (
    AnswerBegun,
    Committed,
    Event,
    Failed,
    Finished,
    Interrupted,
    SoundMade,
    SpeechBegan,
    SpeechEnded,
    TextWritten,
    TurnBegun,
    TurnTakenBack,
)
from omni2_engine.live.settings import Detection

from ...waiting import eventually
from .scenes import Floats, recording, silence
from .test_playback import HandClock

OPTIONS: dict[str, Any] = {"seed": 3, "max_new_tokens": 14, "max_last_write": 30}
PLAIN = Detection(soft_end=None)
LIVE_THREADS = {"omni2-listening", "omni2-turns", "omni2-answer"}
COUGH = 0.06  # seconds of a voice


@pytest.fixture(params=["threaded", "inline"])
def engine(request: pytest.FixtureRequest, tiny_engine_dir: Path) -> Iterator[Engine]:
    with Engine.load(tiny_engine_dir, threads=1, warm_up=False, schedule=request.param, sessions=2) as engine:
        yield engine


@pytest.fixture
def question(repository: Path) -> Floats:
    """A spoken question and the silence behind it, 16 kHz."""
    return np.concatenate([recording(repository, "examples/sum.wav"), silence(0.6)])


def until(live: LiveConversation, kind: type[Event], **fields: object) -> list[Event]:
    """The events up to the first of this kind."""
    events = []
    for event in live:
        events.append(event)
        if isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items()):
            return events
    raise AssertionError(f"no {kind.__name__} in {events}")


def told(events: list[Event]) -> str:
    """The order of events; text and sound of an answer as one."""
    names = [type(event).__name__ for event in events]
    kept = ["answer" if name in ("TextWritten", "SoundMade") else name for name in names]
    return " ".join(name for name, before in zip(kept, ["", *kept], strict=False) if name != before)


def sound(events: list[Event], turn: int = 0) -> Floats:
    return np.concatenate([e.chunk.pcm for e in events if isinstance(e, SoundMade) and e.turn == turn])


def text(events: list[Event], turn: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, TextWritten) and e.turn == turn)


def committed(events: list[Event], fed: Floats) -> Floats:
    """The sound that the model heard."""
    event = next(e for e in events if isinstance(e, Committed))
    return fed[event.begin : event.end]


def said(engine: Engine, *turns: Any) -> list[tuple[Floats, str]]:
    """Sound and text of a plain session's answers: to waveforms; a number truncates the one before to these seconds."""
    answers = []
    with engine.session(**OPTIONS) as session:
        for turn in turns:
            if isinstance(turn, float):
                session.truncate(1000 * turn)
                continue
            chunks = list(session.stream(turn, sample_rate=RATE))
            answers.append((np.concatenate([c.pcm for c in chunks]), "".join(c.text for c in chunks)))
    return answers


def test_a_spoken_turn(engine: Engine, question: Floats) -> None:
    with engine.live(detection=PLAIN, **OPTIONS) as live:
        live.feed(question)
        live.end()
        events = list(live)
    assert told(events) == "SpeechBegan SpeechEnded Committed TurnBegun AnswerBegun answer Finished"
    pcm, words = said(engine, committed(events, question))[0]
    assert np.array_equal(sound(events), pcm) and text(events) == words
    assert isinstance(events[-1], Finished) and events[-1].metrics.audio_seconds == len(pcm) / engine.sample_rate


def test_an_answer_is_begun_before_the_end_is_certain(engine: Engine, question: Floats) -> None:
    with engine.live(**OPTIONS) as live:
        live.feed(question)
        live.end()
        events = list(live)
    assert told(events) == "SpeechBegan TurnBegun SpeechEnded Committed AnswerBegun answer Finished"
    assert events[1] == TurnBegun(0, speculative=True)
    pcm, words = said(engine, committed(events, question))[0]
    assert np.array_equal(sound(events), pcm) and text(events) == words
    assert engine.prepared_turns.committed == 1 and len(live.history) == 1


def test_speech_that_goes_on_takes_the_answer_back(engine: Engine, question: Floats) -> None:
    """Pauses in mid-sentence; then the sentence ends."""
    words = np.array_split(question[3_200 : len(question) - 9_600], 4)
    rng = np.random.default_rng(5)
    with engine.live(**OPTIONS) as live:
        fed = [np.concatenate([word, silence(rng.uniform(0.25, 0.4))]) for word in words]
        live.feed(np.concatenate([*fed, silence(0.6)]))
        live.end()
        events = list(live)
    begun = [e for e in events if isinstance(e, TurnBegun)]
    taken_back = [e for e in events if isinstance(e, TurnTakenBack)]
    assert len(begun) == len(taken_back) + 1 > 2 and {e.turn for e in begun} == {0}
    assert told(events).endswith("TurnBegun SpeechEnded Committed AnswerBegun answer Finished")
    pcm, said_text = said(engine, committed(events, np.concatenate(fed)))[0]
    assert np.array_equal(sound(events), pcm) and text(events) == said_text
    assert len(live.history) == 1


@pytest.mark.parametrize("change", ["clear", "truncate", "interrupt", "say"])
def test_what_changes_below_a_speculative_turn(engine: Engine, question: Floats, change: str) -> None:
    """It is taken back, and begun anew where it still makes sense."""
    clock = HandClock()
    pause = len(question) - round(0.3 * RATE)  # 0.3 s of silence: the soft end, and not the end
    with engine.live(clock=clock, typed_turns=True, **OPTIONS) as live:
        live.feed(question)
        first = until(live, Finished)
        clock.now += 1000
        live.feed(question[:pause])
        until(live, TurnBegun)
        heard = None
        match change:
            case "clear":
                live.clear()
            case "truncate":
                heard = 0.1
                live.truncate(heard)
            case "interrupt":
                live.interrupt()  # it was heard to its end
            case "say":
                live.say("more")
                live.respond()
        live.feed(question[pause:])
        live.end()
        events = list(live)
    assert engine.prepared_turns.prepared == engine.prepared_turns.committed + engine.prepared_turns.taken_back
    if change == "clear":
        assert told(events) == "TurnTakenBack"
        return
    assert told(events).endswith("answer Finished")
    if change == "say":
        assert [e.turn for e in events if isinstance(e, Finished)] == [1, 2]
        return
    turns = [committed(first, question), *([] if heard is None else [heard]), committed(events, np.tile(question, 2))]
    assert np.array_equal(sound(events, turn=1), said(engine, *turns)[1][0])


def test_coroutines_converse_without_threads_of_theirs(engine: Engine, question: Floats) -> None:
    async def converse() -> list[Event]:
        with engine.live(detection=PLAIN, **OPTIONS) as live:
            for frame in np.array_split(question, 50):
                live.feed(frame)
                await asyncio.sleep(0)
            live.end()
            return [event async for event in live]

    events = asyncio.run(converse())
    assert np.array_equal(sound(events), said(engine, committed(events, question))[0][0])


def test_push_to_talk(engine: Engine, question: Floats) -> None:
    with engine.live(detection=None, **OPTIONS) as live:
        live.feed(question[:9_000])
        live.commit()
        live.feed(question[9_000:])
        live.commit()
        live.respond()
        live.end()
        events = list(live)
    assert told(events) == "Committed TurnBegun AnswerBegun answer Finished"
    assert [e.answered for e in events if isinstance(e, Committed)] == [False, False]
    assert np.array_equal(sound(events), said(engine, question)[0][0])


def test_typed_items(engine: Engine) -> None:
    with engine.live(typed_turns=True, **OPTIONS) as live:
        live.say("one")
        live.say("two")
        live.respond()
        live.end()
        events = list(live)
    with engine.session(typed_turns=True, **OPTIONS) as session:
        chunks = list(session.stream(text="one\ntwo"))
    assert np.array_equal(sound(events), np.concatenate([chunk.pcm for chunk in chunks]))


def test_turns_that_are_not_answered_by_themselves(engine: Engine, question: Floats) -> None:
    with engine.live(detection=Detection(create_response=False), **OPTIONS) as live:
        live.feed(np.concatenate([question, question]))
        events = until(live, Committed) + until(live, Committed)
        assert told(events) == "SpeechBegan SpeechEnded Committed SpeechBegan SpeechEnded Committed"
        live.respond(max_new_tokens=4)
        live.end()
        events = list(live)
    assert events[-1].metrics.text_tokens <= 4  # type: ignore[union-attr]


@pytest.mark.parametrize("heard", [0.0, 0.3, 0.55, 100.0])
def test_speech_interrupts_an_answer_that_plays(engine: Engine, question: Floats, heard: float) -> None:
    """It is made, and its end not yet heard: the next answer goes on from what was."""
    clock = HandClock()
    with engine.live(detection=PLAIN, clock=clock, **OPTIONS) as live:
        live.feed(question)
        first = until(live, Finished)
        pcm = sound(first)
        clock.now += min(heard, len(pcm) / engine.sample_rate - 0.01)
        live.feed(question)
        live.end()
        events = list(live)
    assert told(events) == "SpeechBegan Interrupted SpeechEnded Committed TurnBegun AnswerBegun answer Finished"
    event = events[1]
    assert isinstance(event, Interrupted) and event.turn == 0
    assert event.heard == pytest.approx(clock.now, abs=1e-6)
    fed = np.concatenate([question, question])
    expected = said(engine, committed(first, fed), event.heard, committed(events, fed))
    assert np.array_equal(sound(events, turn=1), expected[1][0]) and text(events, turn=1) == expected[1][1]
    assert live.history[0].truncated == (live.history[0].answer != expected[0][1])


def test_speech_interrupts_an_answer_that_is_made(engine: Engine, question: Floats) -> None:
    """The first chunk was taken, the next was not."""
    clock = HandClock()
    with engine.live(detection=PLAIN, clock=clock, **OPTIONS) as live:
        live.feed(question)
        first = until(live, SoundMade)
        clock.now += 0.02
        live.feed(question)
        live.end()
        events = list(live)
    assert isinstance(events[-1], Finished) and events[-1].turn == 1
    interrupted = next(e for e in events if isinstance(e, Interrupted))
    assert interrupted.heard == pytest.approx(0.02)
    after = events[events.index(interrupted) :]
    assert not any(isinstance(e, SoundMade) and e.turn == 0 for e in after)
    assert told(events).startswith("SpeechBegan Interrupted Finished SpeechEnded") or "Interrupted" in told(events)
    assert len(sound(first)) > 0 and len(live.history) == 2


def test_a_cough_does_not_interrupt(engine: Engine, question: Floats) -> None:
    clock = HandClock()
    cough = np.concatenate([question[5_000 : 5_000 + round(COUGH * RATE)], silence(1.0)])
    with engine.live(detection=PLAIN, clock=clock, **OPTIONS) as live:
        live.feed(question)
        until(live, Finished)
        live.feed(cough)
        live.end()
        assert list(live) == []


def test_nothing_interrupts_where_it_must_not(engine: Engine, question: Floats) -> None:
    """Speech during an answer is the next turn, answered behind it."""
    clock = HandClock()
    with engine.live(detection=Detection(interrupt_response=False), clock=clock, **OPTIONS) as live:
        live.feed(question)
        events = until(live, SoundMade)
        live.feed(question)
        live.end()
        events += list(live)
    assert not any(isinstance(event, Interrupted) for event in events)
    fed = np.concatenate([question, question])
    spans = [fed[e.begin : e.end] for e in events if isinstance(e, Committed)]
    expected = said(engine, *spans)
    assert [np.array_equal(sound(events, turn), expected[turn][0]) for turn in (0, 1)] == [True, True]


def test_a_client_interrupts_and_says_what_was_heard(engine: Engine, question: Floats) -> None:
    with engine.live(detection=PLAIN, clock=HandClock(), **OPTIONS) as live:
        live.feed(question)
        first = until(live, SoundMade)
        live.interrupt(heard=0.01)
        assert until(live, Interrupted)[-1] == Interrupted(0, 0.01)
        live.interrupt()  # nothing any more
        live.end()
        events = list(live)
    assert told(events) in ("Finished", "")
    with engine.session(**OPTIONS) as session:
        for _ in session.stream(committed(first, question), sample_rate=RATE):
            pass
        session.truncate(10)
    assert live.history[0].answer == session.history[0].answer


def test_a_player_says_what_it_played(engine: Engine, question: Floats) -> None:
    with engine.live(detection=PLAIN, clock=HandClock(), **OPTIONS) as live:
        live.feed(question)
        until(live, Finished)
        live.played(0.125)
        live.interrupt()
        assert until(live, Interrupted)[-1] == Interrupted(0, 0.125)


def test_a_player_cuts_the_answer_afterwards(engine: Engine, question: Floats) -> None:
    clock = HandClock()
    with engine.live(detection=PLAIN, clock=clock, **OPTIONS) as live:
        live.feed(question)
        first = until(live, Finished)
        clock.now += 1000
        live.truncate(0.0)
        live.feed(question)
        live.end()
        events = list(live)
    fed = np.concatenate([question, question])
    expected = said(engine, committed(first, fed), 0.0, committed(events, fed))
    assert np.array_equal(sound(events, turn=1), expected[1][0])


def test_what_cannot_be_done_is_told_and_the_conversation_goes_on(engine: Engine, question: Floats) -> None:
    with engine.live(detection=None, **OPTIONS) as live:
        live.commit()
        live.respond()
        live.say("typed")
        live.feed(question)
        live.commit()
        live.respond()
        errors = [until(live, Failed)[-1].error for _ in range(3)]  # type: ignore[union-attr]
        assert [type(error) for error in errors] == [AudioError, SettingError, SettingError]
        live.feed(question)
        live.commit()
        live.respond()
        live.end()
        assert told(list(live)).endswith("answer Finished")


@pytest.mark.parametrize("long", ["error", "truncate"])
def test_more_speech_than_the_model_hears(engine: Engine, question: Floats, long: Any) -> None:
    window = engine.config.encoder.samples
    speech = np.tile(question[:28_000], 8)
    assert len(speech) > window + RATE
    with engine.live(detection=None, long=long, **OPTIONS) as live:
        live.feed(speech)
        live.commit()
        live.respond()
        live.end()
        events = list(live)
    if long == "error":
        assert isinstance(events[-1], Failed) and "14.0 s" in str(events[-1].error)
    else:
        assert np.array_equal(sound(events), said(engine, speech[:window])[0][0])


def test_settings_change_on_the_way(engine: Engine, question: Floats) -> None:
    with engine.live(detection=PLAIN, **OPTIONS) as live:
        live.update(detection=None, max_new_tokens=3)
        live.feed(question)
        live.commit()
        live.respond()
        live.end()
        events = list(live)
    assert told(events) == "Committed TurnBegun AnswerBegun answer Finished"
    assert events[-1].metrics.text_tokens <= 3  # type: ignore[union-attr]


def test_mistakes_are_found_where_they_are_made(engine: Engine) -> None:
    with engine.live(**OPTIONS) as live:
        with pytest.raises(SettingError, match="voice cannot change"):
            live.update(voice="other")  # type: ignore[call-arg]
        with pytest.raises(SettingError, match="max_new_tokens"):
            live.respond(max_new_tokens=0)
        with pytest.raises(SettingError, match="did you mean"):
            live.respond(seeds=0)  # type: ignore[call-arg]
        with pytest.raises(SettingError, match="heard"):
            live.interrupt("all")  # type: ignore[arg-type]
        with pytest.raises(SettingError, match="int"):
            live.say(5)  # type: ignore[arg-type]
        with pytest.raises(AudioError):
            live.feed("sound")  # type: ignore[arg-type]
        live.end()
        assert list(live) == []
        with pytest.raises(SettingError, match="has ended"):
            live.feed(silence(0.1))
    with pytest.raises(SettingError, match="is closed"):
        live.feed(silence(0.1))


@pytest.mark.parametrize("moment", [SpeechBegan, Committed, AnswerBegun, SoundMade, Finished])
def test_closing_at_any_moment_leaves_nothing(
    engine: Engine, question: Floats, is_free: Callable[[Engine], bool], moment: type[Event]
) -> None:
    live = engine.live(**OPTIONS)
    live.feed(question)
    until(live, moment)
    live.close()
    assert list(live) == []
    assert engine.runtime.schedule.__class__.__name__ == "InlineSchedule" or is_free(engine)


@pytest.mark.parametrize("moment", [TurnBegun, AnswerBegun, SoundMade])
def test_what_an_answer_held_is_gone_with_the_conversation(
    tiny_engine_dir: Path, question: Floats, monkeypatch: pytest.MonkeyPatch, moment: type[Event]
) -> None:
    """Not only when garbage is collected: the error that ends the answer refers to nothing of it."""
    made = []

    def watched(*arguments: Any) -> Any:
        states = new_states(*arguments)
        made.append(weakref.ref(states.decoder))
        return states

    def gone() -> bool:
        engine.states._idle = None  # the last one's, which is kept for the next turn
        return not any(decoder() for decoder in made)

    gc.collect()
    gc.disable()
    try:
        with Engine.load(tiny_engine_dir, threads=1, warm_up=False) as engine:
            new_states = engine.states._new_states
            monkeypatch.setattr(engine.states, "_new_states", watched)
            live = engine.live(**OPTIONS)
            live.feed(question)
            until(live, moment)
            live.close()
            eventually(gone)
            assert made
    finally:
        gc.enable()


def test_a_conversation_that_is_dropped_gives_its_memory_back(
    engine: Engine, question: Floats, is_free: Callable[[Engine], bool]
) -> None:
    live = engine.live(**OPTIONS)
    live.feed(question)
    until(live, SpeechEnded)
    alive = weakref.ref(live)
    del live
    eventually(lambda: gc.collect() >= 0 and alive() is None)  # a thread may be about to let go of it
    assert engine.runtime.schedule.__class__.__name__ == "InlineSchedule" or is_free(engine)


def test_an_engine_that_closes_ends_its_conversations(engine: Engine, question: Floats) -> None:
    live = engine.live(**OPTIONS)
    live.feed(question)
    until(live, TurnBegun)
    engine.close()
    assert list(live) == []


def test_frames_from_several_threads_are_all_heard(engine: Engine) -> None:
    with engine.live(detection=None, **OPTIONS) as live:
        threads = [threading.Thread(target=lambda: [live.feed(silence(0.02)) for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        live.commit()
        assert until(live, Committed)[-1] == Committed(0, 4 * RATE, answered=False)


def test_threads_end_with_the_conversations(tiny_engine_dir: Path, question: Floats) -> None:
    before = set(threading.enumerate())
    with Engine.load(tiny_engine_dir, threads=1, warm_up=False) as engine:
        for _ in range(2):
            with engine.live(**OPTIONS) as live:
                live.feed(question)
                live.end()
                assert list(live)
            eventually(lambda: not [t for t in set(threading.enumerate()) - before if t.name in LIVE_THREADS])
