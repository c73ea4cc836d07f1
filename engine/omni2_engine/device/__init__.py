"""A CUDA device: its memory, and how data comes and goes, on top of `_core`."""
