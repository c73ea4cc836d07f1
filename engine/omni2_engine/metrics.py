"""What a turn cost: spans of work as they happen, and the summary users read or log."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

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

    `stages` sums the time of every stage; `first_chunk` runs from the waveform handed in to the first sound out, split
    as the paper's Table 6 into `first_chunk_llm` (frontend, encoder, prefill, R tokens), `first_chunk_tts` (fusion and
    W units) and `first_chunk_synthesis` (flow and vocoder). `rtf` is compute time over the sound's duration.
    """

    turn: int = 0
    finish_reason: str = ""
    prompt_positions: int = 0
    reused_positions: int = 0
    dropped_turns: int = 0
    text_tokens: int = 0
    speech_tokens: int = 0
    units: int = 0
    unvoiced_ids: int = 0
    chunks: int = 0
    audio_seconds: float = 0.0
    total_seconds: float = 0.0
    first_text: float | None = None
    first_chunk: float | None = None
    first_chunk_llm: float = 0.0
    first_chunk_tts: float = 0.0
    first_chunk_synthesis: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list, repr=False)
    chunk_times: list[float] = field(default_factory=list, repr=False)

    @property
    def rtf(self) -> float | None:
        """Real-time factor: seconds of work per second of sound; None where there is no sound."""
        return sum(self.stages.values()) / self.audio_seconds if self.audio_seconds else None

    def log(self) -> None:
        """One structured line on the logger `omni2_engine.turn`, level INFO."""
        if LOGGER.isEnabledFor(logging.INFO):
            record = {key: value for key, value in asdict(self).items() if key not in ("spans", "chunk_times")}
            record["rtf"] = self.rtf
            LOGGER.info(json.dumps(record, sort_keys=True, default=float))


class Recorder:
    """Collects spans and counts while a turn runs."""

    def __init__(self, turn: int) -> None:
        self.metrics = TurnMetrics(turn=turn)
        self._began = time.perf_counter()

    def now(self) -> float:
        """Seconds since the turn began."""
        return time.perf_counter() - self._began

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        """Time a piece of work."""
        start = self.now()
        try:
            yield
        finally:
            stop = self.now()
            self.metrics.spans.append(Span(stage, start, stop))
            self.metrics.stages[stage] = self.metrics.stages.get(stage, 0.0) + stop - start

    def text(self) -> None:
        """Note that text is there."""
        if self.metrics.first_text is None:
            self.metrics.first_text = self.now()

    def chunk(self, seconds: float) -> None:
        """Note that a chunk of sound is about to go out."""
        m = self.metrics
        m.chunks += 1
        m.audio_seconds += seconds
        m.chunk_times.append(self.now())
        if m.first_chunk is None:
            m.first_chunk = m.chunk_times[0]
            m.first_chunk_llm = sum(m.stages.get(stage, 0.0) for stage in LLM_STAGES)
            m.first_chunk_tts = sum(m.stages.get(stage, 0.0) for stage in SPEECH_LM_STAGES)
            m.first_chunk_synthesis = sum(m.stages.get(stage, 0.0) for stage in SYNTHESIS_STAGES)

    def finish(self) -> None:
        """Close the books and log them."""
        self.metrics.total_seconds = self.now()
        self.metrics.log()
