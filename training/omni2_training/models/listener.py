"""The language model with its projector, as they are trained: answers from what the encoder heard, or from text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni2_engine.model.config import DecoderConfig, EncoderConfig
from omni2_export.reference.qwen2 import Qwen2
from omni2_export.reference.whisper import Projector
from omni2_training.models.start import EMBEDDING, initialise

IGNORED = -100


@dataclass(frozen=True)
class Script:
    """A conversation as ids: `before` each slot, and what follows it with the answer.

    Args:
        before: ids in front of each utterance's slot, per turn.
        after: ids between slot and answer.
        answers: ids of every answer, the end included.
    """

    before: list[list[int]]
    after: list[int]
    answers: list[list[int]]


class Listener(nn.Module):
    """Projector and language model.

    Args:
        config: of the language model; its head is its embedding.
        encoder: of the frozen encoder before it, which is not part of this module.
        dropout: in training, of what the encoder heard, and of what goes into the decoder and comes out of it.
    """

    def __init__(self, config: DecoderConfig, encoder: EncoderConfig, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projector = Projector(encoder.model_copy(update={"stack": 1, "width": encoder.stack * encoder.width}))
        self.model = initialise(Qwen2(config))
        self.model.lm_head.weight = self.model.embed_tokens.weight
        self.blank = nn.Parameter(torch.randn(config.hidden) * EMBEDDING)  # of a moment without a word; training only
        self.spelling = nn.Linear(config.hidden, config.vocab + 1)  # for the transcript; training only

    def heard(self, features: Tensor) -> Tensor:
        """(B, positions, stack · width) of the encoder → (B, positions, hidden)."""
        return self.projector(self.dropout(features))

    def read(self, questions: list[list[int]]) -> Tensor:
        """Stand-ins for spoken questions, (B, length, hidden): a word here and there, and blanks between.

        They are as long as the batch needs and not a whole window, which would cost three times as much.
        """
        row, position = [], []
        for number, ids in enumerate(questions):
            places = torch.randint(1, 4, (len(ids),)).cumsum(0) + torch.randint(0, 6, ()) - 1
            row += [number] * len(ids)
            position += places.tolist()
        length = max(position, default=0) + int(torch.randint(1, 8, ()))
        rows = self.blank.expand(len(questions), length, -1).clone()
        if row:
            rows[row, position] = self._embed([i for ids in questions for i in ids])
        return rows + torch.randn_like(rows) * (EMBEDDING / 4)

    def typed(self, question: list[int]) -> Tensor:
        """A typed question, (n, hidden): its ids' embeddings, as the chat template puts them."""
        return self._embed(question)

    def conversation(self, scripts: list[Script], slots: Sequence[Sequence[Tensor] | Tensor]) -> tuple[Tensor, Tensor]:
        """Input embeddings (B, T, hidden) and targets (B, T), `IGNORED` where nothing is to be answered.

        Args:
            scripts: with the same number of turns each.
            slots: for every turn, and every conversation, (positions, hidden).
        """
        rows, targets = [], []
        for b, script in enumerate(scripts):
            parts: list[Tensor] = []
            wanted: list[int] = []
            for before, slot, answer in zip(script.before, slots, script.answers, strict=True):
                parts += [self._embed(before), slot[b], self._embed(script.after), self._embed(answer)]
                silent = len(before) + len(slot[b]) + len(script.after) - 1
                wanted += [*[IGNORED] * silent, *answer, IGNORED]
            rows.append(torch.cat(parts))
            targets.append(torch.tensor(wanted))
        longest = max(len(row) for row in rows)
        embeds = torch.stack([F.pad(row, (0, 0, 0, longest - len(row))) for row in rows])
        return embeds, torch.stack([F.pad(row, (0, longest - len(row)), value=IGNORED) for row in targets])

    def hidden(self, embeds: Tensor) -> Tensor:
        """(B, T, hidden) after the final norm."""
        return self.model(self.dropout(embeds))[0]

    def answer_losses(self, embeds: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the answers, and the share of conversations in which every word is the likeliest."""
        at = targets != IGNORED
        logits = self.model.lm_head(self.dropout(self.hidden(embeds)[at]))
        right = torch.ones(targets.shape, dtype=torch.bool)
        right[at] = logits.argmax(-1) == targets[at]
        return {"answer": F.cross_entropy(logits, targets[at]), "exact": right.all(1).float().mean()}

    def transcript_loss(self, heard: Tensor, questions: list[list[int]]) -> Tensor:
        """CTC of the question's words over the projected positions: it aligns what is heard with words early on."""
        blank = self.spelling.out_features - 1
        scores = self.spelling(heard).log_softmax(-1).transpose(0, 1)
        targets = torch.tensor([i for ids in questions for i in ids], dtype=torch.long)
        lengths = torch.tensor([len(ids) for ids in questions])
        positions = torch.full((len(questions),), heard.shape[1])
        return F.ctc_loss(scores, targets, positions, lengths, blank=blank, zero_infinity=True)

    def _embed(self, ids: list[int]) -> Tensor:
        return self.model.embed_tokens.weight[torch.tensor(ids, dtype=torch.long)]
