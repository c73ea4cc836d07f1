"""The input of one live conversation: frames and calls in their order → windows, and what they decide."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from omni2_engine.audio.frames import StreamingResampler
from omni2_engine.audio.source import SLACK
from omni2_engine.errors import AudioError
from omni2_engine.live.detection.base import (
    CONTEXT,
    RATE,
    WINDOW,
    Doubt,
    Floats,
    Mark,
    Onset,
    Resumption,
    SoftEnd,
    SpeechEnd,
    TurnDetector,
)
from omni2_engine.live.detection.pauses import PauseDetector
from omni2_engine.live.settings import Detection
from omni2_engine.live.speech_buffer import SpeechBuffer
from omni2_engine.settings.tuning import DETECTION

Tell = Callable[..., None]  # told a method of a `Hearer` and its arguments
Judge = Callable[[Floats, Callable[[bool], None]], None]  # told speech, and a function to tell whether it is over
Item = tuple[Floats, int] | Callable[[], None]


class Hearer:
    """Is told what a conversation's input decides; does nothing unless a method is overridden. Positions are samples at
    16 kHz from the first one on."""

    def speech_began(self, at: int, begin: int) -> None:
        """Speech began at `at`; the sound of the turn begins at `begin`."""

    def speech_paused(self, begin: int, end: int, speech: Floats) -> None:
        """The turn may be over. If it is, `sound_committed` follows with the same arguments."""

    def speech_resumed(self) -> None:
        """It is not over."""

    def speech_ended(self, at: int, decided: int) -> None:
        """Speech ended at `at`; `sound_committed` follows."""

    def sound_committed(self, begin: int, end: int, speech: Floats, by_hand: bool) -> None:
        """A stretch of sound is the user's item. `speech` may leave out what is more than the model hears."""

    def cleared(self) -> None:
        """What was not committed is forgotten."""

    def input_ended(self) -> None:
        """There is no more input."""

    def failed(self, error: Exception) -> None:
        """A call could not be done."""


