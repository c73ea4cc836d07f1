"""One step of the flow's solver: the velocity network on both guidance rows, and the move (spec §8.2, §8.3, §11).

Like the encoder it covers the frames of the unfinished block only. Each of the solver's steps has caches of its own,
so the same graph is called once per step with that step's caches bound. Sequences are laid out (frames, rows,
channels): a cache's first frames are then one piece of memory, which is bound as it is instead of being cut out, and
no head is ever transposed. For a GPU caches are head first, see `Numerics.device`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from omni2_engine.model.config import EstimatorConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import FLOAT, GraphBuilder, in_float32
from omni2_export.graphs.convolution import convolve
from omni2_export.graphs.flow_state import EstimatorState, FrameFirst, HeadFirst, NoState
from omni2_export.graphs.linear import LinearWriter, Precision
from omni2_export.graphs.norms import layer_norm

ESTIMATOR = "decoder.estimator"
NORM_EPS = 1e-5


def resnet_paths(config: EstimatorConfig) -> list[str]:
    """Prefixes of the resnets in the order they run; the order of the rows of `shifts`."""
    middle = [f"{ESTIMATOR}.mid_blocks.{index}" for index in range(config.mid_blocks)]
    return [f"{block}.0" for block in (f"{ESTIMATOR}.down_blocks.0", *middle, f"{ESTIMATOR}.up_blocks.0")]


@in_float32
def mish(g: GraphBuilder, x: ir.Value) -> ir.Value:
    """x·tanh(ln(1 + eˣ)) = x·w / (w + 2) with w = eˣ(eˣ + 2): one exponential, where ONNX Runtime's Mish takes three
    slow functions.

    Beyond x = 20 the factor is 1 in float32.
    """
    power = g.op("Exp", g.op("Min", x, g.constant(20.0)))
    w = g.mul(power, g.add(power, g.constant(2.0)))
    return g.mul(x, g.op("Div", w, g.add(w, g.constant(2.0))))


def build_flow_step(
    graph: GraphBuilder,
    config: EstimatorConfig,
    tensors: Tensors,
    precision: Precision = Precision.FP32,
    caches: ir.DataType | None = None,
) -> None:
    """Add one solver step to `graph`. `precision` is of the transformer blocks' linear layers, nine tenths of the work;
    convolutions stay float32: nothing normalises what they read, and quantised they cost the mel 5 dB for 1 % of time.
    `caches` is the type of keys and values on a CPU, if not that of the graph.

    Inputs:
        z, mu (1, t, mel) float32; speaker (1, mel) float32; mask (1, 1, t, T) bool, True where a frame may look;
        write (1) int64: the first frame's place in the caches; commit (1) int64: how many of the frames are final after
        this call; shifts (resnets, width) float32: this step's row of `build_flow_conditions`; move (2) float32: how
        far this step's velocity moves z, and how far the one before; velocity_before (1, t, mel) float32: that one;
        contexts (k−1, 2, Σ channels): left context of every causal convolution, side by side; caches per transformer
        block, see `FrameFirst` and, for a GPU, `HeadFirst`; all of these of the type the graph computes in, but for
        the caches where `caches` says otherwise.
    Outputs:
        new_z, velocity (1, t, mel) float32; new_contexts; new_… caches, bound to the inputs' memory.
        Inside: estimator_in (2, t, 3·mel) [x, μ, speaker] (the condition channels are always zero and left out),
        velocities (2, t, mel).
    """
    context, widths = _context_frames(tensors), _context_widths(config)

    def kept(linear: LinearWriter) -> EstimatorState:
        if graph.numerics.device:
            return HeadFirst(graph, config, context, widths, tensors)
        return FrameFirst(graph, config, context, widths, linear, caches or graph.compute)

    _add_step(graph, config, tensors, precision, kept)


def build_first_flow_step(graph: GraphBuilder, config: EstimatorConfig, tensors: Tensors) -> None:
    """Add one solver step over a turn's first block, while no block is finished: it reads no state and leaves none.

    Inputs and outputs are those of `build_flow_step` without state, write and commit; the mask is (1, 1, t, t).
    """
    _add_step(graph, config, tensors, Precision.FP32, lambda linear: NoState(graph, config, linear))


def _add_step(
    g: GraphBuilder,
    c: EstimatorConfig,
    tensors: Tensors,
    precision: Precision,
    state: Callable[[LinearWriter], EstimatorState],
) -> None:
    z = g.input("z", FLOAT, [1, "t", c.mel])
    mu = g.input("mu", FLOAT, [1, "t", c.mel])
    speaker = g.input("speaker", FLOAT, [1, c.mel])
    linear = LinearWriter(g, tensors, precision)
    velocities = _Estimator(g, c, tensors, linear, state(linear)).build(_guidance_rows(g, z, mu, speaker))
    move = g.input("move", FLOAT, [2])
    before = g.input("velocity_before", FLOAT, [1, "t", c.mel])
    velocities = g.op("Transpose", velocities, perm=[1, 0, 2], name="velocities")
    with_voice, without = (g.slice(velocities, row, row + 1, axis=0) for row in (0, 1))
    with g.precise():  # guidance takes a difference of large numbers, and ten steps add up in z
        velocity = g.op("Sub", g.mul(with_voice, 1.0 + c.guidance), g.mul(without, c.guidance))
        ahead, back = (g.slice(move, part, part + 1, axis=0) for part in (0, 1))
        moved = g.add(g.add(z, g.mul(velocity, ahead)), g.mul(before, back))
    g.output(velocity, "velocity", FLOAT, [1, "t", c.mel])
    g.output(moved, "new_z", FLOAT, [1, "t", c.mel])


def _context_frames(tensors: Tensors) -> int:
    """Frames that a causal convolution reads before the first one it makes."""
    return tensors.shape(f"{ESTIMATOR}.final_block.block.0.weight")[2] - 1


def _context_widths(c: EstimatorConfig) -> list[int]:
    """Input channels of every causal convolution in the order they run."""
    resnets = len(resnet_paths(c))
    first, last = [3 * c.mel, c.width], [2 * c.width, c.width]
    return [*first, c.width, *([c.width] * (2 * (resnets - 2))), *last, c.width, c.width]


def _guidance_rows(g: GraphBuilder, z: ir.Value, mu: ir.Value, speaker: ir.Value) -> ir.Value:
    """The estimator's input (t, 2, 3·mel), the row with the conditions first."""
    spread = g.op("Expand", g.op("Unsqueeze", speaker, g.constant([1])), g.op("Shape", z))
    nothing = g.mul(mu, 0.0)
    rows = g.concat(g.concat(z, mu, spread, axis=-1), g.concat(z, nothing, nothing, axis=-1), axis=0)
    return g.transpose(g.op("Identity", rows, name="estimator_in"), 1, 0, 2)


