"""Numeric conformance: an engine's stages against golden arrays of the original implementation."""

from omni2_export.verify.goldens import GoldenError
from omni2_export.verify.rows import Comparison, Row, VerifyReport
from omni2_export.verify.run import ALL_CONTEXT, verify_engine
from omni2_export.verify.table import print_report, write_json

__all__ = [
    "ALL_CONTEXT",
    "Comparison",
    "GoldenError",
    "Row",
    "VerifyReport",
    "print_report",
    "verify_engine",
    "write_json",
]
