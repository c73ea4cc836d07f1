"""Callers of a Realtime server: what they plan, what they do on a real socket, and what they note."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from omni2_bench.load.caller import Server
from omni2_bench.load.objectives import highest_rate, parse_objectives
from omni2_bench.load.recordings import FRAME, RATE, recording
from omni2_bench.load.records import Call, HeardTurn
from omni2_bench.load.results import LoadPlan, run
from omni2_bench.load.trial import Trial, meet
from omni2_bench.load.visits import INTERRUPTS_AFTER, Behaviour, visits
from omni2_engine.errors import SettingError

from .fast_loop import run_fast
from .server import ToneServer

PATIENCE = 600.0  # seconds: other processes may hold this one up


def question(before: float = 0.1, voiced: float = 0.4, after: float = 0.3) -> np.ndarray:
    """A tone between silences, 24 kHz."""
    tone = 0.5 * np.sin(np.arange(round(voiced * RATE)))
    return np.concatenate([np.zeros(round(before * RATE)), tone, np.zeros(round(after * RATE))]).astype(np.float32)


def meet_tone(server: ToneServer, behaviour: Behaviour, **settings: float) -> list[Call]:
    async def main() -> list[Call]:
        async with server.running() as url:
            return await meet(Server(url, **({"patience": PATIENCE} | settings)), behaviour, [recording(question())])

    return run_fast(main())


@given(
    rate=st.floats(0.05, 5),
    seconds=st.floats(1, 100),
    turns=st.integers(1, 6),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 2**32),
)
def test_visits_are_drawn_beforehand(
    rate: float, seconds: float, turns: int, shares: tuple[float, float], seed: int
) -> None:
    behaviour = Behaviour(rate, seconds, turns, 1.0, *shares, seed)
    found = visits(behaviour, 3)
    assert found == visits(behaviour, 3)
    begins = [visit.begins for visit in found]
    assert begins == sorted(begins) and all(0 <= moment < seconds for moment in begins)
    for visit in found:
        assert len(visit.turns) == turns and visit.turns[0].think == 0 and visit.turns[-1].interrupted_after is None
        assert all(0 <= turn.question < 3 for turn in visit.turns)
        cuts = [turn.interrupted_after for turn in visit.turns if turn.interrupted_after is not None]
        assert all(INTERRUPTS_AFTER[0] <= cut <= INTERRUPTS_AFTER[1] for cut in cuts)
        assert shares[0] > 0 or not cuts
        assert (visit.vanishes_in is not None) <= (shares[1] > 0)


def test_arrivals_have_the_rate_asked_for() -> None:
    found = visits(Behaviour(2.0, 2000.0), 1)
    assert 3700 < len(found) < 4300  # 4000 on average, deviation 63
    pauses = np.diff([visit.begins for visit in found])
    assert 0.9 < pauses.std() / pauses.mean() < 1.1  # as of a Poisson process


@given(before=st.integers(0, 40), voiced=st.integers(2, 40), after=st.integers(0, 40), rest=st.integers(0, FRAME - 1))
def test_the_end_of_speech_is_found(before: int, voiced: int, after: int, rest: int) -> None:
    tone = 0.3 * np.sin(np.arange(voiced * FRAME))
    samples = np.concatenate([np.zeros(before * FRAME), tone, np.zeros(after * FRAME + rest)]).astype(np.float32)
    found = recording(samples)
    assert (found.first, found.last) == (before, before + voiced - 1)
    assert b"".join(found.frames)[: 2 * len(samples)] == (samples * 32767).astype("<i2").tobytes()


def test_silence_is_no_question() -> None:
    with pytest.raises(SettingError, match="silent"):
        recording(np.zeros(1000, np.float32))


def test_conversations_to_their_end() -> None:
    server = ToneServer()
    calls = meet_tone(server, Behaviour(1.0, 4.0, turns=3, think=0.2, interrupts=0.0, vanishes=0.0, seed=5))
    assert calls and all(call.outcome == "done" for call in calls)
    turns = [turn for call in calls for turn in call.turns]
    assert len(turns) == 3 * len(calls) == server.answered and all(turn.status == "completed" for turn in turns)
    assert all(len(turn.ready) == 10 and sum(turn.durations) == pytest.approx(2.0) for turn in turns)
    # the decision comes after ten silent frames, the first piece when the server has thought
    assert all(turn.decided > turn.speech_ended and turn.ready[0] >= turn.decided for turn in turns)
    for call in calls:  # the next question comes after the answer has been played
        for turn, following in zip(call.turns, call.turns[1:], strict=False):
            assert following.speech_ended > turn.ready[0] + 2.0


def test_interruptions() -> None:
    server = ToneServer(pieces=400, every=0.15)
    calls = meet_tone(server, Behaviour(1.0, 3.0, turns=3, think=0.2, interrupts=1.0, vanishes=0.0, seed=1))
    assert calls and all(call.outcome == "done" for call in calls)
    for call in calls:
        assert [turn.status for turn in call.turns] == ["interrupted", "interrupted", "completed"]
        for turn in call.turns[:2]:
            assert turn.interrupted is not None and turn.stopped is not None
            assert turn.interrupted - turn.ready[0] > INTERRUPTS_AFTER[0] and len(turn.ready) < 400
            assert turn.noticed is not None and turn.noticed >= turn.interrupted
    assert len(server.truncated) == 2 * len(calls) and min(server.truncated) > 0


def test_those_who_vanish() -> None:
    server = ToneServer()
    calls = meet_tone(server, Behaviour(1.0, 3.0, turns=2, interrupts=0.0, vanishes=1.0, seed=2))
    assert calls and all(call.outcome == "vanished" for call in calls)
    assert all(call.turns[-1].status == "vanished" for call in calls)


@pytest.mark.parametrize("full_with", [503, 1013])
def test_a_full_server(full_with: int) -> None:
    server = ToneServer(places=1, full_with=full_with)
    calls = meet_tone(server, Behaviour(3.0, 3.0, turns=2, think=0.1, interrupts=0.0, vanishes=0.0, seed=3))
    outcomes = {call.outcome for call in calls}
    assert outcomes == {"done", "refused"} and server.most == 1
    assert {call.retry_after for call in calls if call.outcome == "refused"} == {7.0 if full_with == 503 else None}


def test_a_server_that_never_answers() -> None:
    server = ToneServer(thinks=1e6)
    calls = meet_tone(server, Behaviour(2.0, 5.0, turns=1, interrupts=0.0, vanishes=0.0, seed=4), patience=20.0)
    assert calls and all(call.outcome == "failed" and "TimeoutError" in call.problem for call in calls)
    assert all(turn.status == "failed" for call in calls for turn in call.turns)


def test_figures() -> None:
    turns = [
        HeardTurn(1.0, 1.5, [2.0, 2.5, 3.5], [0.5, 0.5, 0.5], 3.6, None, "completed"),  # runs dry for 0.5 s
        HeardTurn(1.0, 1.2, [1.4, 1.5], [0.5, 0.5], 1.6, 1.45, "interrupted", noticed=1.6),
        HeardTurn(5.0, None, [], [], None, None, "unanswered"),
    ]
    calls = [Call(0.0, "done", turns=turns[:2], ended=4.0), Call(1.0, "failed", turns=turns[2:], ended=2.0)]
    figures = Trial(Behaviour(1, 1), [*calls, Call(2.0, "refused", retry_after=1.0, ended=2.0)]).figures()
    assert figures["first_sound_p50"] == pytest.approx(0.7) and figures["decision_mean"] == pytest.approx(0.35)
    assert figures["continuity"] == 0.5 and figures["gap_max"] == pytest.approx(0.5)
    assert figures["stopped_p50"] == pytest.approx(0.05) and figures["told_p50"] == pytest.approx(0.15)
    assert figures["refused"] == figures["failed"] == pytest.approx(1 / 3)
    assert figures["unanswered"] == pytest.approx(1 / 3) and figures["at_once"] == pytest.approx(5 / 4)


def test_objectives() -> None:
    first, second = parse_objectives("first_sound_p95<1.0, continuity>0.99")
    assert (str(first), str(second)) == ("first_sound_p95<1", "continuity>0.99")
    assert first.met({"first_sound_p95": 0.9}) and not first.met({"first_sound_p95": 1.0}) and not first.met({})
    assert second.met({"continuity": 1.0}) and not second.met({"continuity": 0.99})
    for text in ("", "first_sound", "continuity>x", "continuity>=1"):
        with pytest.raises(SettingError, match="objective"):
            parse_objectives(text)


@given(limit=st.floats(0.01, 100), first=st.floats(0.01, 10))
def test_the_highest_rate_is_found(limit: float, first: float) -> None:
    tried: list[float] = []

    def kept(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = highest_rate(kept, first)
    assert found <= limit and (found in tried or found == 0)
    broken = [rate for rate in tried if rate > limit]
    if broken and found:  # within a sixteenth of the octave, and a rate that broke is not tried again
        assert min(broken) - found <= min(broken) / 16
    assert len(tried) <= 11 and len(tried) == len(set(tried))


def test_results_are_written(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "question.wav", question(0.1, 0.2, 0.1), RATE)
    behaviour = Behaviour(1.0, 0.5, turns=1, interrupts=0.0, vanishes=0.0, seed=6)
    lines: list[str] = []

    async def main() -> str:
        async with ToneServer(thinks=0.05, pieces=3, every=0.02).running() as url:
            plan = LoadPlan(Server(url, patience=PATIENCE), behaviour, [4.0, 8.0], [], [tmp_path / "question.wav"])
            return await asyncio.to_thread(run, plan, tmp_path / "out", lines.append)

    text = asyncio.run(main())
    record = json.loads((tmp_path / "out" / "serve.json").read_text())
    assert [trial["rate"] for trial in record["trials"]] == [4.0, 8.0] and record["capacity"] is None
    assert record["trials"][1]["outcomes"] == {"done": record["trials"][1]["conversations"]}
    assert (tmp_path / "out" / "serve.md").read_text() == text and len(lines) == 2
    assert (tmp_path / "out" / "serve.png").stat().st_size > 1000


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "question.wav", question(), RATE)
    behaviour = Behaviour(20.0, 0.2, turns=1, seed=7)
    plan = LoadPlan(Server("ws://127.0.0.1:9/v1/realtime"), behaviour, [20.0], [], [tmp_path / "question.wav"])
    with pytest.raises(SettingError, match="no caller got an answer"):
        run(plan, tmp_path / "out", lambda _: None)
