"""The encoder of the beginning of a window, which reads the silence behind it from another window: as it was there on a
device, and corrected by what some computed positions of the silence show on a CPU."""

from __future__ import annotations

import onnx_ir as ir

from omni2_engine.model.config import EncoderConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import FLOAT, INT64_MAX, GraphBuilder
from omni2_export.graphs.encoder import convolutions, layers, project
from omni2_export.graphs.linear import Precision
from omni2_export.graphs.numerics import INT64

FLOAT16 = ir.DataType.FLOAT16


def build_encoder_tail(graph: GraphBuilder, config: EncoderConfig, tensors: Tensors, precision: Precision) -> None:
    """Add the encoder of the first n positions of a window, which see the others as another window left them.

    The weights are those of `build_encoder`.

    Inputs: log_mel (1, mel_bins, 2n + 2) float32, zeros beyond the window, n a multiple of `stack`; tail_i (2, heads,
        kept, width / heads) float16 for every layer: its keys and its values at the window's last positions, of which
        the last rest = context − n are read.
        On a CPU also encoded (kept, width) float16, the output of the last norm there; probes (p,) int64, positions
        behind the first n that are computed too, as silence, counted from n; spread (rest, p) float32, what the
        difference at each probe adds to every position of the rest.
    Outputs: speech (1, n / stack, output) float32; on a CPU that of the whole window, (1, positions, output).
    """
    build = _as_kept if graph.numerics.device else _corrected
    build(graph, config, tensors, precision)


def _as_kept(g: GraphBuilder, c: EncoderConfig, tensors: Tensors, precision: Precision) -> None:
    x, rest, tails = _inputs(g, c, tensors)

    def seen(layer: int, row: int, computed: ir.Value) -> ir.Value:
        return g.concat(computed, _last(g, tails[layer], row, rest), axis=2)

    with g.precise():
        x = g.add(x, g.slice(_embedding(g, tensors), 0, g.size(x, 1), axis=0))
    encoded = layers(g, c, tensors, precision, x, seen, by_products=True)
    g.output(project(g, c, tensors, encoded), "speech", FLOAT, [1, "positions", c.output])


def _corrected(g: GraphBuilder, c: EncoderConfig, tensors: Tensors, precision: Precision) -> None:
    x, rest, tails = _inputs(g, c, tensors)
    output = g.input("encoded", FLOAT16, ["kept", c.width])
    probes, spread = g.input("probes", INT64, ["probes"]), g.input("spread", FLOAT, ["rest", "probes"])
    first = g.size(x, 1)

    def corrected(computed: ir.Value, kept: ir.Value) -> ir.Value:
        """(…, n + p, w) and what was kept (…, rest, w), as (…, context, w)."""
        shown = g.slice(computed, first, INT64_MAX, axis=-2)
        difference = g.op("Sub", shown, g.op("Gather", kept, probes, axis=-2))
        behind = g.add(kept, g.op("MatMul", spread, difference))
        return g.concat(g.slice(computed, 0, first, axis=-2), behind, axis=-2)

    def seen(layer: int, row: int, computed: ir.Value) -> ir.Value:
        return corrected(computed, _last(g, tails[layer], row, rest))

    with g.precise():
        embedding = _embedding(g, tensors)
        speech = g.add(x, g.slice(embedding, 0, first, axis=0))
        silence = g.slice(x, -1, INT64_MAX, axis=1)  # the same at every position
        x = g.concat(speech, g.add(silence, g.op("Gather", embedding, g.add(probes, first), axis=0)), axis=1)
    encoded = layers(g, c, tensors, precision, x, seen)
    kept = g.slice(output, g.op("Sub", g.size(output, 0), rest), INT64_MAX, axis=0)
    whole = corrected(encoded, g.op("Unsqueeze", kept, g.constant([0])))
    speech = project(g, c, tensors, g.slice(whole, 0, c.positions * c.stack, axis=1))
    g.output(speech, "speech", FLOAT, [1, c.positions, c.output])


def _inputs(g: GraphBuilder, c: EncoderConfig, tensors: Tensors) -> tuple[ir.Value, ir.Value, list[ir.Value]]:
    """What the convolutions make of the log-mel, (1, n, width), the number of positions behind it, (1,), and tails."""
    mel = g.input("log_mel", FLOAT, [1, c.mel_bins, "frames"])
    shape = (2, c.heads, "kept", c.width // c.heads)
    tails = [g.input(f"tail_{layer}", FLOAT16, shape) for layer in range(c.layers)]
    x = g.slice(convolutions(g, tensors, mel), 0, -1, axis=1)  # the last has half of what it reads
    return x, g.op("Sub", g.constant([c.context]), g.size(x, 1)), tails


def _embedding(g: GraphBuilder, tensors: Tensors) -> ir.Value:
    return g.weight("positional_embedding", tensors.read("positional_embedding"))


def _last(g: GraphBuilder, tail: ir.Value, row: int, positions: ir.Value) -> ir.Value:
    """The last positions of one row of a layer's tail: (1, heads, positions, width)."""
    starts = g.concat(g.constant([row]), g.op("Sub", g.size(tail, 2), positions), axis=0)
    return g.op("Slice", tail, starts, g.constant([row + 1, INT64_MAX]), g.constant([0, 2]))
