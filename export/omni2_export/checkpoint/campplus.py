"""The speaker encoder of the decoder directory: an ONNX file that describes voices (spec §1.4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from omni2_engine.errors import CheckpointError
from omni2_export.checkpoint.tensors import finite
from omni2_export.input_files import require_content


def check_campplus(path: Path) -> None:
    """Refuse a file that is no ONNX graph, or has a weight that is not finite.

    Raises:
        CheckpointError: it is such a file.
    """
    require_content(path, text=False)
    try:
        graph = ir.load(path).graph
        weights = {name: tensor.const_value for name, tensor in graph.initializers.items()}
        arrays = {name: weight.numpy() for name, weight in weights.items() if weight is not None}
    except Exception as error:  # hostile input: the protobuf reader and onnx_ir fail in many ways
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is not an ONNX file: {reason:.200}", "download the file again") from error
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating):
            finite(np.ascontiguousarray(array, np.float32), f"{path}: `{name}`")
