"""Cuts a signal into overlapping frames, the first step of every spectrogram here."""

from __future__ import annotations

import onnx_ir as ir

from omni2_export.graphs.builder import GraphBuilder


def cut_frames(g: GraphBuilder, signal: ir.Value, width: int, hop: int, count: ir.Value) -> ir.Value:
    """The first frames of a signal, joined from copies of it that are shifted by whole hops.

    Args:
        signal: (1, n), with n ≥ count·hop + the largest multiple of hop below width.
        width: samples of a frame.
        hop: samples from one frame's start to the next's.
        count: how many frames, int64 (1,).

    Returns:
        (count, width).
    """
    length = g.op("Mul", count, g.constant([hop]))
    pieces = []
    for start in range(0, width, hop):
        shifted = g.slice(signal, start, g.add(length, g.constant([start])), axis=1)
        pieces.append(g.slice(g.reshape(shifted, [-1, hop]), 0, min(hop, width - start), axis=1))
    return g.concat(*pieces, axis=1)
