"""G.711: 8 kHz, one byte a sample, µ-law and A-law (ITU-T G.711), by tables made from their formulas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Samples = NDArray[np.int16]
BIAS = 132  # of µ-law: 33 in 14 bits
CLIP = 32_635  # beyond it the bias would leave 16 bits
EVEN = 0x55  # A-law turns every other bit round


def _ulaw_table() -> Samples:
    """The sample of every µ-law code: all bits of a code are turned round; sign, exponent (3), mantissa (4)."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    size = ((mantissa << 3) + BIAS << exponent) - BIAS
    return np.where(code & 0x80, -size, size).astype(np.int16)


def _alaw_table() -> Samples:
    """The sample of every A-law code; its sign bit stands for plus."""
    code = np.arange(256, dtype=np.uint8) ^ EVEN
    exponent, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    low = (mantissa << 4) + 8
    size = np.where(exponent == 0, low, low + 256 << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, size, -size).astype(np.int16)


ULAW, ALAW = _ulaw_table(), _alaw_table()


def _ulaw_codes() -> Bytes:
    """The µ-law code of every 16-bit sample, in the order of their bits."""
    sample = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)
    size = np.minimum(np.abs(sample), CLIP) + BIAS
    exponent = np.log2(size).astype(np.int32) - 7  # 132 … 32767: the leading bit is bit 7 … 14
    mantissa = size >> exponent + 3 & 15
    codes: Bytes = (~(np.where(sample < 0, 0x80, 0) | exponent << 4 | mantissa) & 0xFF).astype(np.uint8)
    return codes


def _alaw_codes() -> Bytes:
    """The A-law code of every 16-bit sample, in the order of their bits."""
    sample = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)
    size = np.where(sample < 0, ~sample, sample)  # −1 is the first negative step
    exponent = np.maximum(np.log2(np.maximum(size, 1)).astype(np.int32) - 7, 0)
    mantissa = size >> np.where(exponent == 0, 4, exponent + 3) & 15
    codes: Bytes = ((np.where(sample < 0, 0, 0x80) | exponent << 4 | mantissa) ^ EVEN).astype(np.uint8)
    return codes


ULAW_CODES, ALAW_CODES = _ulaw_codes(), _alaw_codes()


def decode(codes: Bytes, table: Samples) -> Samples:
    """Codes (n,) → 16-bit samples (n,) at 8 kHz; `table` is `ULAW` or `ALAW`."""
    return table[codes]


def encode(samples: Samples, codes: Bytes) -> Bytes:
    """16-bit samples (n,) at 8 kHz → codes (n,); `codes` is `ULAW_CODES` or `ALAW_CODES`."""
    return codes[samples.view(np.uint16)]
