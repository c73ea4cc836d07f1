"""Random weights of the speech encoder and both language models, of sane scale, whose text and speech come to an end.

Everything is Gaussian noise but for three components of the residual stream, which nothing else writes to: IN is set
by certain token embeddings, the first head of layer 0 copies it to OUT of later positions, and CONST is the same
everywhere. The text's end token reads from OUT how much of the context is words; the speech LM's whether `<sep>` went
by; and both less something constant from CONST. Tokens that should never be written have short rows in the head.
Embeddings, marks and layer 0's attention are all small, so that layer 0's MLP still sees which token came last, and a
tied head does not repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from omni2_bench.random_checkpoint.draw import Floats, Rule, chain, set_rows
from omni2_bench.random_checkpoint.vocabulary import whole_words
from omni2_engine.model.config import DecoderConfig
from omni2_export.checkpoint.whisper import positional_table
from omni2_export.checkpoint_writer.dimensions import Dimensions
from omni2_export.checkpoint_writer.tokenizer import SPECIALS, Vocabulary

IN, OUT, CONST = 0, 1, 2  # components of the residual stream
MARKS = slice(0, 3)
EMBEDDING = 0.02  # scale of embeddings: small against what the MLPs write
PEAKED = 1.5  # scale of queries and keys: attention that prefers some positions
WORD_MARK = 2.0  # IN of a word, in scales of an embedding
PROMPT_TOKENS = 60  # of the chat template around the speech, about
SHORT = 0.1  # length of forbidden tokens' rows: never among the highest
NEVER = 6.0  # standard deviations of a logit that the speech end token lies low before `<sep>`
SHARPNESS = 14.0  # attention score of `<sep>` above all others
GATED = 0.6  # RMS of silu(g)·u for normal g and u
LEVEL = EMBEDDING / 2  # of OUT and CONST, in square roots of the width
LOGIT_SCALE = 1.5  # standard deviation of the speech LM's unit logits
KEPT = 50  # top-k in force, spec §6


@dataclass(frozen=True)
class Marks:
    """How one decoder uses its three components.

    Args:
        marked: ids whose embedding has IN.
        mark: its value there.
        sharpness: attention score of a marked position above others; 0 spreads attention evenly.
        value: what the head makes of a marked position's IN after the first norm, per unit.
        gain: OUT per unit of the head's output.
        allowed: ids that may be written.
        end: the end token.
        head: scale of the output head.
        end_out, end_const: the end token's row of the head.
    """

    marked: list[int]
    mark: float
    sharpness: float
    value: float
    gain: float
    allowed: list[int]
    end: int
    head: float
    end_out: float
    end_const: float


def text_marks(d: Dimensions, vocabulary: Vocabulary) -> Marks:
    """The language model's: the end token wins once words have the share of the context that `text_tokens` make."""
    words, width = whole_words(vocabulary), d.llm.hidden
    head = EMBEDDING if d.tie_llm else 1 / math.sqrt(width)
    share = d.text_tokens / (d.encoder.positions + PROMPT_TOKENS + d.text_tokens)
    highest = NormalDist().inv_cdf(1 - 0.5 / (len(words) + 1))  # about the highest of as many normal logits
    return Marks(
        marked=words,
        mark=WORD_MARK * EMBEDDING,
        sharpness=0.0,
        value=1.0,
        gain=LEVEL * math.sqrt(width) / (WORD_MARK * share),
        allowed=words,
        end=vocabulary.id(SPECIALS[2]),
        head=head,
        end_out=2 * highest * head / LEVEL,  # from one below none to one of the highest at `share`
        end_const=-highest * head / LEVEL,
    )


def speech_marks(d: Dimensions, vocabulary: Vocabulary) -> Marks:
    """The speech LM's: units alone until `<sep>`, and after it an end that takes about `last_units` to be drawn."""
    width, units, sep = d.speech_lm.hidden, d.flow_encoder.units, vocabulary.size
    head = EMBEDDING if d.tie_speech else LOGIT_SCALE / math.sqrt(width)
    deviation = head * math.sqrt(width)  # of a unit's logit
    ranks = (np.arange(min(KEPT, units)) + 0.5) / units
    kept = [math.exp(deviation * NormalDist().inv_cdf(1 - rank)) for rank in ranks]
    end_logit = math.log(sum(kept) / d.last_units)
    return Marks(
        marked=[sep],
        mark=EMBEDDING * math.sqrt(width),  # half the row's energy: √(width / 2) after the norm
        sharpness=SHARPNESS,
        value=math.sqrt(2 / width),
        gain=LEVEL * math.sqrt(width),
        allowed=list(range(sep + 1, sep + 1 + units)),
        end=vocabulary.id(SPECIALS[2]),
        head=head,
        end_out=(NEVER * head + end_logit / math.sqrt(width)) / LEVEL,
        end_const=-NEVER * head / LEVEL,
    )


