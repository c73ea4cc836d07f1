"""The list of plans: what each consists of follows from the model, and a target's number formats are kept to."""

from __future__ import annotations

import pytest

from omni2_bench.lab.random_weights import RandomTensors, random_modules
from omni2_bench.random_checkpoint import PRESETS
from omni2_engine.errors import SettingError
from omni2_export.build.precision import GPU, parse_precision
from omni2_export.graphs.linear import Precision
from omni2_export.tensorrt.plans import PlanSpec, check_formats, plan_specs
from omni2_export.tensorrt.shapes import Sizes


def specs(size: str, precision: str = "balanced", encoder: str | None = None) -> dict[str, PlanSpec]:
    config, modules = random_modules(PRESETS[size])
    formats = parse_precision(precision, GPU).loaded_with(encoder)
    return {spec.stage: spec for spec in plan_specs(config, modules, formats, Sizes())}


@pytest.mark.parametrize(("size", "layers"), [("tiny", 3), ("0.5B", 24), ("7B", 28), ("32B", 64)])
def test_layers_are_the_models(size: str, layers: int) -> None:
    plans = specs(size)
    assert plans["llm"].expected.attentions == plans["llm"].expected.caches == layers
    assert plans["speech_lm"].expected.caches == plans["speech_lm"].expected.attentions > 0
    estimator = PRESETS[size].estimator
    assert plans["flow_step"].expected.attentions == estimator.transformers * (estimator.mid_blocks + 2)
    assert [stage for stage, spec in plans.items() if not spec.expected.masked] == ["encoder"]


def test_an_encoder_with_tails_is_a_plan_where_it_is_asked_for() -> None:
    """It takes what a device computes, and of the whole window one position of a tail."""
    window, plans = specs("0.5B", "fp8"), specs("0.5B", "fp8", "tail")
    assert set(plans) - set(window) == {"encoder_tail"} == set(specs("tiny", "live")) - set(specs("tiny", "fast"))
    tail, encoder = plans["encoder_tail"], plans["encoder"]
    assert (tail.precision, tail.storage, tail.size) == (encoder.precision, encoder.storage, encoder.size)
    assert tail.expected.attentions == 32 and tail.expected.by_products and not tail.expected.masked
    assert tail.space.ranges == {"frames": (12, 602, 3002), "kept": (1, 1200, 1495)}


def test_sizes_follow_the_format() -> None:
    plain, half, packed = (specs("7B", precision)["llm"] for precision in ("exact", "balanced", "fast"))
    assert plain.size == pytest.approx(2 * half.size) and 4e9 > packed.size > 3e9
    assert (plain.expected.compute, half.expected.compute, packed.precision) == ("FLOAT", "BF16", "bf16+int4")
    assert 14e9 < half.size < 16e9
    tiny = specs("tiny", "fast,llm=int8")["llm"]
    assert tiny.precision == "bf16+int8" and tiny.numerics.device and not tiny.numerics.doubles


def test_what_is_not_quantised_says_so() -> None:
    fast = specs("0.5B", "fast")
    assert fast["fusion"].precision == "bf16" and fast["flow_encoder"].precision == "fp16"
    assert fast["log_mel"].precision == "fp32"


@pytest.mark.parametrize(
    ("precision", "target", "stage"),
    [
        ("balanced", "sm75", "llm"),
        ("exact,speech_lm=bf16+int4", "sm75", "speech_lm"),
        ("balanced,encoder=fp8", "sm86", "encoder"),
    ],
)
def test_a_format_the_target_does_not_have(precision: str, target: str, stage: str) -> None:
    with pytest.raises(SettingError, match=f"{target} has no .*which {stage}"):
        check_formats(specs("tiny", precision).values(), ["sm120", target])


def test_formats_the_targets_have() -> None:
    check_formats(specs("tiny", "fast").values(), ["sm80", "sm120"])
    check_formats(specs("tiny", "exact").values(), ["sm75"])
    check_formats(specs("tiny", "fp8").values(), ["sm89", "sm120"])


def test_random_tensors_are_rows_of_one_tensor() -> None:
    tensors = RandomTensors({"a.weight": (6, 4, 3), "b.weight": (6, 4, 3)})
    whole = tensors.read("a.weight")
    assert whole.shape == (6, 4, 3) and (tensors.rows("a.weight", 2, 5) == whole[2:5]).all()
    assert (whole != tensors.read("b.weight")).any() and 0 < whole.std() < 1


def test_a_second_plan_prefills_where_it_is_asked_for() -> None:
    """Of the language model's own dimensions, weights and caches; mostly called with a spoken question."""
    plans = specs("7B", "mixed")
    decode, prefill = plans["llm"], plans["llm_prefill"]
    assert [plan.precision for plan in (decode, prefill, plans["speech_lm"])] == [
        "bf16+mixed",
        "bf16+fp8",
        "bf16+mixed",
    ]
    assert (decode.storage, prefill.storage) == (Precision.MIXED, Precision.FP8)
    assert prefill.expected == decode.expected and prefill.numerics == decode.numerics
    assert prefill.space.capacities == decode.space.capacities and prefill.graph.stage == "llm"
    assert decode.space.ranges["S"].usual == 1 and prefill.space.ranges["S"].usual == 320
    assert list(plans).index("llm_prefill") == list(plans).index("llm") + 1
    half = specs("7B")
    assert "llm_prefill" not in half and 0.85 < (decode.size + prefill.size) / half["llm"].size < 0.95
    assert "llm_prefill" not in specs("tiny", "mixed,llm=mixed") and "llm_prefill" in specs("tiny", "fp8,llm=fp8+mixed")


def test_a_second_plan_needs_what_its_format_needs() -> None:
    with pytest.raises(SettingError, match=r"sm86 has no fp8, which llm is to be built in — .*llm=fp16"):
        check_formats(specs("tiny", "balanced,llm=fp8+mixed").values(), ["sm86"])
    check_formats(specs("tiny", "mixed").values(), ["sm89", "sm120"])
    check_formats(specs("tiny", "balanced,llm=mixed,speech_lm=mixed").values(), ["sm86"])
