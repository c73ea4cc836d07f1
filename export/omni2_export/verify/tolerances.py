"""How far a float32 engine may be off the original: the project's numeric rules in one place."""

from __future__ import annotations

LOG_MEL = 1e-4
DEVIATION = 1e-4  # of an array's standard deviation: encoders, hidden states, fused vectors, single estimator calls
MEL_DEVIATION = 5e-4  # of a mel's standard deviation, after all Euler steps
LOGITS = 1e-3
HERTZ = 1e-3  # fundamental frequency
SIGNAL = 1e-3  # filter banks, speaker vector, source, short-time spectra
DRIVEN_WAVE = 1e-4  # one vocoder call driven by the golden source
STREAMED_WAVE = 1e-3  # flow, vocoder and cross-fades together
EXACT = 1e-6  # what is merely computed from constants