def decoder_rule(name: str, c: DecoderConfig, marks: Marks, tied: bool) -> Rule:
    """A Qwen2 decoder's tensor, named as in `Checkpoint.modules`."""
    branch = 1 / math.sqrt(2 * c.layers)  # all layers together write as much as one of scale 1
    first = name.startswith("layers.0.self_attn.")
    clear = _cleared(first, c, marks)
    match name.split(".")[-2:]:
        case ["embed_tokens", _]:
            return Rule(EMBEDDING, edit=chain(_embedding(marks), _head(marks)) if tied else _embedding(marks))
        case ["lm_head", _]:
            return Rule(marks.head, edit=chain(_unmarked, _head(marks)))
        case ["q_proj" | "k_proj" | "v_proj" as part, kind]:
            scale = 0.1 if kind == "bias" else (1.0 if part == "v_proj" else PEAKED) / math.sqrt(c.hidden)
            return Rule(scale, edit=_first_head(part, kind, c, marks) if first else None)
        case ["o_proj", _]:
            scale = EMBEDDING if first else branch
            return Rule(scale / math.sqrt(c.heads * c.head_dim), edit=clear)
        case ["down_proj", _]:
            return Rule(branch / (GATED * math.sqrt(c.ffn)), edit=clear)
        case ["gate_proj" | "up_proj", _]:
            return Rule(1 / math.sqrt(c.hidden))
    return Rule(shift=1.0)  # norms


def _unmarked(rows: Floats, start: int) -> None:
    rows[:, MARKS] = 0


def _embedding(marks: Marks) -> Callable[[Floats, int], None]:
    marked = np.asarray(marks.marked)

    def edit(rows: Floats, start: int) -> None:
        _unmarked(rows, start)
        here = marked[(marked >= start) & (marked < start + len(rows))] - start
        rows[here, IN] = marks.mark

    return edit


def _head(marks: Marks) -> Callable[[Floats, int], None]:
    allowed = np.asarray(marks.allowed)

    def edit(rows: Floats, start: int) -> None:
        forbidden = np.ones(len(rows), bool)
        forbidden[allowed[(allowed >= start) & (allowed < start + len(rows))] - start] = False
        rows[forbidden] *= SHORT
        if start <= marks.end < start + len(rows):
            rows[marks.end - start] = 0
            rows[marks.end - start, [OUT, CONST]] = marks.end_out, marks.end_const

    return edit


def _first_head(part: str, kind: str, c: DecoderConfig, marks: Marks) -> Callable[[Floats, int], None]:
    """Layer 0's first head: its value 0 is IN, its value 1 is one; it attends evenly, or to marked positions.

    The score sits in the pair of components that rotary positions turn slowest, so that distance hardly matters.
    """
    slowest = c.head_dim // 2 - 1

    def edit(rows: Floats, start: int) -> None:
        own = rows[: max(c.head_dim - start, 0)]
        if part != "v_proj":
            own[...] = 0
        if part == "q_proj" and kind == "bias":
            own[slowest] = 1.0
        if part == "k_proj" and kind == "weight" and slowest >= start and len(own) > slowest - start:
            own[slowest - start, IN] = marks.sharpness * math.sqrt(c.head_dim) * marks.value
        if part == "v_proj" and start == 0:
            own[:2] = 0
            if kind == "weight":
                own[0, IN] = marks.value
            else:
                own[1] = 1.0

    return edit


def _cleared(first: bool, c: DecoderConfig, marks: Marks) -> Callable[[Floats, int], None]:
    """Only layer 0's first head writes to the marks."""

    def change(column: int, value: float) -> Callable[[Floats], None]:
        def set_row(row: Floats) -> None:
            row[...] = 0
            if first:
                row[column] = value

        return set_row

    def clear(row: Floats) -> None:
        row[...] = 0

    return set_rows((IN, clear), (OUT, change(0, marks.gain)), (CONST, change(1, LEVEL * math.sqrt(c.hidden))))


def fusion_rule(name: str, d: Dimensions) -> Rule:
    """Gate fusion's tensor: vectors of an embedding's size, with nothing in IN."""
    c = d.fusion
    if name.endswith("bias"):
        return Rule()
    if name == "input_proj.0.weight":
        return Rule(math.sqrt(2 / c.llm_hidden))
    if name == "input_proj.2.weight":
        return Rule(EMBEDDING / math.sqrt(c.hidden), edit=set_rows((IN, _zero)))
    return Rule(1 / (EMBEDDING * math.sqrt(2 * c.speech_hidden)))


def _zero(row: Floats) -> None:
    row[...] = 0


def encoder_rule(name: str, shape: tuple[int, ...], d: Dimensions) -> Rule:
    """Whisper encoder's or projector's tensor; features of an embedding's size, with nothing in IN."""
    c = d.encoder
    inputs = math.prod(shape[1:])
    if name == "positional_embedding":
        table = positional_table(c.context, c.width)

        def fill(rows: Floats, start: int) -> None:
            rows[...] = table[start : start + len(rows)]

        return Rule(edit=fill)
    if name == "projector.linear2.weight":
        return Rule(EMBEDDING / math.sqrt(c.projector_hidden), edit=set_rows((IN, _zero)))
    if name.endswith(("ln.weight", "ln_post.weight")):
        return Rule(shift=1.0)
    if name.endswith("bias"):
        return Rule()
    gain = math.sqrt(2)  # conv and linear1: a non-linearity follows
    if ".attn." in name:
        gain = PEAKED if name.endswith(("query.weight", "key.weight")) else 1.0
    if name.endswith(("attn.out.weight", "mlp.2.weight")):
        gain = 1 / math.sqrt(2 * c.layers)
    return Rule(gain / math.sqrt(inputs))
