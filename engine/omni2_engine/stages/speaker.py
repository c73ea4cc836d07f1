"""Speaker stage: a voice prompt → the vector that gives the answer its voice (spec §7). Runs when a voice is added."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omni2_engine.audio.sinc import resample
from omni2_engine.backends.base import Graph
from omni2_engine.errors import AudioError

Floats = NDArray[np.float32]

SAMPLE_RATE = 16_000  # Hz of the filter banks
BINS = 80
FRAME = 400  # samples, 25 ms
SHIFT = 160  # samples, 10 ms
SHORTEST = 0.25  # seconds; less has no statistics to know a voice by
SILENCE = 1e-3  # peak below which nothing was recorded (−60 dB)


class SpeakerEncoder:
    """Kaldi filter banks and the checkpoint's own CAM++ network.

    Args:
        fbank: the `fbank` graph.
        campplus: the checkpoint's `campplus.onnx`; whatever its input and output are called, its first ones are used.
    """

    def __init__(self, fbank: Graph, campplus: Graph) -> None:
        self._fbank = fbank
        self._campplus = campplus
        self._input = next(iter(campplus.inputs))
        self._output = next(iter(campplus.outputs))

    def __call__(self, audio: Floats, sample_rate: int) -> Floats:
        """Describe a voice.

        Args:
            audio: (n,) float32 in ±1, mono.
            sample_rate: in Hz.

        Returns:
            (speaker,) float32, not normalised.

        Raises:
            AudioError: the recording is below 16 kHz, too short or silent.
        """
        if sample_rate < SAMPLE_RATE:
            raise AudioError(
                f"the voice prompt has {sample_rate} Hz, which loses what a voice is known by",
                f"record it at {SAMPLE_RATE} Hz or more",
            )
        if len(audio) < SHORTEST * sample_rate:
            raise AudioError(
                f"the voice prompt lasts {len(audio) / sample_rate:.2f} s",
                "use a recording of about 3 to 10 s of one speaker",
            )
        if np.abs(audio).max() < SILENCE:
            raise AudioError("the voice prompt is silent", "use a recording with somebody speaking in it")
        fbank = self._fbank.run({"audio": resample(audio, sample_rate, SAMPLE_RATE)[None]})["fbank"]
        vector = self._campplus.run({self._input: fbank[None]})[self._output]
        embedding: Floats = np.asarray(vector, np.float32).reshape(-1)
        return embedding
