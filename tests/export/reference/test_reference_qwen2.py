"""The reference Qwen2 against that of transformers on random weights, and cached decoding against the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from omni2_engine.model.config import DecoderConfig
from omni2_export.reference.qwen2 import Qwen2


def pair(config: DecoderConfig) -> tuple[Qwen2, Qwen2ForCausalLM]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    theirs = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=config.vocab,
            hidden_size=config.hidden,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.ffn,
            rms_norm_eps=config.rms_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=False,
            initializer_range=0.2,
        )
    ).eval()
    for name, weight in theirs.named_parameters():
        if name.endswith(("bias", "norm.weight")):  # zeros and ones would hide a missing term
            torch.nn.init.normal_(weight, mean=float("norm" in name), std=0.3)
    ours = Qwen2(config)
    ours.load_state_dict({name.removeprefix("model."): weight for name, weight in theirs.state_dict().items()})
    return ours.eval(), theirs


CONFIGS = [
    DecoderConfig(
        vocab=97, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=48, rms_eps=1e-6, rope_theta=1e6,
        max_positions=128,
    ),
    DecoderConfig(
        vocab=61, hidden=24, layers=3, heads=6, kv_heads=1, head_dim=16, ffn=40, rms_eps=1e-5, rope_theta=1e4,
        max_positions=128,
    ),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
@torch.inference_mode()
def test_logits_and_hidden_equal_transformers(config: DecoderConfig) -> None:
    ours, theirs = pair(config)
    ids = torch.randint(config.vocab, (2, 19))
    expected = theirs(input_ids=ids, output_hidden_states=True)
    hidden, _ = ours(ours.embed_tokens(ids))
    torch.testing.assert_close(hidden, expected.hidden_states[-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.lm_head(hidden), expected.logits, atol=1e-4, rtol=1e-5)


MODEL = pair(CONFIGS[0])[0]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 2**31))
@torch.inference_mode()
def test_any_cut_of_the_sequence_gives_the_same_hidden_states(cuts: list[int], seed: int) -> None:
    embeds = torch.randn(1, sum(cuts), MODEL.config.hidden, generator=torch.Generator().manual_seed(seed))
    whole, _ = MODEL(embeds)
    cache, parts = None, []
    for piece in embeds.split(cuts, dim=1):
        part, cache = MODEL(piece, cache)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
