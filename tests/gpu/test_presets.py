"""Which presets are checked on which GPU."""

from __future__ import annotations

import pytest

from omni2_export.build.precision import GPU, parse_precision
from omni2_export.checkpoint import Checkpoint
from omni2_export.tensorrt.plans import check_formats, plan_specs

from .rig import SIZES, presets


@pytest.mark.parametrize(
    ("found", "last"),
    [
        (None, "exact"),
        (("sm90", "cuda"), "exact"),
        (("sm86", "tensorrt"), "fast"),
        (("sm89", "tensorrt"), "mixed"),
        (("sm120", "tensorrt"), "mixed"),
    ],
)
def test_all_that_a_gpu_has_are_checked(
    found: tuple[str, str] | None, last: str, random_checkpoint: Checkpoint
) -> None:
    chosen = presets(found)
    assert chosen[-1] == last and len(chosen) == {"exact": 1, "fast": 3, "mixed": 5}[last]
    if found and found[1] == "tensorrt":
        for preset in chosen:
            formats = parse_precision(preset, GPU)
            specs = plan_specs(random_checkpoint.config, random_checkpoint.modules, formats, SIZES)
            check_formats(specs, [found[0]])
