"""Complete checkpoints in the released file formats with random weights: any size, no download, no torch.

What they say means nothing, but it is text that comes to an end and sound that babbles; see `language` and `sound`.
"""

from omni2_bench.random_checkpoint.write import write_checkpoint
from omni2_export.checkpoint_writer.dimensions import PRESETS, Dimensions
from omni2_export.checkpoint_writer.paths import CheckpointPaths

__all__ = ["PRESETS", "CheckpointPaths", "Dimensions", "write_checkpoint"]
