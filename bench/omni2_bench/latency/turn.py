"""One measured turn: what a worker process is asked to run and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from omni2_engine.turn.metrics import TurnMetrics, covered

TURN = "omni2_bench.latency.worker_turn:answer_turn"  # what a worker process runs
WARM_UP_ROUNDS = 2  # rounds of reading and writing before the measured turn: every stage has then run


@dataclass(frozen=True)
class TurnRequest:
    """A turn to run; paths are strings, as this travels as JSON.

    Args:
        pipeline: "engine" or "reference".
        engine: an engine directory; the reference takes voice and noise from it, so that both start from the same.
        audio: the spoken question.
        pcm: `.npy` file to write the answer's sound to.
        threads: processor threads.
        chunks: of the answer.
        left_context: seconds the flow looks back on; None leaves it to the engine.
        model, decoder, speech_encoder: the checkpoint, for the reference.
        width: calls that may run at once; None leaves it to the engine.
        device: what runs the engine's graphs, see `omni2_engine.backends.select.Device`. Where it is a GPU the
            reference runs there too, if its PyTorch can.
        growing: chunks grow with the player's lead.
    """

    pipeline: str
    engine: str
    audio: str
    pcm: str
    threads: int
    chunks: int
    left_context: float | None = None
    model: str | None = None
    decoder: str | None = None
    speech_encoder: str | None = None
    width: int | None = None
    device: str = "cpu"
    growing: bool = False


@dataclass(frozen=True)
class TurnResult:
    """Times of a turn in seconds since the waveform was handed in.

    Attributes:
        spans: (stage, start, stop) of all work, in order.
        prefilled: when the prompt was in.
        ready: when each chunk was there.
        durations: seconds of sound in each chunk.
        finished: when the turn was over.
        llm, tts, synthesis: the first chunk's parts as in the paper's Table 6.
        chosen: text ids the model itself would have gone on with; empty on a GPU, which does not tell.
        loading: seconds to load the pipeline.
        calls: seconds of every call of a graph by the device's clock, by the graph's name; empty on the CPU.
        place: where it ran, for the reader.
        start_in: seconds that a player waits after the first chunk; the reference foresees none.
        core_seconds: processor time of the turn, over all threads of the process; 0 where an earlier version measured.
    """

    spans: list[tuple[str, float, float]]
    prefilled: float
    ready: list[float]
    durations: list[float]
    finished: float
    llm: float
    tts: float
    synthesis: float
    chosen: list[int]
    loading: float
    calls: dict[str, list[float]] = field(default_factory=dict)
    place: str = "CPU"
    start_in: float = 0.0
    core_seconds: float = 0.0

    @classmethod
    def of(
        cls,
        metrics: TurnMetrics,
        durations: list[float],
        chosen: list[int],
        loading: float,
        calls: Mapping[str, Sequence[float]] | None = None,
        place: str = "CPU",
        core_seconds: float = 0.0,
    ) -> TurnResult:
        """From a turn's metrics."""
        return cls(
            spans=[(span.stage, span.start, span.stop) for span in metrics.spans],
            prefilled=max(span.stop for span in metrics.spans if span.stage == "prefill"),
            ready=list(metrics.chunk_times),
            durations=durations,
            finished=metrics.total_seconds,
            llm=metrics.first_chunk_llm,
            tts=metrics.first_chunk_tts,
            synthesis=metrics.first_chunk_synthesis,
            chosen=chosen,
            loading=loading,
            calls={graph: list(seconds) for graph, seconds in (calls or {}).items()},
            place=place,
            start_in=metrics.start_in,
            core_seconds=core_seconds,
        )

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> TurnResult:
        """From what a worker wrote; fields of others are left out, and those an earlier version had not are as new."""
        return cls(**{known.name: record[known.name] for known in fields(cls) if known.name in record})

    @property
    def seconds(self) -> float:
        """Of sound."""
        return sum(self.durations)

    @property
    def work(self) -> float:
        """Seconds in which anything was computed."""
        return covered((start, stop) for _, start, stop in self.spans)

    def of_stage(self, *stages: str) -> list[float]:
        """Durations of every span of these stages, in order."""
        return [stop - start for stage, start, stop in self.spans if stage in stages]
