"""How long every stage of an engine takes alone; imported by workers only."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from omni2_bench.common.script import units_per_chunk
from omni2_engine.audio.source import read_audio
from omni2_engine.backends.base.language_model import LanguageModel
from omni2_engine.engine import Engine
from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES, WHISPER_SAMPLE_RATE

ENCODINGS = 3
TOKENS = 24
SPEECH_CONTEXT = 128  # positions before the measured speech tokens
BLOCKS = 2  # finished blocks before the measured one


def measure_stages(engine: str, audio: str, threads: int) -> dict[str, Any]:
    """Time the stages of an engine one after the other.

    Returns:
        `seconds` of each, medians: `encoder` of one window, `prefill` of `prompt` positions, `text_token`,
        `speech_token`, `flow` of all calls of one block, which compute `flow_frames` frames and look back on
        `flow_seen` each, and `vocoder` of one call of `vocoder_frames` frames.
    """
    loaded = Engine.load(Path(engine), threads=threads, warm_up=False)
    config, pipeline = loaded.config, loaded.pipeline
    window = config.encoder.samples / WHISPER_SAMPLE_RATE
    log_mel = pipeline.frontend(read_audio(Path(audio), None, window, "truncate"))
    pipeline.encoder(log_mel)  # the first run takes memory from the system
    seconds = {"encoder": float(np.median([_seconds(lambda: pipeline.encoder(log_mel)) for _ in range(ENCODINGS)]))}
    prompt = config.encoder.positions
    seconds["prefill"], seconds["text_token"] = _language_model(pipeline.llm, prompt)
    seconds["speech_token"] = _language_model(pipeline.speech_lm, SPEECH_CONTEXT)[1]
    seconds["flow"], frames, seen = _flow(loaded)
    vocoder_frames = VOCODER_OVERLAP_FRAMES + units_per_chunk(config) * config.flow_encoder.ratio
    seconds["vocoder"] = _vocoder(loaded, vocoder_frames)
    sizes = {"prompt": prompt, "flow_frames": frames, "flow_seen": seen, "vocoder_frames": vocoder_frames}
    return {"seconds": seconds, **sizes}


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _language_model(model: LanguageModel, context: int) -> tuple[float, float]:
    """Seconds of a prefill and of one token after it."""
    state = model.new_state(context + TOKENS)
    embeds = model.embed([index % model.config.vocab for index in range(context)])
    model.extend(state, embeds)
    state.truncate(0)
    prefill = _seconds(lambda: model.extend(state, embeds))
    tokens = [_seconds(lambda: model.extend(state, embeds[:1])) for _ in range(TOKENS)]
    return prefill, float(np.median(tokens))


def _flow(engine: Engine) -> tuple[float, int, int]:
    """Seconds of all calls that end in one block, the frames they compute, and the frames each looks back on (sum over
    computed frames)."""
    config, flow = engine.config, engine.pipeline.decoder.flow
    c, hop = config.flow_encoder, units_per_chunk(config)
    units = np.random.default_rng(0).integers(0, c.units, (BLOCKS + 1) * c.block_units).tolist()
    state = flow.new_state(engine.voice_features())
    seconds, frames, seen = 0.0, 0, 0
    for start in range(0, len(units), hop):
        began = time.perf_counter()
        mel = flow.step(state, units[start : start + hop], final=False).mel
        if start >= BLOCKS * c.block_units:
            seconds += time.perf_counter() - began
            frames += len(mel)
            seen += len(mel) * (BLOCKS * c.block_frames + len(mel))
    return seconds, frames, seen


def _vocoder(engine: Engine, frames: int) -> float:
    """Median seconds of a call in the middle of an answer."""
    decoder, new = engine.pipeline.decoder, frames - VOCODER_OVERLAP_FRAMES
    mel = np.random.default_rng(0).standard_normal((frames, engine.config.vocoder.mel), dtype=np.float32)
    state = decoder.vocoder.new_state()
    decoder.vocoder.step(state, mel, decoder.draws(0, 0, 0), final=False)

    def call() -> None:
        decoder.vocoder.step(state, mel[:new], decoder.draws(0, 0, 1), final=False)

    call()
    return float(np.median([_seconds(call) for _ in range(ENCODINGS)]))