class _Estimator:
    """The velocity network over the state of a turn, or over none."""

    def __init__(
        self, g: GraphBuilder, c: EstimatorConfig, tensors: Tensors, linear: LinearWriter, state: EstimatorState
    ) -> None:
        self.g, self.c, self.tensors, self.linear, self.state = g, c, tensors, linear, state
        self.shifts = g.input("shifts", FLOAT, [len(resnet_paths(c)), c.width])

    def build(self, rows: ir.Value) -> ir.Value:
        """Velocities (t, 2, mel) for the estimator's input (t, 2, 3·mel)."""
        g, paths = self.g, resnet_paths(self.c)
        x = self._stage(rows, paths[0], 0)
        skip = x
        x = self._causal(x, f"{ESTIMATOR}.down_blocks.0.2")
        for index, path in enumerate(paths[1:-1], start=1):
            x = self._stage(x, path, index)
        x = self._stage(g.concat(x, skip, axis=-1), paths[-1], len(paths) - 1)
        x = self._causal(x, f"{ESTIMATOR}.up_blocks.0.2")
        x = self._convolution_block(x, f"{ESTIMATOR}.final_block")
        self.state.keep()
        return convolve(g, self.tensors, x, f"{ESTIMATOR}.final_proj", axis=0)

    def _stage(self, x: ir.Value, path: str, index: int) -> ir.Value:
        """A resnet and the transformer blocks behind it."""
        x = self._resnet(x, path, index)
        for block in range(self.c.transformers):
            x = self._transformer(x, f"{path[:-1]}1.{block}")
        return x

    def _resnet(self, x: ir.Value, path: str, index: int) -> ir.Value:
        g = self.g
        inputs = 3 * self.c.mel if index == 0 else None
        shift = g.slice(self.shifts, index, index + 1, axis=0)  # (1, width)
        inner = g.residual(self._convolution_block(x, f"{path}.block1", inputs), shift)
        inner = self._convolution_block(inner, f"{path}.block2")
        return g.residual(inner, convolve(g, self.tensors, x, f"{path}.res_conv", 0, inputs))

    def _convolution_block(self, x: ir.Value, path: str, inputs: int | None = None) -> ir.Value:
        return mish(self.g, self._norm(self._causal(x, f"{path}.block.0", inputs), f"{path}.block.2"))

    def _causal(self, x: ir.Value, layer: str, inputs: int | None = None) -> ir.Value:
        return self.state.convolve(x, self.tensors, layer, inputs)

    def _norm(self, x: ir.Value, name: str) -> ir.Value:
        return layer_norm(self.g, self.tensors, x, name, NORM_EPS)

    def _transformer(self, x: ir.Value, path: str) -> ir.Value:
        g = self.g
        attended = self.state.attend(self._norm(x, f"{path}.norm1"), f"{path}.attn1")
        x = g.residual(x, self.linear(attended, f"{path}.attn1.to_out.0"))
        inner = self.linear(self._norm(x, f"{path}.norm3"), f"{path}.ff.net.0.proj")
        return g.residual(x, self.linear(g.op("Gelu", inner), f"{path}.ff.net.2"))


