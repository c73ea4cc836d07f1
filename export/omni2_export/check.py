"""`build --check`: every graph of an engine against its torch module on random input, large ones a layer at a time."""

from __future__ import annotations

from pathlib import Path

from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.model.manifest import EngineDirectory
from omni2_export.build.precision import snr_floors, unscored_stages
from omni2_export.checkpoint import Checkpoint
from omni2_export.verify.rows import Comparison, VerifyReport
from omni2_export.verify.table import print_report


def compare_modules(directory: Path, checkpoint: Checkpoint) -> VerifyReport:
    """Compare the graphs of an engine with the torch modules of the checkpoint it was built from; needs torch.

    The memory it takes is that of one layer of either language model and of the encoder, or of the whole flow.

    Raises:
        EngineDirectoryError: the engine is damaged.
    """
    from omni2_export.reference.checks import CHECKS, Subject  # with torch

    engine = EngineDirectory(directory)
    stored = engine.manifest.precision
    comparison = Comparison(VerifyReport(), snr_floors(stored), unscored_stages(stored))
    subject = Subject(engine, checkpoint, OnnxRuntimeBackend(), comparison)
    for check in CHECKS:
        check(subject)
    return comparison.report


def check_engine(directory: Path, checkpoint: Checkpoint) -> bool:
    """Print the worst error of every stage; see `compare_modules`.

    Returns:
        Whether all are within their limits.
    """
    report = compare_modules(directory, checkpoint)
    print_report(report, f"{directory} against PyTorch")
    return report.passed
