"""What `omni2-engine talk` shows: captions and latencies line by line, and levels below them on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from omni2_engine.cli.terminal import printable
from omni2_engine.live.detection.base import RATE
from omni2_engine.live.events import (
    AnswerBegun,
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

BAR = 24  # characters
PER_SECOND = 12  # times that levels are drawn


class TalkScreen:
    """Shows events. A context manager.

    Args:
        console: where; on a terminal its last lines are levels and the caption that is being written.
        levels: loudness of the person and of the model, 0 to 1.
        clock: tells seconds.
    """

    def __init__(
        self,
        console: Console,
        levels: Callable[[], tuple[float, float]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._levels = levels
        self._clock = clock
        self._caption = ""
        self._state = "listening"
        self._spoke_at = 0
        self._stopped: float | None = None  # when the speech ended that is answered now
        self._sounded = False
        self._ahead = False
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=PER_SECOND, transient=True)

    def show(self, event: Event) -> None:
        """Show what an event says."""
        match event:
            case SpeechBegan():
                self._spoke_at, self._state = event.at, "hearing you"
            case SpeechEnded():
                silence = (event.decided - event.at) / RATE
                self._stopped = self._clock() - silence
                self._line(
                    f"you    {(event.at - self._spoke_at) / RATE:.1f} s", f"over after {silence:.2f} s of silence"
                )
                self._state = "listening"
            case TurnBegun():
                self._ahead = event.speculative
            case TurnTakenBack():
                self._ahead = False
            case AnswerBegun():
                self._caption, self._sounded, self._state = "", False, "answering"
            case TextWritten():
                self._caption += event.text
            case SoundMade():
                self._first_sound()
            case Interrupted():
                caption = f"model  {self._caption.strip()}" if self._caption else ""  # told when it was made already
                self._line(caption, f"interrupted after {event.heard:.1f} s")
                self._caption, self._state = "", "hearing you"
            case Finished():
                if event.reason != "cancelled":
                    self._line(f"model  {self._caption.strip()}", f"{event.metrics.audio_seconds:.1f} s of sound")
                self._caption, self._state = "", "listening"
            case Failed():
                self._line(f"error  {event.error}", "")
                self._caption, self._state = "", "listening"

    def _first_sound(self) -> None:
        if not self._sounded and self._stopped is not None:
            ahead = ", begun before that was certain" if self._ahead else ""
            waited = self._clock() - self._stopped
            self._line("", f"first sound {waited:.2f} s after the end of your speech{ahead}")
        self._sounded, self._stopped = True, None

    def _line(self, said: str, figures: str) -> None:
        line = Text(printable(said))
        if figures:
            line.append(f"{'   ' if said else '       '}{figures}", style="dim")
        self._console.print(line, soft_wrap=True)

    def _draw(self) -> RenderableType:
        person, model = self._levels()
        state = "speaking" if model and self._state == "listening" else self._state
        meters = Text.assemble(
            ("you   ", "dim"), (_bar(person), "green"), ("   model ", "dim"), (_bar(model), "cyan"), f"   {state}"
        )
        return Group(Text(printable(self._caption.strip()), style="bold"), meters)

    def __enter__(self) -> TalkScreen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def _bar(level: float) -> str:
    full = round(level * BAR)
    return "█" * full + "·" * (BAR - full)
