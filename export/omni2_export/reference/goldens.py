"""Golden files for any checkpoint: questions and a voice go in, the `.npz` files that `verify` reads come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omni2_engine.audio.source import read_audio
from omni2_engine.errors import Omni2Error
from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES, WHISPER_SAMPLE_RATE, ModelConfig
from omni2_export.checkpoint import Checkpoint
from omni2_export.reference.build import load_reference
from omni2_export.reference.golden_speech import SpeechGoldens, save
from omni2_export.reference.golden_text import TextGoldens
from omni2_export.tokenizer_files import load_tokenizer


@dataclass(frozen=True)
class GoldenPlan:
    """Which calls of which sizes are recorded."""

    max_text: int  # text tokens of a turn; every other turn has one less, so that pairs are left over
    last_write: int  # speech tokens of the greedy runs' last write
    schedules: dict[str, tuple[int, ...]]  # streams by name: units delivered per call, the last call final
    encoder_calls: tuple[int, ...]  # units
    estimator_calls: tuple[int, ...]  # frames
    vocoder_frames: int
    noise_frames: int
    answer: str = "Hello."  # assistant text between the two turns of the multi-turn prompt
    seed: int = 0


def default_plan(config: ModelConfig) -> GoldenPlan:
    """Sizes that cross two block boundaries of any model's block, and a short stream beside a long one.

    Both streams end with fewer than W units, as a turn's do, so that `verify` can make the same calls in a session.
    """
    flow = config.flow_encoder
    block, frames = flow.block_units, flow.block_frames
    # A stream's first call must fill the vocoder's overlap (spec §10).
    step = max(config.write, flow.lookahead + 1 - (-VOCODER_OVERLAP_FRAMES // flow.ratio))
    long = (step,) * (5 * block // (2 * step)) + (max(step - 3, 1),)
    return GoldenPlan(
        max_text=8 * config.read,
        last_write=4 * config.write,
        schedules={"A": long, "C": (step, step, max(step // 2 - 1, 1))},
        encoder_calls=(step, block + 7, 2 * block + 13),
        estimator_calls=(14, frames + 34, 2 * frames + 30),
        vocoder_frames=30,
        noise_frames=max(sum(long) * flow.ratio, 2 * frames + 30) + 100,
    )


def read_question(path: Path, config: ModelConfig) -> np.ndarray:
    """A spoken question as golden files hold it: (n,) int16 at 16 kHz, cut to the encoder's window.

    Raises:
        AudioError: the file is missing or not audio.
    """
    window = config.encoder.samples / WHISPER_SAMPLE_RATE
    audio = read_audio(path, None, window, "truncate")
    return np.clip(np.rint(audio * 32_768), -32_768, 32_767).astype(np.int16)


def write_goldens(
    checkpoint: Checkpoint,
    audio: dict[int, np.ndarray],
    voice: np.ndarray,
    out_dir: Path,
    plan: GoldenPlan | None = None,
) -> list[Path]:
    """Write golden files made by the torch reference.

    Args:
        checkpoint: must have a `campplus.onnx`.
        audio: spoken questions by number, each (n,) int16 at 16 kHz; the number names the file.
        voice: (n,) float32 voice prompt at 16 kHz.
        out_dir: made if it is not there.
        plan: sizes and schedules; `default_plan` of the checkpoint if None.

    Returns:
        The files written: `decoder_units`, per schedule `stream_` and `offline_`, `llm_<n>`; with two or more questions
        `llm_multiturn`; `llm_eos` where the greedy text has a fitting place to end.

    Raises:
        CheckpointError: the checkpoint has no speaker network.
        Omni2Error: the directory cannot be made.
    """
    plan = plan or default_plan(checkpoint.config)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Omni2Error(f"{out_dir} cannot be made: {error.strerror}", "choose another directory") from error
    reference = load_reference(checkpoint)
    speech = SpeechGoldens(checkpoint, reference, voice, plan.noise_frames, plan.seed)
    files = {"decoder_units": speech.modules(plan.encoder_calls, plan.estimator_calls, plan.vocoder_frames)}
    for name, schedule in plan.schedules.items():
        units = speech.units(sum(schedule))
        files[f"stream_{name}"] = speech.stream(units, schedule)
        files[f"offline_{name}"] = speech.offline(units)
    text = TextGoldens(
        checkpoint,
        reference,
        load_tokenizer(checkpoint.text_tokenizer).tokenizer,
        load_tokenizer(checkpoint.speech_tokenizer).tokenizer,
        plan.seed,
    )
    for k, number in enumerate(audio):
        files[f"llm_{number}"] = text.turn(audio[number], plan.max_text - k % 2, plan.last_write)
    if len(audio) > 1:
        pair = list(audio)[:2]
        name = "llm_multiturn_" + "_".join(map(str, pair))
        files[name] = text.multiturn({number: audio[number] for number in pair}, plan.answer)
    if audio:
        first = min(audio)
        files[f"llm_eos_{first}"] = text.eos(audio[first], plan.max_text, plan.last_write)
    paths = []
    for name, arrays in files.items():
        if arrays:
            paths.append(out_dir / f"{name}.npz")
            save(paths[-1], arrays)
    return paths
