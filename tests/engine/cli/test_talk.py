"""`omni2-engine talk`: two files in place of a sound card, a sound card that is not there, and the screen."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from omni2_engine.cli import talk
from omni2_engine.cli.app import run
from omni2_engine.cli.talk_buffer import PlayoutDelay, no_delay
from omni2_engine.cli.talk_screen import TalkScreen
from omni2_engine.cli.talk_sound import FRAME, Floats, Player, RecordedTalk, SoundCard, loudness
from omni2_engine.errors import AudioError, BackendError
from omni2_engine.live.events import (
    AnswerBegun,
    Failed,
    Finished,
    Interrupted,
    SoundMade,
    SpeechBegan,
    SpeechEnded,
    TextWritten,
    TurnBegun,
)
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.metrics import TurnMetrics


class FastTime:
    """Time that goes by as soon as it is waited for."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        time.sleep(0.0005)  # others have to run, too

    def clock(self) -> float:
        return self.now


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    times = FastTime()
    monkeypatch.setattr(talk, "RecordedTalk", partial(RecordedTalk, sleep=times.sleep, clock=times.clock))


@pytest.fixture
def question_file(repository: Path, tmp_path: Path) -> Path:
    samples, rate = soundfile.read(repository / "examples" / "sum.wav", dtype="float32")
    path = tmp_path / "in.wav"
    soundfile.write(path, np.concatenate([samples, np.zeros(rate)]), rate)
    return path


@pytest.mark.usefixtures("fast")
def test_a_recording_is_answered_into_a_file(
    tiny_engine_dir: Path, question_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.wav"
    code = run(["talk", str(tiny_engine_dir), "--in", str(question_file), "--out", str(output), "--threads", "1"])
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0].startswith("you    1.5 s   over after 0.5") and "first sound" in lines[1]
    assert lines[2].startswith("model  ") and lines[2].endswith("s of sound")
    sound, rate = soundfile.read(output)
    began = np.flatnonzero(np.abs(sound) > 1e-3)[0] / rate
    assert began > 2.0  # when the silence behind the speech had lasted
    made = float(lines[2].split()[-4])
    assert len(sound) / rate - began >= made - 0.1


def test_files_go_together(tiny_engine_dir: Path, question_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["talk", str(tiny_engine_dir), "--in", str(question_file)]) == 2
    assert "--in and --out go together" in capsys.readouterr().err


