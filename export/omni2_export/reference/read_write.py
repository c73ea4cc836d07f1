"""The read/write loop: prompt embeddings go in, rounds of R text tokens and W speech tokens come out (spec §6).

As in the original the speech language model is prefilled with its whole context again at every write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from omni2_export.reference.fusion import TorchFusion
from omni2_export.reference.qwen2 import Qwen2

LAST_WRITE = 1024  # speech tokens the final write may have at most
SPEECH_TOP_K = 50  # the speech LM's sampling setting in force upstream

Pick = Callable[[Tensor, list[int]], int]
"""Chooses the next id from raw logits (vocab,) and the ids generated so far."""


def greedy(logits: Tensor, generated: list[int]) -> int:
    """The most likely id."""
    return int(logits.argmax())


def penalised(penalty: float) -> Pick:
    """Greedy after the repetition penalty on everything generated so far (spec §1.1)."""

    def pick(logits: Tensor, generated: list[int]) -> int:
        ids = torch.tensor(generated, dtype=torch.long, device=logits.device)
        seen = logits[ids]
        return int(logits.index_copy(0, ids, torch.where(seen < 0, seen * penalty, seen / penalty)).argmax())

    return pick


def sampled(generator: torch.Generator, top_k: int = SPEECH_TOP_K) -> Pick:
    """A draw at temperature 1 from the `top_k` most likely ids; ties at the last place are kept."""

    def pick(logits: Tensor, generated: list[int]) -> int:
        least = logits.topk(min(top_k, logits.shape[0])).values[-1]
        kept = logits.masked_fill(logits < least, float("-inf")).softmax(0)
        return int(torch.multinomial(kept, 1, generator=generator))

    return pick


def forced(ids: Iterable[int]) -> Pick:
    """The given ids in their order; logits are ignored."""
    given = iter(ids)
    return lambda logits, generated: next(given)


@dataclass(frozen=True)
class Rules:
    """What steers the loop."""

    read: int  # R
    write: int  # W
    eos: tuple[int, ...]  # ids that end the text
    sep: int  # `<sep>` of the speech tokenizer
    speech_eos: int
    max_text: int  # text tokens at most; reaching it also ends the text
    last_write: int = LAST_WRITE


@dataclass(frozen=True)
class Round:
    """One read and the write that answers it."""

    text_ids: list[int]
    text_logits: Tensor  # (n, vocab) raw logits the ids were chosen from
    hidden: Tensor  # (n, llm_hidden) after the final norm, h_i paired with text_ids[i]
    fused: Tensor  # (n, speech_hidden)
    context: Tensor  # (C, speech_hidden) the speech LM was prefilled with; ends with `<sep>` in the last round
    speech_ids: list[int]
    speech_logits: Tensor  # (len(speech_ids), speech vocab)
    final: bool


def write(speech_lm: Qwen2, context: Tensor, limit: int, eos: int, pick: Pick) -> tuple[list[int], Tensor]:
    """Generate from input embeddings (1, C, hidden) until `eos` or `limit` ids: the ids and their raw logits."""
    hidden, cache = speech_lm(context)
    ids: list[int] = []
    rows: list[Tensor] = []
    while True:
        rows.append(speech_lm.lm_head(hidden[:, -1])[0])
        ids.append(pick(rows[-1], ids))
        if ids[-1] == eos or len(ids) == limit:
            return ids, torch.stack(rows)
        hidden, cache = speech_lm(embed(speech_lm, ids[-1:]), cache)


def embed(model: Qwen2, ids: list[int]) -> Tensor:
    """Embeddings (1, n, hidden) of ids."""
    return model.embed_tokens(torch.tensor([ids], dtype=torch.long, device=model.embed_tokens.weight.device))


@torch.inference_mode()
def read_write(
    llm: Qwen2, fusion: TorchFusion, speech_lm: Qwen2, prompt: Tensor, rules: Rules, pick_text: Pick, pick_speech: Pick
) -> Iterator[Round]:
    """One turn.

    Args:
        prompt: (1, P, llm_hidden) input embeddings with the speech features in place.
        rules: R, W, ids and limits.
        pick_text, pick_speech: how ids are chosen.

    Yields:
        Every round as soon as its write is done; the last one is `final`.
    """
    context = embed(speech_lm, [])
    generated: list[int] = []
    hidden_rows: list[Tensor] = []
    logit_rows: list[Tensor] = []
    hidden, cache = llm(prompt)
    while True:
        hidden_rows.append(hidden[0, -1])
        logit_rows.append(llm.lm_head(hidden[0, -1]))
        generated.append(pick_text(logit_rows[-1], generated))
        final = generated[-1] in rules.eos or len(generated) == rules.max_text
        if final or len(hidden_rows) == rules.read:
            text_ids = generated[-len(hidden_rows) :]
            states = torch.stack(hidden_rows)
            fused = fusion(states, embed(speech_lm, text_ids)[0])
            context = torch.cat([context, fused[None]], dim=1)
            if final:
                context = torch.cat([context, embed(speech_lm, [rules.sep])], dim=1)
            limit = rules.last_write if final else rules.write
            ids, logits = write(speech_lm, context, limit, rules.speech_eos, pick_speech)
            yield Round(text_ids, torch.stack(logit_rows), states, fused, context[0], ids, logits, final)
            if final:
                return
            context = torch.cat([context, embed(speech_lm, ids)], dim=1)
            hidden_rows, logit_rows = [], []
        hidden, cache = llm(embed(llm, generated[-1:]), cache)
