"""From checkpoint to engine directory: readers, graph builders, the build, verification."""

import omni2_engine  # noqa: F401 (it turns ONNX Runtime's usage data off, which must come first)