def test_a_missing_package_is_named(
    tiny_engine_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("omni2_engine.cli.require.find_spec", lambda name: None)
    assert run(["talk", str(tiny_engine_dir)]) == 1
    assert "omni2-engine[talk]" in capsys.readouterr().err


def chunk(samples: int, index: int = 0, start_in: float = 0.0, value: float = 0.5) -> Chunk:
    return Chunk(np.full(samples, value, np.float32), 1000, index, 0.0, "", "", 0, False, start_in=start_in)


def test_a_player_waits_plays_and_falls_silent() -> None:
    player = Player(1000, no_delay())
    player.add(0, chunk(50, start_in=0.02))
    player.add(0, chunk(10, index=1, value=0.25))
    assert player.playing and player.played == (0.0, 0)
    sound = np.concatenate([player.pull(30), player.pull(30)])
    assert np.array_equal(sound, np.concatenate([np.zeros(20), np.full(40, 0.5)]).astype(np.float32))
    assert player.played == (0.04, 0) and player.level > 0.8
    player.stop()
    assert not player.playing and not player.pull(10).any() and player.level == 0.0
    player.add(1, chunk(5))
    assert player.played == (0.0, 1) and player.pull(10)[:5].all()


def test_a_player_for_a_sound_card_waits_a_little_longer_each_time_sound_comes_late() -> None:
    player = Player(1000, PlayoutDelay())
    player.add(0, chunk(100, start_in=0.02))
    assert np.flatnonzero(player.pull(400)).tolist() == list(range(60, 160))  # 20 ms foreseen, and 40
    player.add(0, chunk(100, index=1))  # at 400 ms; it ought to have been there at 120
    assert np.flatnonzero(player.pull(200)).tolist() == list(range(100))
    player.add(1, chunk(50))
    assert np.flatnonzero(player.pull(400))[0] == 300  # 280 late, and 20 to spare


def test_a_player_that_ran_dry_waits_before_it_goes_on() -> None:
    player = Player(1000, PlayoutDelay())
    player.add(0, chunk(50))
    player.pull(100)  # dry after 90
    player.add(0, chunk(50, index=1))
    assert np.flatnonzero(player.pull(100)).tolist() == list(range(30, 80))


def test_an_answer_that_is_there_whole_does_not_wait() -> None:
    player = Player(1000, PlayoutDelay())
    player.add(0, replace(chunk(50), final=True))
    assert np.flatnonzero(player.pull(100)).tolist() == list(range(50))


def test_loudness_is_in_decibels() -> None:
    assert [round(loudness(np.full(9, v, np.float32)), 2) for v in (0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 9.0)] == [
        0.0, 0.0, 0.0, 0.33, 0.67, 1.0, 1.0,
    ]  # fmt: skip


def test_a_recording_that_cannot_be_written_ends_the_talk(question_file: Path) -> None:
    times = FastTime()

    class Full:
        def write(self, pcm: Floats) -> None:
            raise AudioError("the disk is full")

    ended: list[bool] = []
    recorded = RecordedTalk(Player(1000, no_delay()), question_file, Full(), times.sleep, times.clock)  # type: ignore[arg-type]
    recorded.start(lambda frame, rate: None, lambda: ended.append(True))
    with pytest.raises(AudioError, match="full"):
        recorded.close()
    assert ended == [True]


class FakePortAudio:
    """The part of `sounddevice` that is called; `run` has both streams exchange a frame."""

    class PortAudioError(Exception):
        pass

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.streams: list[Any] = []

    def _stream(self, **options: Any) -> Any:
        if self.broken:
            raise self.PortAudioError("no such device")
        rate = options.get("samplerate", 48_000)
        stream = SimpleNamespace(**options | {"samplerate": float(rate)}, start=lambda: None, close=lambda: None)
        self.streams.append(stream)
        return stream

    InputStream = OutputStream = _stream

    def run(self, heard: Floats) -> Floats:
        """The microphone hears a frame, and the loudspeaker plays one."""
        microphone, loudspeaker = self.streams
        microphone.callback(heard[:, None], len(heard), None, None)
        played = np.zeros((round(FRAME * 1000), 1), np.float32)
        loudspeaker.callback(played, len(played), None, None)
        return played[:, 0]


def test_a_sound_card_hears_and_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    player, heard = Player(1000, no_delay()), []
    card = SoundCard(player)
    card.start(lambda frame, rate: heard.append((frame, rate)), lambda: None)
    player.add(0, chunk(100))
    said = np.arange(960, dtype=np.float32)
    assert fake.run(said).all()
    assert np.array_equal(heard[0][0], said) and heard[0][1] == 48_000
    card.close()


def test_a_sound_card_that_is_not_there_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakePortAudio(broken=True))
    with pytest.raises(AudioError, match="no such device"):
        SoundCard(Player(1000, no_delay())).start(lambda frame, rate: None, lambda: None)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr("sys.meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(BackendError, match=r"PortAudio library not found .* libportaudio2"):
        SoundCard(Player(1000, no_delay()))


def shown(*events: Any, terminal: bool = False, now: Callable[[], float] = lambda: 10.0) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=terminal)
    with TalkScreen(console, lambda: (0.5, 0.0), clock=now) as screen:
        for event in events:
            screen.show(event)
    return out.getvalue()


SPOKEN = [SpeechBegan(16_000, 11_200), SpeechEnded(48_000, 56_000), TurnBegun(0, speculative=True), AnswerBegun(0)]
METRICS = TurnMetrics(audio_seconds=2.0)


def test_the_screen_says_how_long_it_took() -> None:
    text = shown(
        *SPOKEN, TextWritten(0, " Hel"), TextWritten(0, "lo"), SoundMade(0, chunk(9)), Finished(0, "end", METRICS)
    )
    assert text.splitlines() == [
        "you    2.0 s   over after 0.50 s of silence",
        "       first sound 0.50 s after the end of your speech, begun before that was certain",
        "model  Hello   2.0 s of sound",
    ]


def test_the_screen_says_what_went_wrong() -> None:
    cancelled = Finished(0, "cancelled", METRICS)
    text = shown(
        *SPOKEN, TextWritten(0, "A\x1b[2J"), Interrupted(0, 0.25), cancelled, Failed(None, AudioError("too long"))
    )
    assert text.splitlines()[1:] == ["model  A\ufffd[2J   interrupted after 0.2 s", "error  too long"]


def test_a_terminal_shows_levels() -> None:
    text = shown(*SPOKEN, TextWritten(0, "Hello"), terminal=True)
    assert "████████████············" in text and "answering" in text
