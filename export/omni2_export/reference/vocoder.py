"""HiFT vocoder: mel frames go in; F0, a harmonic source and from both a waveform come out (spec §9)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni2_engine.model.config import VocoderConfig

EDGE_KERNEL = 7  # of conv_pre and conv_post, hard-coded upstream
F0_KERNEL = 3  # of the F0 predictor's convolutions, hard-coded upstream
SNAKE_EPS = 1e-9
FINAL_SLOPE = 0.01  # of the last leaky ReLU; the others take `leaky_slope`
MAX_MAGNITUDE = 1e2  # of the spectrum before the inverse STFT


class Snake(nn.Module):
    """x + sin²(αx) / α with an α for every channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T) → (B, channels, T)."""
        alpha = self.alpha[:, None]
        return x + (1.0 / (alpha + SNAKE_EPS)) * torch.sin(x * alpha) ** 2


class ResBlock(nn.Module):
    """For every dilation: x += conv(snake(dilated conv(snake(x))))."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=(kernel - 1) * d // 2) for d in dilations
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding=kernel // 2) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T) → (B, channels, T)."""
        for snake1, conv1, snake2, conv2 in zip(
            self.activations1, self.convs1, self.activations2, self.convs2, strict=True
        ):
            x = x + conv2(snake2(conv1(snake1(x))))
        return x


class F0Predictor(nn.Module):
    """Fundamental frequency of every mel frame."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(config.f0_layers):
            channels = config.f0_width if i else config.mel
            layers += [nn.Conv1d(channels, config.f0_width, F0_KERNEL, padding=F0_KERNEL // 2), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(config.f0_width, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Mel (B, mel, F) → Hz (B, F)."""
        return self.classifier(self.condnet(mel).transpose(1, 2)).squeeze(-1).abs()


@dataclass(frozen=True)
class SourceDraws:
    """The source's random numbers for one call."""

    phase: Tensor  # (B, harmonics + 1, 1) uniform in [−π, π); the fundamental's is not used
    noise: Tensor  # (B, harmonics + 1, L) standard normal


class Source(nn.Module):
    """Sine waves at F0 and its overtones plus noise, mixed into one excitation signal."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.l_linear = nn.Linear(config.harmonics + 1, 1)

    def draw(self, samples: int, generator: torch.Generator) -> SourceDraws:
        """Random numbers for a call of `samples` samples, drawn in the original's order."""
        waves = self.config.harmonics + 1
        device = self.l_linear.weight.device
        phase = (2.0 * torch.rand(1, waves, 1, generator=generator, device=generator.device) - 1.0) * math.pi
        noise = torch.randn(1, waves, samples, generator=generator, device=generator.device)
        return SourceDraws(phase.to(device), noise.to(device))

    def forward(self, f0: Tensor, draws: SourceDraws) -> Tensor:
        """F0 in Hz at sample rate (B, 1, L) → excitation (B, 1, L)."""
        config = self.config
        harmonic = torch.arange(1, config.harmonics + 2, device=f0.device, dtype=f0.dtype)[:, None]
        cycles = f0 * harmonic / config.sample_rate  # (B, waves, L) per sample
        # The running sum needs more than float32 carries after some seconds; the original's CPU sum has it silently.
        turns = cycles.double().cumsum(-1).to(f0.dtype) % 1
        phase = draws.phase.clone()
        phase[:, 0] = 0.0
        voiced = (f0 > config.voiced_threshold).to(f0.dtype)
        noise_level = voiced * config.noise_sigma + (1.0 - voiced) * config.sine_amplitude / 3
        sines = config.sine_amplitude * torch.sin(2.0 * math.pi * turns + phase)
        waves = sines * voiced + noise_level * draws.noise
        return torch.tanh(self.l_linear(waves.transpose(1, 2))).transpose(1, 2)