class LiveInput:
    """See the module. `add` may be called by any thread, all else by one.

    Args:
        detection: None for push-to-talk.
        hearer: told what happens.
        tell: calls a method of the hearer with arguments, now or later, in the order of these calls.
        most: seconds of sound that the model hears.
        voice: state of the voice detector before the first window.
        judge: judges pauses, see `Detection.eagerness`: now or later, on any thread.
    """

    def __init__(
        self,
        detection: Detection | None,
        hearer: Hearer,
        tell: Tell,
        most: float,
        voice: Any,
        judge: Judge | None = None,
    ) -> None:
        self.voice = voice
        self._hearer = hearer
        self._tell = tell
        self._judge = judge
        self._judging = False  # the input stands still until that is done
        self._verdicts: deque[bool] = deque()
        self._inbox: deque[Item] = deque()
        self._added = self._taken = 0.0  # seconds of sound, into the inbox and out of it
        self._adding = threading.Lock()
        self._resampler = StreamingResampler()
        self._samples = np.zeros(CONTEXT, np.float32)  # the context, and what fills no window yet
        self._buffer = SpeechBuffer(int((most + 2 * SLACK) * RATE))
        self._free = 0  # where the sound begins that belongs to no item yet
        self._begin: int | None = None  # of the turn, while a person speaks
        self._detection = detection
        self._detector = self._new_detector()

    def add(self, *items: Item) -> None:
        """The next frames, mono samples and their rate; or calls to be made when what came before has been heard."""
        seconds = sum(_seconds(item) for item in items)
        with self._adding:
            self._added += seconds
        self._inbox.extend(items)

    @property
    def unheard(self) -> float:
        """Seconds of sound that were added and not heard yet; from any thread."""
        return self._added - self._taken + (len(self._samples) - CONTEXT) / RATE

    @property
    def waiting(self) -> bool:
        """Whether `due` has something to do."""
        return bool(self._verdicts) if self._judging else bool(self._inbox) or self._is_due

    def due(self) -> bool:
        """Take in what was added, up to the next window for the voice detector.

        Returns:
            Whether there is such a window. Then `window` and `hear` follow.
        """
        if self._judging and self._verdicts:
            self._judging = False
            assert self._detector is not None
            self._decided(self._detector.judged(self._verdicts.popleft()))
        if self._judging:
            return False
        while self._inbox and not self._is_due:
            item = self._inbox.popleft()
            if callable(item):
                item()
            else:
                self._taken += _seconds(item)
                self._take(self._resampler(*item))
        return self._is_due

    def window(self) -> Floats:
        """The next window behind its context, (CONTEXT + WINDOW,) float32."""
        return self._samples[: CONTEXT + WINDOW]

    def hear(self, probability: float, voice: Any) -> None:
        """Go on behind that window.

        Args:
            probability: of a voice in it.
            voice: state of the voice detector behind it.
        """
        assert self._detector is not None
        self.voice = voice
        self._buffer.append(self._samples[CONTEXT : CONTEXT + WINDOW])
        self._samples = self._samples[WINDOW:]
        self._decided(self._detector.hear(probability))
        if self._begin is None:
            self._buffer.forget_before(self._padded(self._detector.earliest))

    # -- calls, in the order of the input --------------------------------------------------------------------------

    def flush(self) -> None:
        """Take in what the resampler holds; before the three below."""
        self._take(self._resampler.flush())

    def commit(self) -> None:
        """See `LiveConversation.commit`."""
        self._catch_up()
        end, begin = self._buffer.position, self._free
        if self._begin is not None:
            begin, self._begin = self._begin, None
            self._tell(self._hearer.speech_ended, end, end)
        elif self._detector is not None or begin == end:
            error = AudioError("there is no speech to commit", "commit it when it has been spoken")
            self._tell(self._hearer.failed, error)
            return
        self._commit(begin, end, by_hand=True)

    def clear(self) -> None:
        """See `LiveConversation.clear`."""
        self._catch_up()
        self._begin = None
        self._free_from(self._buffer.position)
        self._tell(self._hearer.cleared)

    def end(self) -> None:
        """See `LiveConversation.end`."""
        self._catch_up()
        if self._begin is not None:
            self._decided(SpeechEnd(self._buffer.position))
        self._tell(self._hearer.input_ended)

    def change(self, detection: Detection | None) -> None:
        """See `LiveConversation.update`."""
        self._detection = detection
        if detection is not None and self._detector is not None:
            self._detector.change(detection)
            return
        self._catch_up()
        if self._begin is not None:
            self._tell(self._hearer.speech_resumed)  # it is not over before `commit`
        self._free, self._begin = self._buffer.position if self._begin is None else self._begin, None

    # -- the rest --------------------------------------------------------------------------------------------------

    @property
    def _is_due(self) -> bool:
        return self._detector is not None and len(self._samples) >= CONTEXT + WINDOW

    def _new_detector(self) -> TurnDetector | None:
        if self._detection is None:
            return None
        return PauseDetector(self._detection, self._judge is not None, self._buffer.position)

    def _take(self, samples: Floats) -> None:
        """Take in samples at 16 kHz."""
        if self._detector is None:
            self._buffer.append(samples)
        else:
            self._samples = np.concatenate([self._samples, samples])

    def _catch_up(self) -> None:
        """Count what fills no window as heard; the next window begins behind it."""
        self._buffer.append(self._samples[CONTEXT:])
        self._samples = self._samples[-CONTEXT:]
        self._detector = self._new_detector()

    def _decided(self, mark: Mark | None) -> None:
        """Tell what the detector has found."""
        if mark is None:
            return
        if isinstance(mark, Onset):
            self._begin = self._padded(mark.at)
            self._tell(self._hearer.speech_began, mark.at, self._begin)
        elif isinstance(mark, Resumption):
            self._tell(self._hearer.speech_resumed)
        elif isinstance(mark, Doubt):
            assert self._judge is not None and self._begin is not None
            self._judging = True
            self._judge(self._buffer.between(self._begin, self._buffer.position), self._verdicts.append)
        elif self._begin is not None:
            begin, end = self._begin, self._tail(mark.at)
            if isinstance(mark, SoftEnd):
                self._tell(self._hearer.speech_paused, begin, end, self._buffer.between(begin, end))
            else:
                self._begin = None
                self._tell(self._hearer.speech_ended, mark.at, self._buffer.position)
                self._commit(begin, end, by_hand=False)

    def _commit(self, begin: int, end: int, by_hand: bool) -> None:
        self._tell(self._hearer.sound_committed, begin, end, self._buffer.between(begin, end), by_hand)
        self._free_from(end)

    def _free_from(self, position: int) -> None:
        self._free = position
        self._buffer.forget_before(position)

    def _padded(self, onset: int) -> int:
        """Where the sound of a turn begins."""
        padding = 0.0 if self._detection is None else self._detection.prefix_padding
        return max(self._free, onset - round(padding * RATE))

    def _tail(self, at: int) -> int:
        """Where the sound of a turn ends: alike at a soft end and at the end."""
        settings, seconds = self._detection, DETECTION.tail
        if settings is not None:
            seconds = min(seconds, *(s for s in (settings.soft_end, settings.silence) if s is not None))
        return min(at + round(seconds * RATE), self._buffer.position)


def _seconds(item: Item) -> float:
    return 0.0 if callable(item) else len(item[0]) / item[1]
