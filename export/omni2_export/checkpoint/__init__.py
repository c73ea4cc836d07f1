"""Checkpoints of the released formats (spec §1): opened, checked, offered as named tensors; nothing is executed."""

from omni2_export.checkpoint.convert import convert
from omni2_export.checkpoint.hub import resolve
from omni2_export.checkpoint.load import Checkpoint, open_checkpoint
from omni2_export.checkpoint.tensors import Arrays, Selection, Tensors

__all__ = ["Arrays", "Checkpoint", "Selection", "Tensors", "convert", "open_checkpoint", "resolve"]
