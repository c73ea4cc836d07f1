"""Turn detection by pauses: speech that is followed by enough silence is a turn."""

from __future__ import annotations

from omni2_engine.live.detection.base import RATE, WINDOW, Doubt, Mark, Onset, Resumption, SoftEnd, SpeechEnd
from omni2_engine.live.settings import EAGERNESS, Detection
from omni2_engine.settings.tuning import DETECTION


class PauseDetector:
    """See `TurnDetector`.

    Speech begins with a window whose probability reaches the threshold, and is certain when it has lasted
    `Detection.least_speech`. It ends behind the last window that reaches the threshold, less the detector's hangover.
    How long the silence behind it must last is `Detection.silence`, or up to the sentence, see `Detection.eagerness`.

    Args:
        settings: of the detection.
        judges: a model says whether sentences are over, where the settings have an eagerness.
        begin: the sample at which the first window begins.
    """

    def __init__(self, settings: Detection, judges: bool = False, begin: int = 0) -> None:
        self._settings = settings
        self._judges = judges
        self._heard = begin  # samples so far
        self._onset: int | None = None  # of speech, certain or not
        self._voiced = begin  # behind the last window with a voice
        self._quiet: int | None = None  # where the silence behind the speech began
        self._softly = False  # `SoftEnd` was told
        self._asked = False  # `Doubt` was told
        self._speaking = False

    @property
    def earliest(self) -> int:
        """See `TurnDetector`."""
        return self._heard if self._onset is None else self._onset

    def change(self, settings: Detection) -> None:
        """See `TurnDetector`."""
        self._settings = settings

    def hear(self, probability: float) -> Mark | None:
        """See `TurnDetector`."""
        begin, self._heard = self._heard, self._heard + WINDOW
        voiced = probability >= self._settings.threshold
        silent = probability < self._settings.threshold - DETECTION.hysteresis
        if voiced:
            self._voiced = self._heard
        if not self._speaking:
            return self._before_speech(begin, voiced, silent)
        if voiced:
            softly = self._softly
            self._quiet, self._softly, self._asked = None, False, False
            return Resumption() if softly else None
        if silent and self._quiet is None:
            self._quiet = max(self._voiced - DETECTION.hangover * WINDOW, self._onset or 0)
        return None if self._quiet is None else self._in_silence(self._quiet)

    def judged(self, is_over: bool) -> Mark | None:
        """See `TurnDetector`."""
        return self._end(self._quiet) if is_over and self._quiet is not None else None

    def _before_speech(self, begin: int, voiced: bool, silent: bool) -> Onset | None:
        if silent:
            self._onset = None
        if not voiced:
            return None
        if self._onset is None:
            self._onset = begin
        if self._heard - self._onset < self._settings.least_speech * RATE:
            return None
        self._speaking = True
        return Onset(self._onset)

    def _in_silence(self, quiet: int) -> Mark | None:
        seconds, settings = (self._heard - quiet) / RATE, self._settings
        if seconds >= (settings.silence if settings.eagerness is None else EAGERNESS[settings.eagerness]):
            return self._end(quiet)
        if settings.eagerness is not None and self._judges and not self._asked and seconds >= DETECTION.sentence_pause:
            self._asked = True
            return Doubt()
        if settings.soft_end is not None and not self._softly and seconds >= settings.soft_end:
            self._softly = True
            return SoftEnd(quiet)
        return None

    def _end(self, quiet: int) -> SpeechEnd:
        self._speaking = self._softly = self._asked = False
        self._onset = self._quiet = None
        return SpeechEnd(quiet)
