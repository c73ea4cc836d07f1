"""The speech language model as it is trained: rounds of R text tokens and W units in one causal sequence (spec §6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from omni2_engine.model.config import DecoderConfig, FusionConfig
from omni2_export.reference.fusion import TorchFusion
from omni2_export.reference.qwen2 import Qwen2
from omni2_training.models.fsq import UnitTable
from omni2_training.models.start import EMBEDDING, initialise

IGNORED = -100  # target of a position that predicts nothing
EMBEDDED_FIRST = -3.0  # bias of the gate at the start: the token's embedding, hardly the hidden state


@dataclass(frozen=True)
class Layout:
    """One answer as the speech language model reads and writes it, position by position.

    Args:
        text: (T,) int64 index into the answer's text ids, −1 where the position is no text.
        units: (T,) int64 unit that is fed, −1 where none is; `SEP` stands for `<sep>`.
        targets: (T,) int64 unit to be predicted here, `IGNORED`, or the number of units for the end of speech.
    """

    text: NDArray[np.int64]
    units: NDArray[np.int64]
    targets: NDArray[np.int64]


SEP = -2


def layout(tokens: int, units: NDArray[np.int16], read: int, write: int, every: int) -> Layout:
    """Lay out an answer of `tokens` text ids (the end included) and its units.

    Args:
        read, write: R and W.
        every: how many different units there are; the id of the end of speech among the targets.
    """
    text: list[int] = []
    fed: list[int] = []
    targets: list[int] = []
    spoken = 0

    def put(index: int, unit: int) -> None:
        text.append(index)
        fed.append(unit)
        targets.append(IGNORED)

    for start in range(0, tokens, read):
        stop = min(start + read, tokens)
        final = stop == tokens
        for index in range(start, stop):
            put(index, -1)
        if final:
            put(-1, SEP)
        count = len(units) - spoken if final else min(write, len(units) - spoken)
        for unit in units[spoken : spoken + count]:
            targets[-1] = int(unit)
            put(-1, int(unit))
        spoken += count
        # Speech that ends before its text does ends there: the original keeps such an early end in the context too.
        if final:
            targets[-1] = every
    return Layout(np.array(text), np.array(fed), np.array(targets))


class SpeechLM(nn.Module):
    """Speech language model and fusion.

    Units have factorised tables for input and output. All text tokens share one row of the head: they are never to be
    written, so there is nothing to tell them apart by.

    Args:
        config: its dimensions; `vocab` counts text ids, `<sep>` and units.
        fusion: of the fusion.
        digits: of a unit.
        text_size: ids of the text tokenizer.
        end: the id that ends speech, one of the text tokenizer's.
        dropout: in training, of what goes into the decoder and comes out of it.
    """

    def __init__(
        self, config: DecoderConfig, fusion: FusionConfig, digits: int, text_size: int, end: int, dropout: float
    ) -> None:
        super().__init__()
        self.text_size, self.end, self.every = text_size, end, 3**digits
        self.dropout = nn.Dropout(dropout)
        self.model = initialise(Qwen2(config))
        self.fusion = TorchFusion(fusion)
        nn.init.constant_(self.fusion.gate[0].bias, EMBEDDED_FIRST)
        self.text = nn.Parameter(torch.randn(text_size + 1, config.hidden) * EMBEDDING)  # the last row is `<sep>`
        self.heard = UnitTable(digits, config.hidden, EMBEDDING)
        self.spoken = UnitTable(digits, config.hidden, EMBEDDING)
        self.stop = nn.Parameter(torch.randn(config.hidden) * EMBEDDING)
        self.silent = nn.Parameter(torch.zeros(config.hidden))

        self.freeze_plain_tables()

    def freeze_plain_tables(self) -> None:
        """Leave embedding and head of the plain module out of training: factorised tables stand in for them."""
        self.model.embed_tokens.requires_grad_(False)
        self.model.lm_head.requires_grad_(False)

    def misheard(self, units: Tensor, share: float) -> Tensor:
        """Units as fed, a share of them exchanged for others, as those the model has drawn itself will be."""
        wrong = (torch.rand(units.shape) < share) & (units >= 0)
        return torch.where(wrong, torch.randint(0, self.every, units.shape), units)

    def inputs(self, ids: Tensor, hidden: Tensor, text: Tensor, units: Tensor) -> Tensor:
        """Input embeddings (B, T, D).

        Args:
            ids: (B, n) text ids.
            hidden: (B, n, H) the language model's hidden states that go with them.
            text, units: (B, T) of the layouts.
        """
        fused = self.fusion(hidden, self.text[ids])
        table = torch.cat([self.heard.table(), self.text[-1:], torch.zeros_like(self.text[:1])])
        rows = torch.where(units == SEP, self.every, torch.where(units < 0, self.every + 1, units))
        picked = fused.gather(1, text.clamp_min(0)[..., None].expand(-1, -1, fused.shape[-1]))
        return table[rows] + torch.where(text[..., None] >= 0, picked, 0.0)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, units + 2): units, the end of speech, and all text tokens together."""
        table = torch.cat([self.spoken.table(), self.stop[None], self.silent[None]])
        logits = hidden @ table.T
        together = torch.zeros(len(table))
        together[-1] = math.log(self.text_size)
        return logits + together

    def losses(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the next unit, and how often the likeliest is right."""
        hidden, _ = self.model(self.dropout(inputs))
        at = targets != IGNORED
        logits = self.logits(self.dropout(hidden[at]))
        loss = F.cross_entropy(logits, targets[at])
        return {"loss": loss, "right": (logits.argmax(-1) == targets[at]).float().mean()}

    def export(self, sharpness: float) -> tuple[Qwen2, TorchFusion]:
        """The plain modules: tables written out, logits multiplied by `sharpness` (one over a temperature)."""
        with torch.no_grad():
            embed, head = self.model.embed_tokens.weight, self.model.lm_head.weight
            first = self.text_size + 1
            embed.zero_()
            embed[:first] = self.text
            embed[first : first + self.every] = self.heard.table()
            head[:] = self.silent * sharpness
            head[first : first + self.every] = self.spoken.table() * sharpness
            head[self.end] = self.stop * sharpness
        return self.model, self.fusion
