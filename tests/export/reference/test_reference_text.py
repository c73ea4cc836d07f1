"""Front-end, encoder, language models and the read/write loop of the torch reference against the original's arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from omni2_export.reference.build import Reference
from omni2_export.reference.frontend import log_mel
from omni2_export.reference.prompt import mark_speech, prompt_embeds
from omni2_export.reference.read_write import Pick, Round, Rules, forced, greedy, penalised, read_write, sampled

from .arrays import Arrays, error, golden, relative


@pytest.fixture(params=["llm_1", "llm_4"])
def turn(request: pytest.FixtureRequest, shared: Path) -> Arrays:
    return golden(shared, request.param)


def test_log_mel(turn: Arrays, reference: Reference) -> None:
    audio = torch.from_numpy(turn["audio16k_i16"].astype(np.float32) / 32768)
    assert error(log_mel(audio, reference.config.encoder), turn["log_mel"]) <= 1e-4


def test_encoder_and_projector(turn: Arrays, reference: Reference) -> None:
    encoded = reference.encoder.encode(torch.from_numpy(turn["log_mel"])[None])
    assert relative(encoded[0], turn["encoder_out"]) <= 1e-4
    assert relative(reference.encoder.projector(encoded)[0], turn["projector_out"]) <= 1e-4


def test_prompt(turn: Arrays, reference: Reference) -> None:
    ids = mark_speech(turn["prompt_ids_raw"].tolist(), reference.config.tokens.speech)
    assert ids == turn["prompt_ids"].tolist()
    features = [torch.from_numpy(turn["projector_out"])]
    assert error(prompt_embeds(reference.llm, ids, features, None)[0], turn["inputs_embeds"]) == 0
    assert error(prompt_embeds(reference.llm, ids, features, 100)[0], turn["inputs_embeds"][:100]) == 0


def test_prefill(turn: Arrays, reference: Reference) -> None:
    hidden, _ = reference.llm(torch.from_numpy(turn["inputs_embeds"])[None])
    assert relative(hidden[0, -1], turn["prefill_last_hidden"]) <= 1e-4
    assert error(reference.llm.lm_head(hidden[0, -1]), turn["prefill_last_logits"]) <= 1e-3


def rounds_of(reference: Reference, turn: Arrays, prefix: str, pick_text: Pick, pick_speech: Pick) -> list[Round]:
    config, tokens = reference.config, reference.config.tokens
    rules = Rules(
        read=config.read,
        write=config.write,
        eos=tokens.eos,
        sep=tokens.sep,
        speech_eos=tokens.speech_eos,
        max_text=len(turn["text_ids"]),
        last_write=int(turn[f"{prefix}_group_unit_len"][-1]),
    )
    prompt = torch.from_numpy(turn["inputs_embeds"])[None]
    return list(read_write(reference.llm, reference.fusion, reference.speech_lm, prompt, rules, pick_text, pick_speech))


def check_ids(rounds: list[Round], turn: Arrays, prefix: str) -> None:
    assert [i for r in rounds for i in r.text_ids] == turn[f"{prefix}_text_ids"].tolist()
    assert [i for r in rounds for i in r.speech_ids] == turn[f"{prefix}_tts_tokens"].tolist()
    assert [len(r.text_ids) for r in rounds] == turn[f"{prefix}_group_text_len"].tolist()
    assert [len(r.speech_ids) for r in rounds] == turn[f"{prefix}_group_unit_len"].tolist()
    assert [r.final for r in rounds] == [False] * (len(rounds) - 1) + [True]


def test_forced_loop(turn: Arrays, reference: Reference) -> None:
    penalty = reference.config.tokens.repetition_penalty
    rounds = rounds_of(reference, turn, "f", penalised(penalty), forced(turn["f_tts_tokens"].tolist()))
    check_ids(rounds, turn, "f")
    hidden = torch.cat([r.hidden for r in rounds])
    assert error(torch.cat([r.text_logits for r in rounds]), turn["llm_logits"]) <= 1e-3
    assert relative(hidden, turn["tts_hidden"]) <= 1e-4
    assert relative(reference.fusion.input_proj(hidden), turn["input_proj_out"]) <= 1e-4
    assert relative(torch.cat([r.fused for r in rounds]), turn["fused"]) <= 1e-4
    assert relative(rounds[-1].context, turn["f_tts_inputs_final"]) <= 1e-4
    assert error(torch.cat([r.speech_logits for r in rounds]), turn["f_tts_logits"]) <= 1e-3


@pytest.mark.parametrize("prefix", ["g", "rp1"])
def test_greedy_loop(turn: Arrays, reference: Reference, prefix: str) -> None:
    penalty = {"g": reference.config.tokens.repetition_penalty, "rp1": 1.0}[prefix]
    rounds = rounds_of(reference, turn, prefix, penalised(penalty), greedy)
    check_ids(rounds, turn, prefix)
    if prefix == "g":
        top = torch.cat([r.speech_logits for r in rounds]).topk(8)
        assert np.array_equal(top.indices.numpy(), turn["g_top8_ids"])
        assert error(top.values, turn["g_top8_vals"]) <= 1e-3


def test_penalty_counts_each_id_once_and_keeps_the_logits() -> None:
    logits = torch.tensor([2.0, 1.9, -1.0, -1.05])
    assert penalised(1.1)(logits, [0, 0]) == 1
    assert penalised(1.04)(logits, [0, 0]) == 0
    assert penalised(1.1)(logits[2:], [0]) == 1
    assert logits.tolist() == pytest.approx([2.0, 1.9, -1.0, -1.05])


def test_sampling_keeps_ties_at_the_last_place() -> None:
    logits = torch.tensor([1.0, 0.0, 0.0, -5.0])
    pick = sampled(torch.Generator().manual_seed(0), top_k=2)
    assert {pick(logits, []) for _ in range(200)} == {0, 1, 2}
