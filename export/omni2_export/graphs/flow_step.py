"""One Euler step of the flow: the velocity network on both guidance rows, and the move along it (spec §8.2, §8.3, §11).

Like the encoder it covers the frames of the unfinished block only. Each of the solver's steps has caches of its own,
so the same graph is called once per step with that step's caches bound. Sequences are laid out (frames, rows,
channels): a cache's first frames are then one piece of memory, which is bound as it is instead of being cut out, and
no head is ever transposed. For a GPU caches are head first, see `Numerics.device`.

A graph may serve several sessions in one call, however many frames each is at. What treats every frame by itself, the
linear layers foremost, then takes the frames of all, one session's behind another's; what looks beyond a frame,
convolutions and attention, takes each session's by themselves, with its own contexts and caches where they lie. So a
frame's sums are those it would have alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import onnx_ir as ir

from omni2_engine.config import EstimatorConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.attention import attend
from omni2_export.graphs.builder import BOOL, FLOAT, INT64, INT64_MAX, Dim, GraphBuilder, in_float32
from omni2_export.graphs.convolution import convolve, keep_context
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
    sessions: int = 1,
) -> None:
    """Add one solver step to `graph`. `precision` is of the transformer blocks' linear layers, nine tenths of the work;
    convolutions stay float32: nothing normalises what they read, and quantised they cost the mel 5 dB for 1 % of time.

    Inputs:
        z, mu (1, t, mel) float32; speaker (1, mel) float32; mask (1, 1, t, T) bool, True where a frame may look;
        write (1) int64: the first frame's place in the caches; commit (1) int64: how many of the frames are final after
        this call; shifts (resnets, width) float32: this step's row of `build_flow_conditions`; dt (1) float32;
        contexts (k−1, 2, Σ channels): left context of every causal convolution, side by side; keys_i, values_i
        (1, T, 2·heads·head_dim), for a GPU (1, 2·heads, capacity, head_dim), per transformer block; all of these of the
        type the graph computes in.
    Outputs:
        new_z (1, t, mel) float32; new_contexts; new_keys_i, new_values_i, bound to the inputs' memory.
        Inside: estimator_in (2, t, 3·mel) [x, μ, speaker] (the condition channels are always zero and left out),
        velocities (2, t, mel).

    With `sessions` > 1 every name and symbolic dimension but `shifts` and `dt` is there once per session, ending in
    ".0", ".1" and so on; a session has at least one frame.

    Raises:
        ValueError: several sessions, and activations quantised by a scale that they would have to share.
    """
    g, c = graph, config
    if sessions > 1 and precision is Precision.DYNAMIC:
        raise ValueError("dynamically quantised activations have one scale per call, which must be of one session")
    places = [_Place(g, c, "" if sessions == 1 else f".{number}") for number in range(sessions)]
    shifts = g.input("shifts", FLOAT, [len(resnet_paths(c)), c.width])
    dt = g.input("dt", FLOAT, [1])
    velocities = _Estimator(g, c, tensors, precision, shifts, places).build()
    for place, velocity in zip(places, velocities, strict=True):
        place.move(velocity, dt)


class _Place:
    """What one session brings to a call, and what it takes with it."""

    def __init__(self, g: GraphBuilder, c: EstimatorConfig, suffix: str) -> None:
        self.g, self.c, self.suffix = g, c, suffix
        self._frames, self._seen = f"t{suffix}", f"T{suffix}"
        self.z = g.input(f"z{suffix}", FLOAT, [1, self._frames, c.mel])
        self.mu = g.input(f"mu{suffix}", FLOAT, [1, self._frames, c.mel])
        self.speaker = g.input(f"speaker{suffix}", FLOAT, [1, c.mel])
        self.mask = g.input(f"mask{suffix}", BOOL, [1, 1, self._frames, self._seen])
        self.write = g.input(f"write{suffix}", INT64, [1])
        self.commit = g.input(f"commit{suffix}", INT64, [1])

    def rows(self) -> ir.Value:
        """The estimator's input (t, 2, 3·mel), the row with the conditions first."""
        g, z, mu = self.g, self.z, self.mu
        spread = g.op("Expand", g.op("Unsqueeze", self.speaker, g.constant([1])), g.op("Shape", z))
        nothing = g.mul(mu, 0.0)
        rows = g.concat(g.concat(z, mu, spread, axis=-1), g.concat(z, nothing, nothing, axis=-1), axis=0)
        return g.transpose(g.op("Identity", rows, name=f"estimator_in{self.suffix}"), 1, 0, 2)

    def move(self, velocities: ir.Value, dt: ir.Value) -> None:
        """Guide (t, 2, mel) and go along it for the time `dt`."""
        g, c = self.g, self.c
        velocities = g.op("Transpose", velocities, perm=[1, 0, 2], name=f"velocities{self.suffix}")
        with_voice, without = (g.slice(velocities, row, row + 1, axis=0) for row in (0, 1))
        with g.precise():  # guidance takes a difference of large numbers, and ten steps add up in z
            velocity = g.op("Sub", g.mul(with_voice, 1.0 + c.guidance), g.mul(without, c.guidance))
            moved = g.add(self.z, g.mul(velocity, dt))
        g.output(moved, f"new_z{self.suffix}", FLOAT, [1, self._frames, c.mel])

    def take_contexts(self, frames: int, widths: list[int]) -> None:
        """Let `extended` begin."""
        self._context_shape = [frames, 2, sum(widths)]
        contexts = self.g.input(f"contexts{self.suffix}", self.g.compute, self._context_shape)
        self._contexts = iter(self.g.ops("Split", contexts, self.g.constant(widths), outputs=len(widths), axis=-1))
        self._new_contexts: list[ir.Value] = []

    def extended(self, x: ir.Value) -> ir.Value:
        """x (t, 2, channels) behind the left context of the next convolution."""
        extended = self.g.concat(next(self._contexts), x, axis=0)
        self._new_contexts.append(keep_context(self.g, extended, self.commit, self._context_shape[0], axis=0))
        return extended

    def leave_contexts(self) -> None:
        """All convolutions have been."""
        contexts = self.g.concat(*self._new_contexts, axis=-1)
        self.g.output(contexts, f"new_contexts{self.suffix}", self.g.compute, self._context_shape)

    def attend(self, block: int, query: ir.Value, key: ir.Value, value: ir.Value) -> ir.Value:
        """Attention of this call's frames over the caches and themselves; all (t, 2, heads·width).

        The heads of both rows are side by side: what one row knows the other never sees, as two groups of heads of one
        sequence.
        """
        g, heads, width = self.g, 2 * self.c.heads, self.c.head_dim
        query, key, value = (g.reshape(part, [1, -1, heads * width]) for part in (query, key, value))
        attended = (self._head_first if g.numerics.device else self._as_they_lie)(block, query, key, value)
        return g.reshape(attended, [-1, 2, self.c.heads * width])

    def _as_they_lie(self, block: int, query: ir.Value, key: ir.Value, value: ir.Value) -> ir.Value:
        g, heads, width = self.g, 2 * self.c.heads, self.c.head_dim
        shape: list[Dim] = [1, self._seen, heads * width]
        caches = [self._updated(f"{kind}_{block}", new, shape, 1) for kind, new in (("keys", key), ("values", value))]
        query = g.mul(query, width**-0.5)
        return g.op("Attention", query, *caches, self.mask, scale=1.0, q_num_heads=heads, kv_num_heads=heads)

    def _head_first(self, block: int, query: ir.Value, key: ir.Value, value: ir.Value) -> ir.Value:
        """With caches (1, heads, capacity, width), of which the first T positions are cut out."""
        g, heads, width = self.g, 2 * self.c.heads, self.c.head_dim
        shape: list[Dim] = [1, heads, "capacity", width]
        query, key, value = (g.split_heads(part, heads, width) for part in (query, key, value))
        whole = [self._updated(f"{kind}_{block}", new, shape, 2) for kind, new in (("keys", key), ("values", value))]
        caches = [g.slice(cache, 0, g.size(self.mask, 3), axis=2) for cache in whole]
        query = g.mul(query, width**-0.5)
        return g.merge_heads(attend(g, query, caches[0], caches[1], self.mask, width, scale=1.0), heads, width)

    def _updated(self, name: str, new: ir.Value, shape: Sequence[Dim], axis: int) -> ir.Value:
        """A cache of keys or values with new ones in it; `axis` is that of time."""
        cache = self.g.input(f"{name}{self.suffix}", self.g.compute, shape)
        updated = self.g.op("TensorScatter", cache, new, self.write, axis=axis)
        self.g.output(updated, f"new_{name}{self.suffix}", self.g.compute, shape)
        return updated


