"""Silero VAD v6: the probability of a voice in 32 ms of sound. https://github.com/snakers4/silero-vad (MIT)"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np

import omni2_engine  # noqa: F401 (switches ONNX Runtime's usage data off before it is imported)
from omni2_engine.live.detection.base import RATE, Floats

FILE = "silero_vad_16k.onnx"  # `silero_vad_16k_op15.onnx` of the package silero-vad 6.2.3
UNITS = 128  # of its recurrent layer, which keeps two vectors


class SileroVad:
    """See `VoiceActivity`. A state is (2, UNITS) float32.

    A call costs some 0.3 ms on one thread, and 0.15 ms more for every further window.
    """

    def __init__(self) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = files(__package__).joinpath(FILE).read_bytes()
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._rate = np.array(RATE, np.int64)

    def begin(self) -> Floats:
        """See `VoiceActivity.begin`."""
        return np.zeros((2, UNITS), np.float32)

    def __call__(self, windows: Sequence[Floats], states: Sequence[Floats]) -> tuple[list[float], list[Floats]]:
        """See `VoiceActivity`."""
        inputs = {"input": np.stack(windows), "state": np.stack(states, axis=1), "sr": self._rate}
        probabilities, after = self._session.run(None, inputs)
        return [float(p) for p in probabilities[:, 0]], [after[:, row] for row in range(len(windows))]


@cache
def shared_silero_vad() -> SileroVad:
    """The one of this process, loaded when it is first needed: a state is all that an input has to itself."""
    return SileroVad()
