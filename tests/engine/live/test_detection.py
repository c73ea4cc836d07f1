"""Turn detection on recorded speech, among noise, music and clicks; and its rules, on probabilities made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from omni2_engine.errors import SettingError
from omni2_engine.live.detection.base import RATE, WINDOW
from omni2_engine.live.detection.silero import SileroVad
from omni2_engine.live.input import Judge
from omni2_engine.live.settings import EAGERNESS, Detection

from .hearing import Heard, Said, hear, listen, live_input
from .scenes import DROWNED, GAPS, MARKS, Floats, at_ratio, clicks, hiss, music, noise, recording, silence

NEAR = 0.1  # seconds
LEAD, REST = 1.0, 1.5  # seconds of silence before and behind
DISTURBED: dict[str, Callable[[Floats], Floats]] = {
    "faint": lambda sound: sound * np.float32(0.05),
    "DC": lambda sound: sound + np.float32(0.05),
    "clicks": lambda sound: sound + clicks(len(sound) / RATE),
    "music": lambda sound: at_ratio(sound, music(len(sound) / RATE), 10),
    "pink noise": lambda sound: at_ratio(sound, noise(len(sound) / RATE), 10),
}


def scene(speech: Floats) -> Floats:
    return np.concatenate([silence(LEAD), speech, silence(REST)])


def check_marks(heard: Heard, marks: tuple[float, float]) -> None:
    ((begin, end),) = heard.speech
    assert begin - LEAD == pytest.approx(marks[0], abs=NEAR)
    assert end - LEAD == pytest.approx(marks[1], abs=NEAR)


@pytest.mark.parametrize("name", MARKS)
def test_speech_is_found(repository: Path, name: str) -> None:
    check_marks(hear(scene(recording(repository, name))), MARKS[name])


@pytest.mark.parametrize("disturbance", DISTURBED)
@pytest.mark.parametrize("name", MARKS)
def test_speech_is_found_in_what_disturbs(repository: Path, name: str, disturbance: str) -> None:
    begin, end = MARKS[name]
    heard = hear(DISTURBED[disturbance](scene(recording(repository, name))))
    check_marks(heard, (begin, DROWNED.get((name, disturbance), end)))


@pytest.mark.parametrize(
    "sound",
    [
        silence(60),
        silence(60) + np.float32(0.3),
        0.3 * noise(30),
        0.1 * hiss(30),
        0.1 * music(30),
        clicks(30),
    ],
    ids=["silence", "DC", "pink noise", "white noise", "music", "clicks"],
)
def test_what_is_no_speech_begins_no_turn(sound: Floats) -> None:
    assert hear(sound).told == [("input_ended",)]


@pytest.mark.parametrize("name", GAPS)
def test_a_pause_in_mid_sentence_ends_no_turn(repository: Path, name: str) -> None:
    speech, gap = recording(repository, name), round(GAPS[name] * RATE)
    heard = hear(scene(np.concatenate([speech[:gap], silence(0.4), speech[gap:]])))
    begin, end = MARKS[name]
    check_marks(heard, (begin, end + 0.4))
    assert [name for name, *_ in heard.told if name in ("speech_paused", "speech_resumed")][:2] == [
        "speech_paused",
        "speech_resumed",
    ]


def test_the_model_hears_the_padding_the_speech_and_a_little_more(repository: Path) -> None:
    sound = scene(recording(repository, "examples/sum.wav"))
    heard = hear(sound, prefix_padding=0.2)
    (_, at, begin) = heard.told[0]
    (_, committed, end, by_hand) = next(call for call in heard.told if call[0] == "sound_committed")
    assert (begin, committed, by_hand) == (at - 3200, begin, False)
    assert end == next(call[1] for call in heard.told if call[0] == "speech_ended") + 1600
    assert np.array_equal(heard.sounds[-1], sound[begin:end])


def test_what_a_soft_end_gives_is_what_the_end_gives(repository: Path) -> None:
    heard = hear(scene(recording(repository, "examples/sum.wav")))
    paused = [call[1:] for call in heard.told if call[0] == "speech_paused"]
    committed = next(call[1:] for call in heard.told if call[0] == "sound_committed")
    assert paused[-1] == committed[:2] and np.array_equal(heard.sounds[-1], heard.sounds[-2])


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=40))
def test_decisions_do_not_depend_on_the_length_of_frames(lengths: list[int]) -> None:
    sound = in_question()
    once, cut = hear(sound), hear(sound, frames=lengths)
    assert once.told == cut.told and len(once.speech) == 1
    assert all(np.array_equal(*pair) for pair in zip(once.sounds, cut.sounds, strict=True))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 44_100, 48_000])
def test_decisions_do_not_depend_on_the_rate(rate: int) -> None:
    """Of sound that the lowest of them can hold."""
    narrow = soxr.resample(in_question(), RATE, 8_000, quality="HQ")
    reference, resampled = (soxr.resample(narrow, 8_000, one, quality="HQ") for one in (RATE, rate))
    once, frames = hear(reference), hear(resampled, rate, frames=[rate // 50] * 200)
    assert names(once) == names(frames) and len(once.speech) == 1
    for (name, *positions), (_, *others) in zip(once.told, frames.told, strict=True):
        assert all(abs(a - b) <= WINDOW for a, b in zip(positions, others, strict=True)), name


def in_question() -> Floats:
    """A question among quiet noise."""
    sound = scene(recording(Path(__file__).parents[3], "examples/sum.wav"))
    return sound + 0.001 * noise(len(sound) / RATE)


def test_several_conversations_are_heard_in_one_call() -> None:
    """And each as if it were alone."""
    sounds = [in_question()[begin:] for begin in (0, 3000, 9000)]
    pairs = [live_input() for _ in sounds]
    for (one, _), sound in zip(pairs, sounds, strict=True):
        one.add((sound, RATE))
    counted = Counted()
    listen(*[one for one, _ in pairs], voice=counted)
    longest = max(len(sound) for sound in sounds) // WINDOW
    assert len(counted.windows) == longest and counted.windows[0] == 3
    for (_, heard), sound in zip(pairs, sounds, strict=True):
        alone, told = live_input()
        alone.add((sound, RATE))
        listen(alone)
        assert heard.told == told.told and len(heard.speech) == 1


class Counted(SileroVad):
    """Counts windows by call."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[int] = []

    def __call__(self, windows, states):  # type: ignore[no-untyped-def]
        self.windows.append(len(windows))
        return super().__call__(windows, states)


