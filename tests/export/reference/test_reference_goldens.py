"""Golden files written by the reference: names, shapes and dtypes of the given ones, and their numbers too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omni2_export.checkpoint import Checkpoint
from omni2_export.reference.goldens import GoldenPlan, default_plan, write_goldens

from .arrays import Arrays, golden

# Random units, in number too.
FORCED = ("f_tts_inputs_final", "f_tts_logits", "f_tts_tokens", "f_units_string", "f_group_unit_len")


@pytest.fixture(scope="module")
def written(shared: Path, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Arrays]:
    given = {n: golden(shared, f"llm_{n}")["audio16k_i16"] for n in (1, 4)}
    voice = golden(shared, "decoder_units")["prompt_16k"][0]
    plan = GoldenPlan(
        max_text=24,
        last_write=40,
        schedules={"C": (10, 10, 4)},
        encoder_calls=(10, 57, 113),
        estimator_calls=(14, 134, 230),
        vocoder_frames=30,
        noise_frames=600,
    )
    paths = write_goldens(checkpoint, given, voice, tmp_path_factory.mktemp("goldens"), plan)
    return {path.stem: dict(np.load(path)) for path in paths}


def test_files(written: dict[str, Arrays]) -> None:
    assert set(written) == {
        "decoder_units", "stream_C", "offline_C", "llm_1", "llm_4", "llm_multiturn_1_4", "llm_eos_1",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["decoder_units", "stream_C", "offline_C", "llm_1", "llm_4"])
def test_schema_is_that_of_the_given_files(name: str, written: dict[str, Arrays], shared: Path) -> None:
    expected, found = golden(shared, name), written[name]
    assert set(found) - set(expected) == ({"phase", "sine_noise", "source_float64"} if name == "offline_C" else set())
    assert set(expected) <= set(found)
    for key, array in expected.items():
        if array.dtype.kind == "U":
            assert found[key].dtype.kind == "U" and found[key].shape == (), key
            continue
        assert found[key].dtype == array.dtype, key
        lengths = slice(1, None) if key in FORCED else slice(None)
        assert found[key].shape[lengths] == array.shape[lengths] and found[key].ndim == array.ndim, key


@pytest.mark.parametrize("name", ["llm_1", "llm_4"])
def test_numbers_are_those_of_the_given_files(name: str, written: dict[str, Arrays], shared: Path) -> None:
    expected, found = golden(shared, name), written[name]
    for key in set(expected) - set(FORCED):
        if expected[key].dtype == np.float32:
            np.testing.assert_allclose(found[key], expected[key], atol=1e-3, err_msg=key)
        else:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


def test_forced_units_hold_an_early_end(written: dict[str, Arrays], checkpoint: Checkpoint) -> None:
    eos = checkpoint.config.tokens.speech_eos
    lengths, tokens = written["llm_1"]["f_group_unit_len"], written["llm_1"]["f_tts_tokens"]
    assert lengths[1] < checkpoint.config.write < lengths[-1]
    assert np.flatnonzero(tokens == eos).tolist() == [lengths[0] + lengths[1] - 1, lengths.sum() - 1]


def test_text_ends_by_eos(written: dict[str, Arrays], checkpoint: Checkpoint) -> None:
    arrays, read, write = written["llm_eos_1"], checkpoint.config.read, checkpoint.config.write
    text_ids = written["llm_1"]["text_ids"]
    for case, left_over in (("left1", 1), (f"mult{read}", 0)):
        ended = arrays[f"{case}_text_ids"]
        assert ended[-1] == arrays[f"{case}_eos"] and np.array_equal(ended, text_ids[: len(ended)])
        assert len(ended) % read == left_over and arrays[f"{case}_read_len"].sum() == len(ended)
        assert arrays[f"{case}_read_len"][-1] == (left_over or read)
        written_len, context = arrays[f"{case}_write_len"], arrays[f"{case}_ctx_len"]
        assert np.array_equal(context[1:-1], np.cumsum(arrays[f"{case}_read_len"] + written_len)[:-2] + read)
        assert arrays[f"{case}_max_new"].tolist() == [write] * (len(context) - 1) + [1024]
        assert len(arrays[f"{case}_tts_tokens"]) == written_len.sum()


def test_multiturn_prompt_holds_both_utterances(written: dict[str, Arrays], checkpoint: Checkpoint) -> None:
    arrays, positions = written["llm_multiturn_1_4"], checkpoint.config.encoder.positions
    slots = np.flatnonzero(arrays["prompt_ids"] == -200)
    assert len(slots) == 2 and arrays["wavs"].tolist() == [1, 4]
    assert arrays["n_embeds"] == len(arrays["inputs_embeds"]) == len(arrays["prompt_ids"]) + 2 * (positions - 1)
    second = slots[1] + positions - 1
    for start, turn in ((slots[0], "llm_1"), (second, "llm_4")):
        features = arrays["inputs_embeds"][start : start + positions]
        np.testing.assert_array_equal(features, written[turn]["projector_out"])


def test_default_plan_crosses_two_blocks(checkpoint: Checkpoint) -> None:
    flow, plan = checkpoint.config.flow_encoder, default_plan(checkpoint.config)
    assert sum(plan.schedules["A"]) > 2 * flow.block_units + flow.lookahead
    assert max(plan.encoder_calls) > 2 * flow.block_units and max(plan.estimator_calls) > 2 * flow.block_frames
    assert all(sum(s) * flow.ratio <= plan.noise_frames for s in plan.schedules.values())
