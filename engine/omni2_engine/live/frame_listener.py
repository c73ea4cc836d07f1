"""Hears one turn in an iterator of frames, for `Session.stream`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

from omni2_engine.audio.frames import Frame, checked_rate, mono_frame
from omni2_engine.errors import AudioError
from omni2_engine.live.detection.base import Floats, VoiceActivity
from omni2_engine.live.input import Hearer, LiveInput
from omni2_engine.live.listening import hear_next
from omni2_engine.live.settings import Detection

DETECTION = Detection(soft_end=None)


class TurnFrames(Hearer):
    """The frames of one turn.

    Args:
        voice: says where a voice is.
        rate: of the frames, Hz.
        window: seconds of sound that the model hears.
    """

    def __init__(self, voice: VoiceActivity, rate: int, window: float) -> None:
        self._voice = voice
        self._rate = rate
        self._speech: Floats | None = None
        self._input = LiveInput(DETECTION, self, lambda method, *told: method(*told), window, voice.begin())

    def sound_committed(self, begin: int, end: int, speech: Floats, by_hand: bool) -> None:
        """See `Hearer`."""
        self._speech = speech

    def add(self, frame: Frame) -> bool:
        """Hear a frame.

        Returns:
            Whether the turn is over.
        """
        self._input.add((mono_frame(frame), self._rate))
        return self._listen()

    def speech(self) -> Floats:
        """The sound of the turn, which ends here at the latest: (n,) float32 at 16 kHz."""
        if self._speech is None:
            self._input.add(self._input.flush, self._input.end)
            self._listen()
        if self._speech is None:
            raise AudioError("there is no speech in the frames", "speak up, or pass them as one array")
        return self._speech

    def _listen(self) -> bool:
        while self._speech is None and hear_next(self._voice, [self._input]):
            pass
        return self._speech is not None


class SpeechListener:
    """See `FrameListener`.

    Args:
        window: seconds of sound that the model hears.
        voice: gives the voice detector.
    """

    def __init__(self, window: float, voice: Callable[[], VoiceActivity]) -> None:
        self._window = window
        self._voice = voice

    def listen(self, frames: Iterator[Frame], sample_rate: int | None) -> Floats:
        """See `FrameListener`."""
        turn = self._begin(sample_rate)
        for frame in frames:
            if turn.add(frame):
                break
        return turn.speech()

    async def alisten(self, frames: AsyncIterator[Frame], sample_rate: int | None) -> Floats:
        """See `FrameListener`."""
        turn = self._begin(sample_rate)
        async for frame in frames:
            if turn.add(frame):
                break
        return turn.speech()

    def _begin(self, sample_rate: int | None) -> TurnFrames:
        if sample_rate is None:
            raise AudioError("frames do not say their rate", "pass sample_rate= with them")
        return TurnFrames(self._voice(), checked_rate(sample_rate), self._window)
