"""An engine directory with plans of the stand-in TensorRT: the graphs that real plans are built from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from omni2_engine.backends.tensorrt.library import TensorRt
from omni2_engine.model.manifest import MANIFEST, Manifest, sha256
from omni2_export.build.precision import GPU, parse_precision
from omni2_export.checkpoint import Checkpoint
from omni2_export.tensorrt.plans import plan_specs
from omni2_export.tensorrt.shapes import Sizes
from omni2_export.tensorrt.stages import plan_entry

from .tensorrt import write_plan


def add_plans(
    engine: Path,
    checkpoint: Checkpoint,
    library: TensorRt,
    target: str,
    sizes: Sizes,
    graphs: Path,
    precision: str = "exact",
    encoder: str | None = None,
) -> None:
    """Give an engine directory plans for a target.

    Args:
        engine: the directory.
        checkpoint: it was built from.
        library: a stand-in TensorRT, which is to run them.
        target: such as "sm89".
        sizes: what they are to hold.
        graphs: a folder for the graphs they stand for.
        precision: of types that ONNX Runtime has on the CPU.
        encoder: "tail" for a plan that reads the engine's tails.
    """
    formats = parse_precision(precision, GPU).loaded_with(encoder)
    specs = plan_specs(checkpoint.config, checkpoint.modules, formats, sizes)
    manifest = Manifest.model_validate_json((engine / MANIFEST).read_text())
    files, plans = {}, []
    for spec in specs:
        entry = plan_entry(spec, target, library)
        path = spec.graph.write(graphs, spec.storage, spec.numerics, spec.space.capacities)
        write_plan(engine / entry.file, path, {name: (*values,) for name, values in spec.space.ranges.items()})
        plans.append(entry)
        files[entry.file] = {"size": (engine / entry.file).stat().st_size, "sha256": sha256(engine / entry.file)}
    data = json.loads(manifest.model_dump_json())
    data["plans"] += [json.loads(entry.model_dump_json()) for entry in plans]
    data["files"] |= files
    data["targets"] += [target]
    (engine / MANIFEST).write_text(json.dumps(data))


def copy_engine(engine: Path, to: Path) -> Path:
    """A copy whose large files are links."""
    shutil.copytree(engine, to, copy_function=lambda source, target: Path(target).hardlink_to(source))
    manifest = (to / MANIFEST).read_bytes()
    (to / MANIFEST).unlink()
    (to / MANIFEST).write_bytes(manifest)
    return to
