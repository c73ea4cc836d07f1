"""What a server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
GAPS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
REFUSED = ("full", "draining", "key", "origin")
ENDED = ("end", "limit", "cancelled", "error", "gone")
SPECULATED = ("begun", "taken back")


class Metrics:
    """Counters of one server; another server in the same process has its own.

    Attributes:
        sessions: Realtime sessions that are open.
        refused: sessions and requests that were not let in, by reason: "full", "draining", "key", "origin".
        turns: answers, by how they ended: "end", "limit", "cancelled", "error", or "gone": their session ended first.
        first_sound: seconds from the decision that a turn is over, or from `response.create`, to the first sound sent.
        gaps: seconds of an answer for which a player that began with the first sound had nothing to play.
        transcripts: of the user's speech, by what came of them: "completed", "failed".
        speculative: answers begun before the turn was certainly over, and of them those taken back.
        waiting: turns that have been asked and have made no sound yet.
        memory: bytes that conversations hold.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.sessions = Gauge("omni2_sessions", "Realtime sessions that are open", registry=self.registry)
        self.refused = Counter(
            "omni2_refused", "Sessions and requests that were not let in", ["reason"], registry=self.registry
        )
        self.turns = Counter("omni2_turns", "Answers, by how they ended", ["reason"], registry=self.registry)
        self.first_sound = Histogram(
            "omni2_first_sound_seconds",
            "From the decision that a turn is over to the first sound sent",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.transcripts = Counter(
            "omni2_transcripts",
            "Transcripts of the user's speech, by what came of them",
            ["outcome"],
            registry=self.registry,
        )
        self.gaps = Histogram(
            "omni2_gap_seconds",
            "Of an answer, for which a player had nothing to play",
            buckets=GAPS,
            registry=self.registry,
        )
        self.speculative = Counter(
            "omni2_speculative_turns", "Answers begun before a turn was over", ["outcome"], registry=self.registry
        )
        self.waiting = Gauge("omni2_waiting_turns", "Turns without a first sound yet", registry=self.registry)
        self.memory = Gauge("omni2_memory_bytes", "Held by conversations", registry=self.registry)
        # from zero on, so that a rate shows the first of each too
        for counter, values in ((self.refused, REFUSED), (self.turns, ENDED), (self.speculative, SPECULATED)):
            for value in values:
                counter.labels(value)

    def page(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self.registry)
