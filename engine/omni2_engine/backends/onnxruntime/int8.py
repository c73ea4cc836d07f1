"""Products of unsigned by signed bytes: whether ONNX Runtime's are exact on this processor, and the remedy if not.

Without VNNI, the x86 instruction for such products adds two products in 16 bits and saturates. ONNX Runtime uses it
unless a session asks for exact products; then it shifts the weights as it loads them, and multiplies unsigned by
unsigned bytes. That takes up to a third more time with AVX2 and up to a half more with AVX-512. With VNNI the ordinary
kernel is exact and two to eight times as fast as the other, so exact products are asked for only where ordinary ones
saturate. The other exact ways are worse: signed by signed bytes take four times as long, weights in blocks twice as
long, and weights of seven bits leave 27 dB in the sound where 30 are promised.

Only graphs with such products may ask: ONNX Runtime 1.32 then refuses weights stored in blocks of signed bytes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort

EXACT_PRODUCTS = ("session.x64quantprecision", "1")  # an entry of a session's configuration
OPERATOR = b"MatMulInteger"  # as every model names it that has one

# A model of one MatMulInteger: a (m, k) uint8, b (k, n) int8 → y (m, n) int32.
PRODUCT = (
    b'\x08\x05:b\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01g'
    b"Z\x15\n\x01a\x12\x10\n\x0e\x08\x02\x12\n\n\x03\x12\x01m\n\x03\x12\x01k"
    b"Z\x15\n\x01b\x12\x10\n\x0e\x08\x03\x12\n\n\x03\x12\x01k\n\x03\x12\x01n"
    b"b\x15\n\x01y\x12\x10\n\x0e\x08\x06\x12\n\n\x03\x12\x01m\n\x03\x12\x01nB\x04\n\x00\x10\n"
)


@cache
def products_saturate() -> bool:
    """Whether the largest products come out wrong on this processor: ONNX Runtime is made to multiply some."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(PRODUCT, options, providers=["CPUExecutionProvider"])
    a, b = np.full((1, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    (y,) = session.run(None, {"a": a, "b": b})
    return bool((y != 64 * 255 * 127).any())


def needs_exact_products(model: str | bytes) -> bool:
    """Whether a session for this model must ask for exact products.

    Args:
        model: the path of an ONNX file, or the file's content. Large weights are in files of their own.
    """
    if not products_saturate():
        return False
    return OPERATOR in (Path(model).read_bytes() if isinstance(model, str) else model)
