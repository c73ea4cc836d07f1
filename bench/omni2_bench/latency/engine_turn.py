"""Runs one scripted turn on the engine; imported by worker processes only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from omni2_bench.common.script import Script, write_script
from omni2_bench.latency.turn import WARM_UP_ROUNDS, TurnRequest, TurnResult
from omni2_engine.backends.base.backend import Backend
from omni2_engine.backends.select import Device, select_backend
from omni2_engine.engine import Engine
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.turn.metrics import TurnMetrics
from omni2_engine.turn.options import TurnOptions


def run(request: TurnRequest) -> TurnResult:
    """Load, warm up, answer once.

    Raises:
        Omni2Error: this machine cannot run the engine on that device.
    """
    began = time.perf_counter()
    context: dict[str, Any] = {} if request.left_context is None else {"left_context": request.left_context}
    directory = EngineDirectory(Path(request.engine))
    backend = select_backend(directory, Device(request.device), request.threads, timed=True)
    backend.width = request.width or backend.width
    on_gpu = backend.device_memory() is not None
    # a GPU records its steps while it warms up; the processor only has to have run everything once
    engine = Engine.load(request.engine, backend=backend, warm_up=on_gpu, **context)
    loading = time.perf_counter() - began
    script = write_script(engine.config, engine.pipeline.tokenizer, engine.pipeline.unit_table, request.chunks)
    _answer(engine, request, script.opening(engine.config, WARM_UP_ROUNDS), on_gpu)
    _take_calls(backend)
    busy = time.process_time()
    metrics, chunks = _answer(engine, request, script, on_gpu)
    busy = time.process_time() - busy
    np.save(request.pcm, np.concatenate(chunks))
    durations = [len(pcm) / engine.sample_rate for pcm in chunks]
    place = f"GPU, {backend.name}" if on_gpu else "CPU"
    return TurnResult.of(metrics, durations, script.chosen, loading, _take_calls(backend), place, busy)


def _answer(engine: Engine, request: TurnRequest, script: Script, on_gpu: bool) -> tuple[TurnMetrics, list[np.ndarray]]:
    # with a token hook a GPU waits for the host at every token; it takes ids along, but does not tell what it chose
    how: dict[str, Any] = {"forced": script.forced} if on_gpu else {"steer": script.steer}
    limits: TurnOptions = {"max_new_tokens": len(script.text), "max_last_write": engine.config.write}
    limits["long"] = "truncate"
    limits["chunks"] = "growing" if request.growing else "fixed"
    with engine.session(**limits) as session:
        chunks = [chunk.pcm for chunk in session.stream(Path(request.audio), **how) if len(chunk.pcm)]
        assert session.metrics is not None
        return session.metrics, chunks


def _take_calls(backend: Backend) -> dict[str, list[float]]:
    """Seconds of every call since the last time, by graph."""
    calls: dict[str, list[float]] = {}
    for timing in [] if backend.stopwatch is None else backend.stopwatch.take():
        calls.setdefault(timing.what, []).append(timing.seconds)
    return calls
