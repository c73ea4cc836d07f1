"""`precision.json` as a page to read."""

from __future__ import annotations

import math
from typing import Any

from omni2_bench.common.results import table
from omni2_bench.lab.variants import VARIANTS
from omni2_export.verify.rows import PERFECT

EXPLANATION = """
Decibels that each result keeps over its error, against the float32 graphs of the `exact` preset. Those use float64 in a
few places; the column fp32 does not, as a GPU has none. Inputs come from the float32 graphs before. fp16+int4 computes
in float16 with weights stored in int4. "Rounded" is emulated: every operator in float32, its result rounded to the
type; the others run ONNX Runtime's own float16 kernels, some of which keep more digits than a GPU's.
"""


def page(record: dict[str, Any]) -> str:
    """The table of one run."""
    machine = record["machine"]
    found = {(f["row"], f["array"], f["variant"]): f["snr"] for f in record["findings"]}
    names = [variant.name for variant in VARIANTS]
    rows = []
    for row, array in dict.fromkeys((row, array) for row, array, _ in found):
        label = f"{row}: {array}".replace("_", " ")
        rows.append([label, *(_cell(found.get((row, array, name))) for name in names)])
    head = f"# Number formats, {record['model']}\n\n{machine['processor']}, {machine['threads']} threads.\n"
    return head + EXPLANATION + "\n" + table(["", *names], rows)


def _cell(snr: float | None) -> str:
    if snr is None:
        return ""
    if math.isnan(snr):
        return "not finite"
    return "same" if snr == PERFECT else f"{snr:.0f}"
