"""`bench kernels`, and the table that the simulation charges: it is what the builder lists today."""

from __future__ import annotations

import pytest

from omni2_bench.lab.kernels import LAYERED, PLANS, PlanKernels, count_kernels, report
from omni2_bench.simulate.effort import kernel_counts
from omni2_engine.backends.tensorrt.library import find_tensorrt
from omni2_engine.errors import BackendError
from omni2_export.tensorrt.lowered import Lowered


@pytest.fixture(autouse=True)
def builder() -> None:
    """Skip where no plan can be built for another GPU."""
    try:
        if not find_tensorrt().builds_for_other_gpus:
            pytest.skip("mainline TensorRT builds on a GPU only")
    except BackendError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("plan", ["log_mel", "fusion"])
def test_small_plans_have_the_kernels_that_are_charged(plan: str) -> None:
    """At released width; the others take minutes to build, see `omni2-engine bench kernels`."""
    (found,) = count_kernels("0.5B", "balanced", "sm89", 8, [plan])
    assert (found.fixed, found.per_layer) == kernel_counts("tensorrt", "balanced")[plan]


def test_an_encoder_with_tails_has_the_kernels_that_are_charged() -> None:
    """Of tiny width, where the builder fuses alike: none more than the whole window's."""
    (found,) = count_kernels("tiny", "fp8", "sm89", 1, ["encoder_tail"])
    charged = kernel_counts("tensorrt", "fp8")
    assert (found.fixed, found.per_layer) == charged["encoder_tail"] <= charged["encoder"]
    assert found.few.attentions == 2 and found.few.cache_copies == found.few.moves == 0


def test_a_language_model_has_the_kernels_that_are_charged() -> None:
    """Of tiny width, where the builder fuses alike."""
    (found,) = count_kernels("tiny", "balanced", "sm89", 2, ["llm"])
    assert (found.fixed, found.per_layer) == kernel_counts("tensorrt", "balanced")["llm"]
    assert found.count(28) == 28 * 11 + 3
    assert "| llm, 2 layers | 25 | 3 + 11 a layer |" in report([found])


def test_every_plan_that_is_charged_can_be_counted() -> None:
    for precision in ("balanced", "fast", "fp8", "mixed"):
        charged, apart = kernel_counts("tensorrt", precision), {"llm_prefill"} if precision == "mixed" else set()
        assert set(charged) == set(PLANS) - {"flow_conditions"} | apart  # once an engine, not a turn
        assert {plan for plan, (_, per_layer) in charged.items() if per_layer} == set(LAYERED) & set(charged)


def test_a_plan_without_layers_has_one_count() -> None:
    found = PlanKernels("vocoder", Lowered({"kgen": 3}), None)
    assert (found.fixed, found.per_layer, found.count(7)) == (3, 0, 3)