# -- rules, on probabilities ---------------------------------------------------------------------------------------


def decide(probabilities: list[float], judge: Judge | None = None, **settings: object) -> Heard:
    """What follows from a probability per window."""
    voice = Said([*probabilities, 0.0])
    one, heard = live_input(Detection(**settings), judge=judge, voice=voice)  # type: ignore[arg-type]
    one.add((silence(len(probabilities) * WINDOW / RATE), RATE))
    listen(one, voice=voice)
    return heard


def names(heard: Heard) -> list[str]:
    return [call[0] for call in heard.told]


VOICE, NOTHING, BETWEEN = 0.9, 0.1, 0.45


def test_a_cough_is_no_speech() -> None:
    assert names(decide([VOICE] * 3 + [NOTHING] * 40, least_speech=0.1)) == []
    assert names(decide([VOICE] * 4 + [NOTHING] * 40, least_speech=0.1, soft_end=None))[0] == "speech_began"
    assert names(decide([VOICE] * 7 + [NOTHING] * 40, least_speech=0.25)) == []


def test_between_the_thresholds_things_stay_as_they_are() -> None:
    assert names(decide([BETWEEN] * 50)) == []
    assert names(decide([VOICE] * 5 + [BETWEEN] * 50)) == ["speech_began"]


def test_silence_ends_a_turn_when_it_has_lasted() -> None:
    """It begins two windows before the probability falls."""
    heard = decide([VOICE] * 10 + [NOTHING] * 40, silence=0.5, soft_end=0.12)
    assert heard.told == [
        ("speech_began", 0, 0),
        ("speech_paused", 0, 8 * WINDOW + 1600),
        ("speech_ended", 8 * WINDOW, 24 * WINDOW),
        ("sound_committed", 0, 8 * WINDOW + 1600, False),
    ]


def test_a_voice_after_a_soft_end_takes_it_back() -> None:
    heard = decide([VOICE] * 10 + [NOTHING] * 4 + [VOICE] * 3 + [NOTHING] * 40)
    assert names(heard)[:4] == ["speech_began", "speech_paused", "speech_resumed", "speech_paused"]


@pytest.mark.parametrize("eagerness", EAGERNESS)
def test_without_a_model_eagerness_is_a_time(eagerness: str) -> None:
    heard = decide([VOICE] * 10 + [NOTHING] * 260, eagerness=eagerness)
    decided = next(call[2] for call in heard.told if call[0] == "speech_ended")
    seconds = (decided - 8 * WINDOW) / RATE
    assert EAGERNESS[eagerness] <= seconds < EAGERNESS[eagerness] + 0.033


def test_a_model_ends_a_sentence_or_lets_it_go_on() -> None:
    asked: list[int] = []

    def judge(speech: Floats, told: Callable[[bool], None]) -> None:
        asked.append(len(speech))
        told(len(asked) == 2)

    heard = decide([VOICE] * 10 + [NOTHING] * 20 + [VOICE] * 5 + [NOTHING] * 20, judge, eagerness="high")
    assert asked == [15 * WINDOW, 40 * WINDOW]  # 0.2 s after the voice, once a pause
    assert names(heard).count("speech_ended") == 1
    assert next(call[2] for call in heard.told if call[0] == "speech_ended") == 40 * WINDOW


def test_the_input_stands_still_while_a_pause_is_judged() -> None:
    """So that the decision lies where the pause was, however long the model takes."""
    asked: list[Callable[[bool], None]] = []
    voice = Said([VOICE] * 10 + [NOTHING] * 30)
    one, heard = live_input(Detection(eagerness="low"), judge=lambda speech, told: asked.append(told), voice=voice)
    one.add((silence(30 * WINDOW / RATE), RATE), one.flush, one.end)
    listen(one, voice=voice)
    assert len(asked) == 1 and not one.waiting and names(heard) == ["speech_began", "speech_paused"]
    asked[0](True)
    assert one.waiting
    listen(one, voice=voice)
    assert names(heard)[2:] == ["speech_ended", "sound_committed", "input_ended"]
    assert heard.told[2][2] == 15 * WINDOW


@pytest.mark.parametrize(
    "setting",
    [
        {"threshold": 0},
        {"threshold": 1.0},
        {"threshold": "high"},
        {"silence": -1},
        {"silence": float("inf")},
        {"prefix_padding": None},
        {"soft_end": float("nan")},
        {"eagerness": "very"},
        {"create_response": 1},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=next(iter(setting))):
        Detection(**setting)  # type: ignore[arg-type]
