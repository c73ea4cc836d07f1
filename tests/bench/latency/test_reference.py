"""The reference pipeline against the original's arrays: logits, ids and sound of whole turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omni2_bench.latency.reference import AnswerSettings, ReferencePipeline, Voice
from omni2_engine.sampling import Stream
from omni2_engine.turn.metrics import Recorder
from omni2_export.checkpoint import open_checkpoint
from omni2_export.reference.read_write import Pick, penalised
from omni2_export.reference.vocoder import SourceDraws

Arrays = dict[str, np.ndarray]


def golden(shared: Path, name: str) -> Arrays:
    with np.load(shared / "goldens" / f"{name}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def pipeline(shared: Path) -> ReferencePipeline:
    torch.set_num_threads(1)
    tiny = shared / "checkpoints" / "tiny"
    opened = open_checkpoint(
        tiny / "omni2_tiny", decoder=tiny / "cosy2_decoder", speech_encoder=tiny / "speech_encoder" / "large-v3.pt"
    )
    units = golden(shared, "decoder_units")
    return ReferencePipeline(opened, units["embedding"], units["rand_noise"][0].T)


def silent(call: int, samples: int) -> SourceDraws:
    return SourceDraws(torch.zeros(1, 9, 1), torch.zeros(1, 9, samples))


@pytest.mark.parametrize("name", ["llm_1", "llm_4"])
def test_a_forced_turn_has_the_originals_logits(name: str, shared: Path, pipeline: ReferencePipeline) -> None:
    turn, tokens = golden(shared, name), pipeline.config.tokens
    forced = turn["f_tts_tokens"].tolist()
    rows: dict[Stream, list[torch.Tensor]] = {Stream.TEXT: [], Stream.SPEECH: []}
    said: list[int] = []

    def noted(stream: Stream, pick: Pick) -> Pick:
        def wrapped(logits: torch.Tensor, generated: list[int]) -> int:
            rows[stream].append(logits)
            chosen = pick(logits, generated)
            if stream is Stream.TEXT:
                said.append(chosen)
            return chosen

        return wrapped

    how = AnswerSettings(
        noted(Stream.TEXT, penalised(tokens.repetition_penalty)),
        noted(Stream.SPEECH, lambda logits, generated: forced[len(generated)]),
        len(turn["text_ids"]),
        silent,
        int(turn["f_group_unit_len"][-1]),
    )
    recorder = Recorder(0)
    chunks = list(pipeline.answer(turn["audio16k_i16"].astype(np.float32) / 32768, how, recorder))

    assert said == turn["text_ids"].tolist()
    assert np.abs(torch.stack(rows[Stream.TEXT]).numpy() - turn["llm_logits"]).max() <= 1e-3
    assert np.abs(torch.stack(rows[Stream.SPEECH]).numpy() - turn["f_tts_logits"]).max() <= 1e-3
    metrics = recorder.metrics
    assert metrics.prompt_positions == len(turn["inputs_embeds"])
    assert metrics.units == sum(map(len, chunks)) // (pipeline.config.flow_encoder.ratio * pipeline.config.vocoder.hop)
    stages = [span.stage for span in metrics.spans]
    assert stages.count("speech_prefill") == len(turn["f_group_unit_len"])  # the whole context at every write
    assert stages.count("flow") == metrics.chunks == len(chunks)
    assert stages[:3] == ["frontend", "encoder", "prefill"]


class DrivenVocoder:
    """The vocoder with every call's source given; what it computes of its own is kept.

    F0's rounding adds up in the source's phase, and differs between processors: the original's own sound is as far from
    float64's as ours is. So F0 and the sound for a given source are compared.
    """

    def __init__(self, vocoder: Any, sources: list[torch.Tensor]) -> None:
        self._vocoder, self._sources = vocoder, iter(sources)
        self.config, self.m_source = vocoder.config, vocoder.m_source
        self.f0: list[np.ndarray] = []

    def __call__(self, mel: torch.Tensor, draws: SourceDraws, cached: torch.Tensor) -> Any:
        raw, source, f0 = self._vocoder(mel, draws, next(self._sources))
        self.f0.append(f0.numpy())
        return raw, source, f0


def test_a_stream_has_the_originals_sound(shared: Path, pipeline: ReferencePipeline) -> None:
    stream = golden(shared, "stream_C")

    def draws(call: int, samples: int) -> SourceDraws:
        return SourceDraws(*(torch.from_numpy(stream[f"c{call}_{part}"]) for part in ("phase", "sine_noise")))

    recorder = Recorder(0)
    voice = Voice(pipeline, draws, recorder)
    units, schedule = stream["units"].tolist(), stream["schedule"].tolist()
    sources = [torch.from_numpy(stream[f"c{k}_source"]) for k in range(len(schedule))]
    vocoder = voice.decoder.vocoder = DrivenVocoder(voice.decoder.vocoder, sources)
    with torch.inference_mode():
        for k, size in enumerate(schedule):
            [pcm] = voice.say(units[:size], final=k == len(schedule) - 1)
            units = units[size:]
            assert np.abs(pcm - stream[f"c{k}_wav"].ravel()).max() <= 1e-3, k
            assert np.abs(vocoder.f0[k] - stream[f"c{k}_f0"]).max() <= 1e-3, k
    assert recorder.metrics.chunks == len(schedule)


def test_units_too_few_for_a_call_wait(pipeline: ReferencePipeline) -> None:
    voice = Voice(pipeline, silent, Recorder(0))
    with torch.inference_mode():
        assert list(voice.say([1, 2, 3, 4], final=False)) == []
        assert len(list(voice.say(list(range(9)), final=False))) == 1
        assert voice.unread == [6, 7, 8]
        assert len(list(voice.say([], final=True))) == 1
    hop = pipeline.config.flow_encoder.ratio * pipeline.config.vocoder.hop
    assert voice.recorder.metrics.audio_seconds == pytest.approx(13 * hop / pipeline.config.vocoder.sample_rate)
