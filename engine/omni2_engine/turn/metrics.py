"""What a turn cost: spans of work as they happen, and the summary users read or log."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

LOGGER = logging.getLogger("omni2_engine.turn")

LLM_STAGES = ("frontend", "encoder", "prefill", "decode")
SPEECH_LM_STAGES = ("fusion", "speech_prefill", "speech_decode")
SYNTHESIS_STAGES = ("flow", "vocoder")


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work: a stage and when it ran, in seconds since the turn began."""

    stage: str
    start: float
    stop: float


@dataclass
class TurnMetrics:
    """Figures of one turn; times in seconds.

    Of the `prompt_positions`, `speech_positions` are of what was spoken, and `reused_positions` were in the KV cache.
    `left_context` is what the flow was allowed to look back on. `stages` sums the time of every stage. `first_chunk`
    runs from the waveform handed in to the first sound out, split as the paper's Table 6: `first_chunk_llm` until the
    speech LM begins to read (frontend, encoder, prefill, R tokens), `first_chunk_tts` until the flow begins (fusion and
    W units), `first_chunk_synthesis` (flow and vocoder). `start_in` is the first chunk's, `underrun` the time for which
    a player that waited for it had nothing to play. `rtf` is the time in which any of it was computed over the sound's
    duration. Where a turn was prepared before it was asked for, see `Session.prepare`, times run from the moment at
    which it was: spans before that are negative, and `speculated_seconds` is the work that had been done by then.
    """

    turn: int = 0
    finish_reason: str = ""
    prompt_positions: int = 0
    speech_positions: int = 0
    reused_positions: int = 0
    dropped_turns: int = 0
    left_context: float = 0.0
    text_tokens: int = 0
    speech_tokens: int = 0
    units: int = 0
    unvoiced_ids: int = 0
    chunks: int = 0
    audio_seconds: float = 0.0
    total_seconds: float = 0.0
    speculated_seconds: float = 0.0
    first_text: float | None = None
    first_chunk: float | None = None
    first_chunk_llm: float = 0.0
    first_chunk_tts: float = 0.0
    first_chunk_synthesis: float = 0.0
    start_in: float = 0.0
    underrun: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list, repr=False)
    chunk_times: list[float] = field(default_factory=list, repr=False)

    @property
    def busy(self) -> float:
        """Seconds in which something of the turn was computed; what overlaps counts once."""
        return covered([(span.start, span.stop) for span in self.spans])

    @property
    def rtf(self) -> float | None:
        """Real-time factor: seconds of work per second of sound; None where there is no sound."""
        return self.busy / self.audio_seconds if self.audio_seconds else None

    def record(self) -> dict[str, Any]:
        """For JSON: all but the spans and the chunks' times."""
        own = {key: value for key, value in asdict(self).items() if key not in ("spans", "chunk_times")}
        return own | {"rtf": self.rtf}

    def log(self) -> None:
        """One structured line on the logger `omni2_engine.turn`, level INFO."""
        if LOGGER.isEnabledFor(logging.INFO):
            LOGGER.info(json.dumps(self.record(), sort_keys=True, default=float))


class Recorder:
    """Collects spans and counts while a turn runs."""

    def __init__(self, turn: int) -> None:
        self.metrics = TurnMetrics(turn=turn)
        self._began = time.perf_counter()
        self._dry_at = 0.0  # when a player that waited for `start_in` has played all there is
        self._lock = threading.Lock()  # spans end on several threads

    def now(self) -> float:
        """Seconds since the turn began."""
        return time.perf_counter() - self._began

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        """Time a piece of work."""
        start = time.perf_counter()
        try:
            yield
        finally:
            stop = time.perf_counter()
            with self._lock:
                self.metrics.spans.append(Span(stage, start - self._began, stop - self._began))
                self.metrics.stages[stage] = self.metrics.stages.get(stage, 0.0) + stop - start

    def begin_anew(self) -> None:
        """The turn is asked for now, after some work on it: times run from here."""
        with self._lock:
            ahead = self.now()
            self._began += ahead
            m = self.metrics
            m.spans = [Span(span.stage, span.start - ahead, span.stop - ahead) for span in m.spans]
            if m.first_text is not None:
                m.first_text = 0.0

    def text(self) -> None:
        """Note that text is there."""
        if self.metrics.first_text is None:
            self.metrics.first_text = self.now()

    def chunk(self, seconds: float, start_in: float = 0.0) -> None:
        """Note that a chunk of sound is about to go out, see `Chunk`."""
        m, now = self.metrics, self.now()
        m.chunks += 1
        m.audio_seconds += seconds
        m.chunk_times.append(now)
        if m.first_chunk is None:
            m.first_chunk, m.start_in, self._dry_at = now, start_in, now + start_in
            self._split(now)
        m.underrun += max(0.0, now - self._dry_at)
        self._dry_at = max(now, self._dry_at) + seconds

    def _split(self, total: float) -> None:
        """Where the time to the first chunk went; stages may overlap, so by the moments at which each took over."""
        m = self.metrics
        voiced = next((span.start for span in reversed(m.spans) if span.stage == "vocoder"), total)
        rendering = [span.start for span in m.spans if span.stage == "flow" and span.stop <= voiced]
        reading = [span.start for span in m.spans if span.stage == "fusion"]
        m.first_chunk_llm = max(min(reading, default=0.0), 0.0)
        m.first_chunk_synthesis = total - max(max(rendering, default=voiced), 0.0)
        m.first_chunk_tts = total - m.first_chunk_llm - m.first_chunk_synthesis

    def finish(self, log: bool = True) -> None:
        """Close the books and log them."""
        m = self.metrics
        m.total_seconds = self.now()
        m.speculated_seconds = covered([(span.start, min(span.stop, 0.0)) for span in m.spans if span.start < 0])
        if log:
            m.log()


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals (start, stop)."""
    total, reached = 0.0, -math.inf
    for start, stop in sorted(intervals):
        total += max(stop - max(start, reached), 0.0)
        reached = max(reached, stop)
    return total