@dataclass
class _Estimator:
    """The velocity network; keeps count of transformer blocks while it is laid down."""

    g: GraphBuilder
    c: EstimatorConfig
    tensors: Tensors
    precision: Precision
    shifts: ir.Value
    places: list[_Place]

    def build(self) -> list[ir.Value]:
        """Velocities (t, 2, mel) of every place."""
        c = self.c
        self.linear = LinearWriter(self.g, self.tensors, self.precision)
        self.block = 0
        frames = self.tensors.shape(f"{ESTIMATOR}.final_block.block.0.weight")[2] - 1
        for place in self.places:
            place.take_contexts(frames, self._context_widths())

        paths = resnet_paths(c)
        x = self._stage(self._joined([place.rows() for place in self.places]), paths[0], 0)
        skip = x
        x = self._causal(x, f"{ESTIMATOR}.down_blocks.0.2")
        for index, path in enumerate(paths[1:-1], start=1):
            x = self._stage(x, path, index)
        x = self._stage(self.g.concat(x, skip, axis=-1), paths[-1], len(paths) - 1)
        x = self._causal(x, f"{ESTIMATOR}.up_blocks.0.2")
        x = self._convolution_block(x, f"{ESTIMATOR}.final_block")
        for place in self.places:
            place.leave_contexts()
        return self._apart(convolve(self.g, self.tensors, x, f"{ESTIMATOR}.final_proj", axis=0))

    def _joined(self, parts: Sequence[ir.Value]) -> ir.Value:
        """The frames of all places, one behind another."""
        return self.g.concat(*parts, axis=0) if len(parts) > 1 else parts[0]

    def _apart(self, x: ir.Value) -> list[ir.Value]:
        """The frames of each place."""
        bounds: list[ir.Value | int] = [0, *self._ends, INT64_MAX]
        return [self.g.slice(x, start, stop, axis=0) for start, stop in pairwise(bounds)] if self._ends else [x]

    @cached_property
    def _ends(self) -> list[ir.Value]:
        """Where the frames of each place but the last end."""
        return list(accumulate((self.g.size(place.z, 1) for place in self.places[:-1]), self.g.add))

    def _context_widths(self) -> list[int]:
        """Input channels of every causal convolution in the order they run."""
        c, resnet = self.c, len(resnet_paths(self.c))
        first, last = [3 * c.mel, c.width], [2 * c.width, c.width]
        return [*first, c.width, *([c.width] * (2 * (resnet - 2))), *last, c.width, c.width]

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
        extended = [place.extended(part) for place, part in zip(self.places, self._apart(x), strict=True)]
        return convolve(self.g, self.tensors, extended, layer, 0, inputs)

    def _norm(self, x: ir.Value, name: str) -> ir.Value:
        return layer_norm(self.g, self.tensors, x, name, NORM_EPS)

    def _transformer(self, x: ir.Value, path: str) -> ir.Value:
        g = self.g
        normed = self._norm(x, f"{path}.norm1")
        # three products: side by side in one they would have to be taken apart again
        qkv = [self._apart(self.linear(normed, f"{path}.attn1.to_{part}")) for part in "qkv"]
        attended = [place.attend(self.block, *parts) for place, *parts in zip(self.places, *qkv, strict=True)]
        self.block += 1
        x = g.residual(x, self.linear(self._joined(attended), f"{path}.attn1.to_out.0"))
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
