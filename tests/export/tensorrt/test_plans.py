"""The list of plans: what each consists of follows from the model, and a target's number formats are kept to."""

from __future__ import annotations

import pytest

from omni2_bench.lab.random_weights import RandomTensors, random_modules
from omni2_bench.random_checkpoint import PRESETS
from omni2_engine.errors import SettingError
from omni2_export.build.precision import GPU, parse_precision
from omni2_export.tensorrt.plans import PlanSpec, check_formats, plan_specs
from omni2_export.tensorrt.shapes import Sizes


def specs(size: str, precision: str = "balanced") -> dict[str, PlanSpec]:
    config, modules = random_modules(PRESETS[size])
    return {spec.stage: spec for spec in plan_specs(config, modules, parse_precision(precision, GPU), Sizes())}


@pytest.mark.parametrize(("size", "layers"), [("tiny", 3), ("0.5B", 24), ("7B", 28), ("32B", 64)])
def test_layers_are_the_models(size: str, layers: int) -> None:
    plans = specs(size)
    assert plans["llm"].expected.attentions == layers and plans["llm"].expected.caches == 2 * layers
    assert plans["speech_lm"].expected.caches == 2 * plans["speech_lm"].expected.attentions > 0
    estimator = PRESETS[size].estimator
    assert plans["flow_step"].expected.attentions == estimator.transformers * (estimator.mid_blocks + 2)
    assert [stage for stage, spec in plans.items() if not spec.expected.masked] == ["encoder"]


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
    [("balanced", "sm75", "llm"), ("exact,speech_lm=bf16+int4", "sm75", "speech_lm")],
)
def test_a_format_the_target_does_not_have(precision: str, target: str, stage: str) -> None:
    with pytest.raises(SettingError, match=f"{target} has no .*which {stage}"):
        check_formats(specs("tiny", precision).values(), ["sm120", target])


def test_formats_the_targets_have() -> None:
    check_formats(specs("tiny", "fast").values(), ["sm80", "sm120"])
    check_formats(specs("tiny", "exact").values(), ["sm75"])


def test_random_tensors_are_rows_of_one_tensor() -> None:
    tensors = RandomTensors({"a.weight": (6, 4, 3), "b.weight": (6, 4, 3)})
    whole = tensors.read("a.weight")
    assert whole.shape == (6, 4, 3) and (tensors.rows("a.weight", 2, 5) == whole[2:5]).all()
    assert (whole != tensors.read("b.weight")).any() and 0 < whole.std() < 1
