"""Discriminators over spectrograms of several resolutions, and the game they play with a vocoder (LSGAN)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from omni2_engine.model.config import Frozen
from omni2_training.mel import magnitude

RESOLUTIONS = ((256, 64), (512, 128), (1024, 256))  # window and hop, samples
QUIETEST = 1e-3
SLOPE = 0.1


class CriticConfig(Frozen):
    """Size and share of the adversary."""

    channels: int = Field(gt=0)
    rate: float = Field(gt=0, description="its learning rate")
    weight: float = Field(ge=0, description="of what it says in the vocoder's loss")
    matching: float = Field(ge=0, description="of how far apart its inner results are for made and true sound")


class Critic(nn.Module):
    """One resolution: log-magnitudes through strided 2-D convolutions to a map of opinions."""

    def __init__(self, window: int, hop: int, channels: int) -> None:
        super().__init__()
        self.window, self.hop = window, hop
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(1, channels, (7, 3), (3, 1), (3, 1)),
                nn.Conv2d(channels, channels, (7, 3), (3, 1), (3, 1)),
                nn.Conv2d(channels, 2 * channels, (5, 3), (2, 2), (2, 1)),
                nn.Conv2d(2 * channels, 2 * channels, 3, 1, 1),
            ]
        )
        self.opinion = nn.Conv2d(2 * channels, 1, 3, padding=1)

    def forward(self, wave: Tensor) -> list[Tensor]:
        """(B, n) samples → inner results, the last of which are the opinions: 1 is true, 0 is made."""
        x = magnitude(wave, self.window, self.hop).clamp_min(QUIETEST).log()[:, None]
        results = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            results.append(x)
        return [*results, self.opinion(x)]


class Adversary:
    """All critics with their optimiser; its state is saved beside the vocoder's."""

    def __init__(self, config: CriticConfig) -> None:
        self.config = config
        self.critics = nn.ModuleList(Critic(window, hop, config.channels) for window, hop in RESOLUTIONS)
        self._optimiser = torch.optim.AdamW(self.critics.parameters(), lr=config.rate, betas=(0.8, 0.99))

    def learn(self, made: Tensor, true: Tensor) -> Tensor:
        """One step of the critics on (B, n) samples each; their loss."""
        losses = []
        for critic in self.critics:
            losses.append((critic(true)[-1] - 1).square().mean() + critic(made.detach())[-1].square().mean())
        loss = torch.stack(losses).mean()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        return loss.detach()

    def judge(self, made: Tensor, true: Tensor) -> dict[str, Tensor]:
        """Losses of the vocoder: how well it deceives, and how far inner results are apart."""
        self.critics.requires_grad_(False)
        deceit, matching = [], []
        for critic in self.critics:
            with torch.no_grad():
                expected = critic(true)
            found = critic(made)
            deceit.append((found[-1] - 1).square().mean())
            matching += [(a - b).abs().mean() for a, b in zip(found[:-1], expected[:-1], strict=True)]
        self.critics.requires_grad_(True)
        return {"deceit": torch.stack(deceit).mean(), "matching": torch.stack(matching).mean()}

    def state_dict(self) -> dict[str, Any]:
        """Everything to go on with."""
        return {"critics": self.critics.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        self.critics.load_state_dict(state["critics"])
        self._optimiser.load_state_dict(state["optimiser"])
