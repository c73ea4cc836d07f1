"""Runs one scripted turn on the engine; imported by worker processes only."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from omni2_bench.script import Script, write_script
from omni2_bench.turn import WARM_UP_ROUNDS, TurnRequest, TurnResult
from omni2_engine.backends.onnxruntime import OnnxRuntimeBackend
from omni2_engine.engine import Engine
from omni2_engine.metrics import TurnMetrics


def run(request: TurnRequest) -> TurnResult:
    """Load, warm up, answer once."""
    began = time.perf_counter()
    context = {} if request.left_context is None else {"left_context": request.left_context}
    backend = OnnxRuntimeBackend(request.threads)
    backend.width = request.width or backend.width
    engine = Engine.load(request.engine, backend=backend, warm_up=False, **context)
    loading = time.perf_counter() - began
    script = write_script(engine.config, engine.text_tokenizer, engine.pipeline.loop.unit_table, request.chunks)
    _answer(engine, Path(request.audio), script.opening(engine.config, WARM_UP_ROUNDS))
    metrics, chunks = _answer(engine, Path(request.audio), script)
    np.save(request.pcm, np.concatenate(chunks))
    durations = [len(pcm) / engine.sample_rate for pcm in chunks]
    return TurnResult.of(metrics, durations, script.chosen, loading)


def _answer(engine: Engine, audio: Path, script: Script) -> tuple[TurnMetrics, list[np.ndarray]]:
    limits = {"max_new_tokens": len(script.text), "max_last_write": engine.config.write}
    with engine.session(long="truncate", **limits) as session:
        chunks = [chunk.pcm for chunk in session.stream(audio, steer=script.steer) if len(chunk.pcm)]
        assert session.metrics is not None
        return session.metrics, chunks