class HiFT(nn.Module):
    """F0 predictor, source and the up-sampling decoder that turns a spectrum into samples."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        spectrum = config.fft + 2  # real and imaginary parts, or magnitude and phase, of fft/2 + 1 bins
        self.f0_predictor = F0Predictor(config)
        self.m_source = Source(config)
        self.conv_pre = nn.Conv1d(config.mel, config.base, EDGE_KERNEL, padding=EDGE_KERNEL // 2)
        self.ups, self.source_downs = nn.ModuleList(), nn.ModuleList()
        self.source_resblocks, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for i, (rate, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernels, strict=True)):
            channels, out = config.base >> i, config.base >> (i + 1)
            self.ups.append(nn.ConvTranspose1d(channels, out, kernel, stride=rate, padding=(kernel - rate) // 2))
            stride = math.prod(config.upsample_rates[i + 1 :])
            self.source_downs.append(
                nn.Conv1d(spectrum, out, 1)
                if stride == 1
                else nn.Conv1d(spectrum, out, 2 * stride, stride=stride, padding=stride // 2)
            )
            self.source_resblocks.append(ResBlock(out, config.source_kernels[i], config.source_dilations[i]))
            for k, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True):
                self.resblocks.append(ResBlock(out, k, dilations))
        self.conv_post = nn.Conv1d(config.base >> len(self.ups), spectrum, EDGE_KERNEL, padding=EDGE_KERNEL // 2)

    def f0(self, mel: Tensor) -> Tensor:
        """Mel (B, mel, F) → Hz (B, F)."""
        return self.f0_predictor(mel)

    def source(self, f0: Tensor, draws: SourceDraws) -> Tensor:
        """F0 in Hz (B, F) → excitation (B, 1, hop·F)."""
        return self.m_source(f0.repeat_interleave(self.config.hop, dim=1)[:, None], draws)

    def stft(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Excitation (B, 1, L) → real and imaginary parts, each (B, fft/2 + 1, L/fft_hop + 1)."""
        spectrum = torch.stft(
            source[:, 0], self.config.fft, self.config.fft_hop, window=self._window(source), return_complex=True
        )
        return spectrum.real, spectrum.imag

    def decode(self, mel: Tensor, source: Tensor) -> Tensor:
        """Mel (B, mel, F) and excitation (B, 1, hop·F) → waveform (B, hop·F)."""
        config = self.config
        spectrum = torch.cat(self.stft(source), dim=1)
        branches = len(config.resblock_kernels)
        x = self.conv_pre(mel)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, config.leaky_slope))
            if i == len(self.ups) - 1:
                x = F.pad(x, (1, 0), mode="reflect")  # an STFT of L samples has one frame more than L / hop
            x = x + self.source_resblocks[i](self.source_downs[i](spectrum))
            blocks = self.resblocks[i * branches : (i + 1) * branches]
            x = torch.stack([block(x) for block in blocks]).sum(0) / branches
        x = self.conv_post(F.leaky_relu(x, FINAL_SLOPE))
        bins = config.fft // 2 + 1
        magnitude = x[:, :bins].exp().clamp_max(MAX_MAGNITUDE)
        phase = torch.sin(x[:, bins:])
        complex_spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        wav = torch.istft(complex_spectrum, config.fft, config.fft_hop, window=self._window(x))
        return wav.clamp(-config.audio_limit, config.audio_limit)

    def forward(self, mel: Tensor, draws: SourceDraws, cached_source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One vocoder call.

        Args:
            mel: (1, mel, F).
            draws: random numbers of the source.
            cached_source: (1, 1, C) replaces the source's first C samples; C = 0 at the start of an utterance.

        Returns:
            waveform (1, hop·F), the source that drove it (1, 1, hop·F), and F0 in Hz (1, F).
        """
        f0 = self.f0(mel)
        fresh = self.source(f0, draws)
        source = torch.cat([cached_source, fresh[:, :, cached_source.shape[2] :]], dim=2)
        return self.decode(mel, source), source, f0

    def _window(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.config.fft, device=like.device, dtype=like.dtype)