@in_float32  # 1000·t is beyond what narrower types tell apart, and it runs once
def build_flow_conditions(graph: GraphBuilder, config: EstimatorConfig, tensors: Tensors) -> None:
    """Add what the solver's steps share and is computed once: time shifts of all steps, the voice's projection; always
    float32.

    Inputs: t (k) float32: points in time; embedding (1, speaker) float32.
    Outputs: shifts (k, resnets, width) float32; speaker_features (1, mel) float32 (spec §7, §8.3).
    """
    g, c = graph, config
    linear = LinearWriter(g, tensors, Precision.FP32)
    t = g.input("t", FLOAT, ["k"])
    half = c.in_channels // 2
    exponents = np.arange(half, dtype=np.float32) * np.float32(-np.log(10000.0) / (half - 1))
    scaled = g.op("Unsqueeze", g.mul(t, 1000.0), g.constant([1]))
    angles = g.mul(scaled, g.constant(np.exp(exponents)[None, :]))
    embedded = g.concat(g.op("Sin", angles), g.op("Cos", angles), axis=-1)  # (k, in_channels)
    inner = linear(embedded, f"{ESTIMATOR}.time_mlp.linear_1")
    time = mish(g, linear(g.mul(inner, g.op("Sigmoid", inner)), f"{ESTIMATOR}.time_mlp.linear_2"))
    shifts = [g.op("Unsqueeze", linear(time, f"{path}.mlp.1"), g.constant([1])) for path in resnet_paths(c)]
    g.output(g.concat(*shifts, axis=1), "shifts", FLOAT, ["k", len(shifts), c.width])

    embedding = g.input("embedding", FLOAT, [1, c.speaker])
    norm = g.op("ReduceL2", embedding, g.constant([1]), keepdims=1)
    unit = g.op("Div", embedding, g.op("Max", norm, g.constant(1e-12)))
    g.output(linear(unit, "spk_embed_affine_layer"), "speaker_features", FLOAT, [1, c.mel])
