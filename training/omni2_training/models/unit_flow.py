"""The flow as it is trained: the reference module, a factorised unit table, one voice."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from omni2_engine.model.config import EstimatorConfig, FlowEncoderConfig
from omni2_export.reference.solver import TorchFlow
from omni2_training.models.fsq import UnitTable
from omni2_training.models.start import initialise

UNGUIDED = 0.2  # share of the rows that see neither μ nor speaker, for classifier-free guidance
ROW = 0.5  # standard deviation of the unit table's rows at the start


class UnitFlow(nn.Module):
    """Units → mel.

    The speaker's affine layer keeps a weight of zero: for any voice asked for, its bias, the learnt voice, speaks.

    Args:
        encoder, estimator: dimensions.
        digits: of a unit.
        scale: what comes out is the mel times this. A small estimator leaves some of the solver's noise, whose size is
            one: the larger the mel, the less of that is heard.
    """

    def __init__(self, encoder: FlowEncoderConfig, estimator: EstimatorConfig, digits: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.flow = initialise(TorchFlow(encoder, estimator))
        self.flow.input_embedding.requires_grad_(False)  # `table` stands in for it
        self.flow.spk_embed_affine_layer.weight.requires_grad_(False).zero_()
        self.table = UnitTable(digits, encoder.width, ROW)
        self.ratio, self.lookahead = encoder.ratio, encoder.lookahead

    def mean(self, units: Tensor) -> Tensor:
        """(B, N) → μ (B, mel, ratio · N)."""
        return self.flow.encoder_proj(self.flow.encoder(self.table(units))).transpose(1, 2)

    def losses(self, units: Tensor, mel: Tensor, partial: bool) -> dict[str, Tensor]:
        """Flow matching, and how far μ itself is from the mel.

        Args:
            units: (B, N).
            mel: (B, mel, ratio · N), what is to come out, unscaled.
            partial: the utterance goes on: the look-ahead's frames are left out, as in a call that is not the last.
        """
        mu, mel = self.mean(units), self.scale * mel
        if partial:
            frames = mu.shape[2] - self.ratio * self.lookahead
            mu, mel = mu[:, :, :frames], mel[:, :, :frames]
        batch = len(mu)
        # More of the early times, where the solver's steps are short.
        t = 1 - torch.cos(torch.rand(batch) * math.pi / 2)
        noise = torch.randn_like(mel)
        position = (1 - t[:, None, None]) * noise + t[:, None, None] * mel
        guided = (torch.rand(batch, 1) >= UNGUIDED).float()
        speaker = self.flow.spk_embed_affine_layer.bias.expand(batch, -1) * guided
        velocity = self.flow.decoder.estimator(position, mu * guided[:, :, None], speaker, torch.zeros_like(mel), t)
        matching = (velocity - (mel - noise)).square().mean() / self.scale**2
        prior = (mu - mel).abs().mean() / self.scale
        return {"loss": matching + prior, "matching": matching, "prior": prior}

    def export(self) -> TorchFlow:
        """The plain module: the table written out."""
        with torch.no_grad():
            self.flow.input_embedding.weight.copy_(self.table.table())
        return self.flow
