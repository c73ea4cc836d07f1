"""The number formats that are compared, and which of them a graph can be built in."""

from __future__ import annotations

from dataclasses import dataclass

from omni2_export.build.graphs import GraphSpec
from omni2_export.build.precision import CHOICES, COMPUTE, GPU, WEIGHTS
from omni2_export.graphs.builder import Numerics
from omni2_export.graphs.linear import Precision


@dataclass(frozen=True)
class Variant:
    """One number format.

    Args:
        name: of the column.
        storage: as `--precision` names it for a GPU.
        emulated: every operator computed in float32 and its result rounded (`omni2_export.rounded`), instead of by
            ONNX Runtime's own kernels.
    """

    name: str
    storage: str
    emulated: bool = False

    def fits(self, spec: GraphSpec) -> bool:
        """Whether it is of interest for a graph: a stage computes in a type or does not, whether that is offered or
        not; weights are stored as it is offered."""
        offered = CHOICES[GPU].get(spec.stage)
        if offered is None:  # always float32
            return self.storage == "fp32"
        return self.storage in COMPUTE or (spec.quantised and self.storage in offered)

    @property
    def precision(self) -> Precision:
        """Of the linear layers."""
        return WEIGHTS.get(self.storage.partition("+")[2], Precision.FP32)

    @property
    def numerics(self) -> Numerics:
        """As for a GPU, but for the layout of caches: the stages of the CPU know theirs alone."""
        compute = COMPUTE[self.storage.partition("+")[0]]
        return Numerics(compute, doubles=False)


VARIANTS = (
    Variant("fp32", "fp32"),
    Variant("fp16", "fp16"),
    Variant("fp16, rounded", "fp16", emulated=True),
    Variant("bf16, rounded", "bf16", emulated=True),
    Variant("fp16+int8", "fp16+int8"),
    Variant("fp16+int4", "fp16+int4"),
)
