"""Building an engine directory: what is built (`stages`), how it is kept whole (`workspace`), and the run (`run`)."""

from omni2_export.build.precision import PRESETS, Precisions, parse_precision
from omni2_export.build.run import BuildRequest, build_engine

__all__ = ["PRESETS", "BuildRequest", "Precisions", "build_engine", "parse_precision"]
