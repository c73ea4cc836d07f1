"""Runs one scripted turn on the reference pipeline; imported by worker processes only."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from omni2_bench.common.script import Script, write_script
from omni2_bench.latency.reference import AnswerSettings, ReferencePipeline
from omni2_bench.latency.turn import WARM_UP_ROUNDS, TurnRequest, TurnResult
from omni2_engine.sampling import DrawKey, Stream, normal, uniform
from omni2_engine.text import TextTokenizer
from omni2_engine.turn.metrics import Recorder, TurnMetrics
from omni2_export.checkpoint import open_checkpoint
from omni2_export.reference.read_write import Pick, penalised, sampled
from omni2_export.reference.vocoder import SourceDraws

SEED, TURN = 0, 0  # the engine's session and turn, whose random numbers are drawn here too


def run(request: TurnRequest) -> TurnResult:
    """Load, warm up, answer once."""
    assert request.model is not None and request.decoder is not None
    torch.set_num_threads(request.threads)
    began = time.perf_counter()
    encoder = None if request.speech_encoder is None else Path(request.speech_encoder)
    checkpoint = open_checkpoint(Path(request.model), decoder=Path(request.decoder), speech_encoder=encoder)
    engine = Path(request.engine)
    voice = next(iter(sorted((engine / "voices").glob("*.npy"))))
    place, device, dtype = where(request.device)
    noise = np.load(engine / "tables" / "noise.npy")
    pipeline = ReferencePipeline(checkpoint, np.load(voice), noise, device, dtype)
    loading = time.perf_counter() - began
    words = TextTokenizer.load(engine / "text" / "tokenizer.json")
    script = write_script(pipeline.config, words, pipeline.units, request.chunks)
    _answer(pipeline, Path(request.audio), script.opening(pipeline.config, WARM_UP_ROUNDS))
    busy = time.process_time()
    metrics, chunks = _answer(pipeline, Path(request.audio), script)
    busy = time.process_time() - busy
    np.save(request.pcm, np.concatenate(chunks))
    rate = pipeline.config.vocoder.sample_rate
    durations = [len(pcm) / rate for pcm in chunks]
    return TurnResult.of(metrics, durations, script.chosen, loading, place=place, core_seconds=busy)


def where(device: str) -> tuple[str, str, torch.dtype]:
    """Where and in what the reference runs beside an engine on a device, and how the page says it.

    On a GPU in bfloat16, which the original's scripts load its language models in (spec §1.1).
    """
    if device == "cpu":
        return "CPU", "cpu", torch.float32
    if torch.cuda.is_available():
        return "GPU, PyTorch, bfloat16 (flow and vocoder float32)", "cuda", torch.bfloat16
    return f"CPU, float32 (PyTorch {torch.__version__} has no CUDA here)", "cpu", torch.float32


class WaitingRecorder(Recorder):
    """Its spans end when the GPU is done with what was enqueued in them."""

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        """See `Recorder.span`."""
        with super().span(stage):
            yield
            torch.cuda.synchronize()


def _answer(pipeline: ReferencePipeline, audio: Path, script: Script) -> tuple[TurnMetrics, list[np.ndarray]]:
    config = pipeline.config
    how = AnswerSettings(
        _steered(penalised(config.tokens.repetition_penalty), Stream.TEXT, script),
        _steered(sampled(torch.Generator(pipeline.device).manual_seed(SEED)), Stream.SPEECH, script),
        len(script.text),
        lambda call, samples: draws(config.vocoder.harmonics + 1, call, samples, pipeline.device),
        config.write,
    )
    recorder = WaitingRecorder(TURN) if pipeline.device.type == "cuda" else Recorder(TURN)
    return recorder.metrics, list(pipeline.answer(audio, how, recorder))


def _steered(pick: Pick, stream: Stream, script: Script) -> Pick:
    return lambda logits, generated: script.steer(stream, generated, pick(logits, generated))


def draws(waves: int, call: int, samples: int, device: torch.device | None = None) -> SourceDraws:
    """The numbers the engine's vocoder draws in the same call (`omni2_engine.stages.speech_decoder`)."""
    phase = uniform(-math.pi, math.pi, (1, waves, 1), DrawKey(SEED, Stream.VOCODER_PHASE, TURN), call)
    noise = normal((1, waves, samples), DrawKey(SEED, Stream.VOCODER_NOISE, TURN), call)
    return SourceDraws(torch.from_numpy(phase).to(device), torch.from_numpy(noise).to(device))
