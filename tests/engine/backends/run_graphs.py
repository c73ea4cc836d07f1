"""Runs every graph NAME.onnx of a folder as the engine does, on the arrays of NAME.npz; writes NAME.results.npz.

A program of its own, so that a test can run it on a processor that an emulator shows it: `run_graphs.py FOLDER`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from omni2_engine._core import processor_instructions
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.backends.onnxruntime.int8 import products_saturate

if __name__ == "__main__":
    backend = OnnxRuntimeBackend(threads=1)
    for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
        with np.load(path.with_suffix(".npz")) as inputs:
            np.savez(path.with_suffix(".results.npz"), **backend.load(path).run(dict(inputs)))
    print(products_saturate(), *processor_instructions())
