"""Benchmarks, the demo, and checkpoints with random weights."""

import omni2_engine  # noqa: F401 (it turns ONNX Runtime's usage data off, which must come first)
