"""The flow: units and a speaker vector go in, a mel spectrogram comes out by guided Euler steps (spec §8, §8.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni2_engine.model.config import EstimatorConfig, FlowEncoderConfig
from omni2_export.reference.estimator import Estimator
from omni2_export.reference.flow_encoder import FlowEncoder


class Solver(nn.Module):
    """Euler solver with classifier-free guidance over the estimator."""

    def __init__(self, config: EstimatorConfig, block_frames: int) -> None:
        super().__init__()
        self.config = config
        self.estimator = Estimator(config, block_frames)

    def time_span(self, device: torch.device) -> Tensor:
        """The cosine schedule t_k, (steps + 1,) float32."""
        return 1.0 - torch.cos(torch.linspace(0, 1, self.config.steps + 1, device=device) * 0.5 * torch.pi)

    def forward(self, noise: Tensor, mu: Tensor, speaker: Tensor) -> Tensor:
        """Noise and μ (1, mel, T), speaker (1, mel) → mel (1, mel, T)."""
        span = self.time_span(noise.device)
        x, t, dt = noise, span[0], span[1] - span[0]
        both_mu = torch.cat([mu, torch.zeros_like(mu)])  # row 0 conditional, row 1 unconditional
        both_speaker = torch.cat([speaker, torch.zeros_like(speaker)])
        condition = torch.zeros_like(both_mu)
        guidance = self.config.guidance
        for k in range(1, self.config.steps + 1):
            both = self.estimator(torch.cat([x, x]), both_mu, both_speaker, condition, t.expand(2))
            conditional, unconditional = both.chunk(2)
            x = x + dt * ((1.0 + guidance) * conditional - guidance * unconditional)
            t = t + dt
            if k < self.config.steps:
                dt = span[k + 1] - t
        return x


class TorchFlow(nn.Module):
    """Speech units → mel frames."""

    def __init__(self, encoder: FlowEncoderConfig, estimator: EstimatorConfig) -> None:
        super().__init__()
        self.lookahead_frames = encoder.lookahead * encoder.ratio
        self.input_embedding = nn.Embedding(encoder.units, encoder.width)
        self.spk_embed_affine_layer = nn.Linear(estimator.speaker, estimator.mel)
        self.encoder = FlowEncoder(encoder)
        self.encoder_proj = nn.Linear(encoder.width, encoder.mel)
        self.decoder = Solver(estimator, encoder.block_frames)

    def embed_units(self, units: Tensor) -> Tensor:
        """(1, N) int64 → (1, N, width); negative ids count as unit 0."""
        return self.input_embedding(units.clamp_min(0))

    def speaker(self, embedding: Tensor) -> Tensor:
        """Speaker vector (1, speaker) of any length → (1, mel) (spec §7)."""
        return self.spk_embed_affine_layer(F.normalize(embedding, dim=1))

    def mean(self, units: Tensor) -> Tensor:
        """All units (1, N) → μ (1, mel, ratio·N), look-ahead frames included."""
        return self.encoder_proj(self.encoder(self.embed_units(units))).transpose(1, 2)

    def partial(self, units: Tensor, embedding: Tensor, noise: Tensor) -> Tensor:
        """Mel of units (1, N) which are to be continued: (1, mel, ratio·(N − lookahead)); see `final` for the rest."""
        mu = self.mean(units)
        return self._solve(mu[:, :, : mu.shape[2] - self.lookahead_frames], embedding, noise)

    def final(self, units: Tensor, embedding: Tensor, noise: Tensor) -> Tensor:
        """Mel of an utterance's complete units.

        Args:
            units: (1, N) int64, all units from the utterance's start.
            embedding: (1, speaker) speaker vector.
            noise: (1, mel, ≥ frames) standard normal; frame f always takes column f.

        Returns:
            (1, mel, ratio·N).
        """
        return self._solve(self.mean(units), embedding, noise)

    def _solve(self, mu: Tensor, embedding: Tensor, noise: Tensor) -> Tensor:
        return self.decoder(noise[:, :, : mu.shape[2]], mu, self.speaker(embedding))
