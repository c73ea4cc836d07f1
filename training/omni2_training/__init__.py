"""Training of a small demonstration model: data synthesis, every module, export to the released file formats.

Nothing below this floor imports it. `python -m omni2_training --help` names the stages; `make train-demo` runs all.
"""

import omni2_engine  # noqa: F401 (it turns ONNX Runtime's usage data off, which must come first)
