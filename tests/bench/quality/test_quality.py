"""Quality: seams are found where they are, schedules cut units as calls allow, an engine's answers are judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omni2_bench.quality.answers import JudgedAnswer, answer_all
from omni2_bench.quality.questions import read_questions
from omni2_bench.quality.report import judge_answers, judge_schedule, write_report
from omni2_bench.quality.schedules import checked, chunk_sizes, render
from omni2_bench.quality.seams import jump, seam_cost
from omni2_engine import Engine
from omni2_engine.errors import SettingError

RATE = 24_000


def tone(hz: float, seconds: float, level: float) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_jumps_of_level_and_spectrum() -> None:
    steady = tone(200, 0.2, 0.3)
    place = len(steady) // 2
    louder = steady.copy()
    louder[place:] *= 2
    other = np.concatenate([steady[:place], tone(2000, 0.1, 0.3)])
    assert jump(steady, place, RATE).energy < 0.1
    assert jump(louder, place, RATE).energy == pytest.approx(6.0, abs=0.1)
    assert jump(other, place, RATE).spectrum > 10 * jump(steady, place, RATE).spectrum
    cost = seam_cost(louder, steady, [place, 3], RATE)  # the second is too near the start to be heard as a seam
    assert cost is not None and cost.energy == pytest.approx(6.0, abs=0.2)
    assert seam_cost(steady, steady, [3], RATE) is None
    with pytest.raises(ValueError, match="edge"):
        jump(steady, 3, RATE)


@pytest.mark.parametrize(
    ("schedule", "units", "expected"),
    [
        ("offline", 50, [50]),
        ("10", 35, [10, 10, 10, 5]),
        ("5", 22, [10, 10, 2]),  # five units are fewer than a call must have
        ("growing", 200, [10, 20, 40, 40, 40, 40, 10]),
        ("10", 3, [3]),
    ],
)
def test_schedules_cut_units(schedule: str, units: int, expected: list[int]) -> None:
    assert chunk_sizes(checked(schedule), units, write=10, fewest=8) == expected


@pytest.mark.parametrize("schedule", ["0", "-3", "all", "1.5", ""])
def test_unknown_schedules_are_refused(schedule: str) -> None:
    with pytest.raises(SettingError, match="chunks"):
        checked(schedule)


def questions(folder: Path, audio: Path, answer: str) -> Path:
    folder.mkdir()
    (folder / "q.wav").write_bytes(audio.read_bytes())
    turn = {"audio": "q.wav", "question": "?", "answer": answer}
    lines = [{"kind": "one", "turns": [turn]}, {"kind": "two", "turns": [turn, turn]}]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_an_engine_is_judged(tiny_engine: Engine, question: Path, tmp_path: Path) -> None:
    with tiny_engine.session(seed=3) as session:
        text = "".join(chunk.text for chunk in session.stream(question)).strip()
    answers = answer_all(tiny_engine, read_questions(questions(tmp_path / "q", question, text)), seed=3)
    assert [answer.kind for answer in answers] == ["one", "two", "two"]
    assert answers[0].right and answers[0].text == text
    assert np.array_equal(answers[0].pcm, answers[1].pcm)  # one seed, one answer
    assert answers[0].units and all(0 <= unit < tiny_engine.config.flow_encoder.units for unit in answers[0].units)

    # The engine's own chunks are the schedule of its W; all schedules give the same number of samples.
    rate, first = tiny_engine.sample_rate, answers[0]
    offline, streamed = (render(tiny_engine, first.units, schedule) for schedule in ("offline", "10"))
    assert not offline.edges and streamed.edges and len(offline.pcm) == len(streamed.pcm)

    judged = judge_answers(answers, rate, lambda pcm, rate: text + " more", lambda pcm, rate: 3.0)
    figures = judged.figures()
    assert figures["kinds"]["one"]["right"] == 1.0 and figures["opinion"] == 3.0 and figures["wer"] > 0
    assert figures["turns"][0] == 1.0 and len(figures["turns"]) == 2
    schedule = judge_schedule([text], [streamed], [offline], rate, lambda pcm, rate: text)
    assert schedule["wer"] == 0.0 and schedule["seams"] == len(streamed.edges)
    result = {"machine": {}, "presets": {"exact": {"q": figures}}, "schedules": {"10": schedule}, "answers": {}}
    report = write_report(tmp_path / "out", result)
    assert "| exact | q | 3 |" in report and "| 10 | 0.0% |" in report
    assert json.loads((tmp_path / "out" / "quality.json").read_text())["presets"]["exact"]["q"]["answers"] == 3


def test_long_conversations_are_counted_by_turn(tmp_path: Path) -> None:
    turns = [JudgedAnswer("mixed", turn, 8, "", "", turn < 3, [], tone(200, 0.1, 0.1), 0.0, 0.0) for turn in range(8)]
    short = JudgedAnswer("mixed", 0, 1, "", "", False, [], tone(200, 0.1, 0.1), 0.0, 0.0)
    figures = judge_answers([*turns, short], RATE, lambda pcm, rate: "", None).figures()
    assert figures["turns"] == [1.0] * 3 + [0.0] * 5, "those that end early do not count"
    result = {"machine": {}, "presets": {"exact": {"long": figures}}, "schedules": {}, "answers": {}}
    report = write_report(tmp_path, result)
    assert "| turn (long, exact) | text right |" in report and "| 3 | 100.0% |" in report and "| 4 | 0.0% |" in report


def test_an_answer_may_be_accepted_by_a_pattern(tmp_path: Path, question: Path) -> None:
    folder = questions(tmp_path / "q", question, "It is nine.")
    turn = {"audio": "q.wav", "question": "?", "accept": r"nine\b"}
    (folder / "questions.jsonl").write_text(json.dumps({"kind": "a", "turns": [turn, {**turn, "accept": "("}]}))
    with pytest.raises(SettingError, match="line 1"):
        read_questions(folder)
    (folder / "questions.jsonl").write_text(json.dumps({"kind": "a", "turns": [turn]}))
    [conversation] = read_questions(folder)
    accepts = conversation.turns[0].accepts
    assert accepts("That makes Nine.") and not accepts("Ninety.")


@pytest.mark.parametrize("line", ['{"kind": "a"}', "no json", '{"kind": "a", "turns": [{"audio": "none.wav"}]}'])
def test_broken_sets_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "questions.jsonl").write_text(line)
    with pytest.raises(SettingError, match=r"questions\.jsonl, line 1"):
        read_questions(tmp_path)
    with pytest.raises(SettingError, match="cannot be read"):
        read_questions(tmp_path / "nowhere")


def test_a_missing_recording_is_named(tmp_path: Path) -> None:
    turn = {"audio": "none.wav", "question": "?", "answer": "!"}
    (tmp_path / "questions.jsonl").write_text(json.dumps({"kind": "a", "turns": [turn]}))
    with pytest.raises(SettingError, match=r"none\.wav"):
        read_questions(tmp_path)


def test_the_questions_of_the_demonstration_model_fit_its_window(repository: Path) -> None:
    conversations = read_questions(repository / "examples" / "questions")
    assert len(conversations) >= 200
    assert len({conversation.kind for conversation in conversations}) >= 15
    lengths = [soundfile.info(turn.audio).duration for c in conversations for turn in c.turns]
    assert min(lengths) > 0.5 and max(lengths) < 8.0
