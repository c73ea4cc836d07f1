"""What ONNX Runtime's real CUDA provider does with our graphs, counted on a stub driver and held against a table.

Needs onnxruntime-gpu in a folder of its own, where `make gpu-audit` puts it: beside onnxruntime one would overwrite the
other. Counts hold for that version. The table is `counts.csv`; with OMNI2_WRITE_COUNTS set the test writes it anew.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omni2_bench.lab.random_weights import StandInGraph, random_modules
from omni2_bench.random_checkpoint import PRESETS
from omni2_export.build.graphs import graph_specs
from omni2_export.build.precision import parse_precision

from . import stub

REPOSITORY = Path(__file__).parents[2]
APART = Path(os.environ.get("OMNI2_GPU_AUDIT", REPOSITORY / "build" / "gpu-audit"))
PROVIDER = APART / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
PRECISIONS = {"exact": "exact", "int8": "balanced,encoder=fp32,flow=fp32", "balanced": "balanced", "fast": "fast"}
TABLE = Path(__file__).parent / "counts.csv"
COLUMNS = ("nodes", "shape arithmetic on the host", "kernel", "product", "copy within", "copy to device")
COLUMNS += ("copy to host", "wait")

pytestmark = pytest.mark.skipif(
    not PROVIDER.is_file(), reason="no onnxruntime-gpu apart; `make gpu-audit` brings it (260 MB)"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Graph → what a process with the provider counted."""
    include = [path / "nvidia" / "cu13" / "include" for path in map(Path, [APART, *sys.path])]
    driver, graphs = tmp_path_factory.mktemp("driver"), tmp_path_factory.mktemp("graphs")
    stub.build(PROVIDER, driver, [path for path in include if path.is_dir()])
    config, modules = random_modules(PRESETS["tiny"])
    for name, precision in PRECISIONS.items():
        chosen = parse_precision(precision)
        (graphs / name).mkdir()
        for spec in graph_specs(config, modules).values():
            storage = chosen.of(spec.stage if spec.quantised else "")
            StandInGraph(**vars(spec)).write(graphs / name, storage)
    environment = {**os.environ, "PYTHONPATH": str(APART), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, Path(__file__).with_name("count.py"), driver, graphs]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=True)
    counted: dict[str, dict[str, Any]] = json.loads(done.stdout)  # nothing else may be printed there
    return counted


def test_counts_are_those_of_the_table(found: dict[str, dict[str, Any]]) -> None:
    counted = {name: as_row(counts) for name, counts in found.items()}
    if os.environ.get("OMNI2_WRITE_COUNTS"):
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ("graph", *COLUMNS), lineterminator="\n")
            writer.writeheader()
            writer.writerows({"graph": name, **row} for name, row in counted.items())
    with TABLE.open(encoding="utf-8") as file:
        table = {row.pop("graph"): row for row in csv.DictReader(file)}
    assert counted == table


def test_nothing_but_shape_arithmetic_leaves_the_device(found: dict[str, dict[str, Any]]) -> None:
    """Graphs with dynamic int8 are refused by name; all others run on the device."""
    refused = {name for name, counts in found.items() if "refused" in counts}
    assert refused == {"balanced/encoder", "fast/encoder", "fast/flow_step"}
    for name in refused:
        assert "to one CPU thread (DynamicQuantizeLinear, MatMulInteger;" in found[name]["refused"]


def test_no_product_is_rounded_unasked(found: dict[str, dict[str, Any]]) -> None:
    """`load` knows no engine, so TF32 is off; cuBLAS sees that."""
    counted = [counts for counts in found.values() if "product" in counts]
    assert sum(counts["product"] for counts in counted) > 50
    assert not any(counts["product in TF32"] for counts in counted)


def test_language_models_stay_on_the_device(found: dict[str, dict[str, Any]]) -> None:
    """What their recording as a CUDA graph needs: no node on the host, one wait at the end of a call."""
    for name in ("exact/llm", "exact/speech_lm", "int8/llm"):
        counts = found[name]
        assert counts["shape arithmetic on the host"] == 0 and counts["wait"] == 1


def test_a_failing_call_does_not_move_to_the_cpu(found: dict[str, dict[str, Any]]) -> None:
    """The stub of cuDNN computes no convolution: that is an error, told by stage, and not a silent move."""
    for stage in ("encoder", "vocoder"):
        assert f"cannot run {stage}: [ONNXRuntimeError]" in found[f"exact/{stage}"]["stops"]


def as_row(counts: dict[str, Any]) -> dict[str, str]:
    """A line of the table."""
    return {name: str(counts.get(name, "")) for name in COLUMNS}
