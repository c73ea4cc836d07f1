"""Flow and vocoder of other dimensions than any given checkpoint has: what spec §9–§11 promises holds there too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from omni2_engine.model.config import EstimatorConfig, FlowEncoderConfig, VocoderConfig
from omni2_export.reference.solver import TorchFlow
from omni2_export.reference.speech_decoder import TorchSpeechDecoder, Utterance
from omni2_export.reference.vocoder import HiFT

ENCODER = FlowEncoderConfig(
    units=50, width=24, heads=3, ffn=40, blocks=2, up_blocks=1, up_ffn=32, mel=12, unit_rate=5, ratio=2, lookahead=2
)
ESTIMATOR = EstimatorConfig(
    mel=12, in_channels=48, width=16, heads=3, head_dim=4, ffn=24, time_hidden=20, transformers=1, mid_blocks=2,
    speaker=10, guidance=0.5,
)  # fmt: skip
VOCODER = VocoderConfig(
    mel=12, sample_rate=16_000, base=16, harmonics=3, sine_amplitude=0.1, noise_sigma=0.003, voiced_threshold=5.0,
    upsample_rates=(4, 3), upsample_kernels=(8, 5), fft=8, fft_hop=2, resblock_kernels=(3, 5),
    resblock_dilations=((1, 2), (1, 3)), source_kernels=(5, 3), source_dilations=((1, 2), (1,)), leaky_slope=0.2,
    audio_limit=0.9, f0_width=8, f0_layers=2,
)  # fmt: skip
BLOCK = ENCODER.block_units


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name, weight in module.named_parameters():
        nn.init.normal_(weight, mean=1.0 if "norm" in name or "alpha" in name else 0.0, std=0.2)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def decoder() -> TorchSpeechDecoder:
    flow, vocoder = randomised(TorchFlow(ENCODER, ESTIMATOR)), randomised(HiFT(VOCODER))
    assert isinstance(flow, TorchFlow) and isinstance(vocoder, HiFT)
    embedding, noise = torch.randn(1, ESTIMATOR.speaker), torch.randn(1, ESTIMATOR.mel, 200)
    return TorchSpeechDecoder(flow, vocoder, embedding, noise, ratio=ENCODER.ratio, lookahead=ENCODER.lookahead)


def partial(decoder: TorchSpeechDecoder, units: torch.Tensor) -> torch.Tensor:
    return decoder.flow.partial(units, decoder.embedding, decoder.noise)


def test_a_block_is_settled_once_its_lookahead_is_there(decoder: TorchSpeechDecoder) -> None:
    units = torch.randint(ENCODER.units, (1, 4 * BLOCK))
    whole, frames = partial(decoder, units), ENCODER.block_frames
    for block in (1, 2):
        settled = block * BLOCK + ENCODER.lookahead
        early = partial(decoder, units[:, :settled])[:, :, : block * frames]
        torch.testing.assert_close(early, whole[:, :, : block * frames], atol=1e-4, rtol=1e-4)
        short = partial(decoder, units[:, : settled - 1])
        inside = slice((block - 1) * frames, short.shape[2])
        assert (short[:, :, inside] - whole[:, :, inside]).abs().amax(1).min() > 1e-4  # every frame of the block


@pytest.mark.parametrize("schedule", [(40,), (8, 32), (7, 9, 11, 13), (20, 8, 1, 11)])
def test_streamed_length_is_the_units_length(decoder: TorchSpeechDecoder, schedule: tuple[int, ...]) -> None:
    generator, utterance = torch.Generator().manual_seed(0), Utterance()
    calls = [decoder.push(utterance, [1] * size, generator) for size in schedule[:-1]]
    calls.append(decoder.finish(utterance, [1] * schedule[-1], generator))
    wav = torch.cat([call.wav for call in calls], dim=1)
    assert wav.shape == (1, 40 * ENCODER.ratio * VOCODER.hop)
    assert wav.isfinite().all() and wav.std() > 0
    assert (calls[0].raw.abs() <= VOCODER.audio_limit).all()
