"""What each call of each stage has to read and to compute, from a model's dimensions alone; everything in bf16.

Read are the weights of every matrix once per call and the keys and values of every row; activations stay on the chip.
Kernels are counted as a fused implementation has them: one for every matrix product, norm and attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property

from omni2_bench.common.work import (
    Shapes,
    encoder_work,
    estimator_weights,
    flow_encoder_weights,
    flow_work,
    matrices,
    prefill_work,
    vocoder_work,
)
from omni2_bench.simulate.device import Effort
from omni2_engine.model.config import DecoderConfig, TokenConfig
from omni2_export.checkpoint.names import decoder_shapes, encoder_shapes, fusion_shapes, vocoder_shapes
from omni2_export.checkpoint_writer.dimensions import Dimensions

BF16 = 2  # bytes
KEY_AND_VALUE = 2
GUIDANCE_ROWS = 2  # the velocity network computes a conditional and an unconditional row
NO_TOKENS = TokenConfig(eos=(0,), repetition_penalty=1.0, speech=0, sep=0, speech_eos=0)  # none is looked at


class Efforts:
    """One model's.

    Args:
        dimensions: of the model.
    """

    def __init__(self, dimensions: Dimensions) -> None:
        c = self.config = dimensions.model_config(NO_TOKENS)
        self._tied = dimensions.tie_llm
        # the same few arguments come again and again
        self._llm_work = cache(lambda count, seen: prefill_work(c.llm, count, seen).total)
        self._speech_work = cache(lambda count, seen: prefill_work(c.speech_lm, count, seen).total)
        self._flow_work = cache(lambda frames, seen: flow_work(c, frames, seen).total)
        self._vocoder_work = cache(lambda frames: vocoder_work(c.vocoder, frames).total)

    @cached_property
    def encode(self) -> Effort:
        """Encoder and projector, one window of speech. Never batched: its dynamic scales are per tensor."""
        c = self.config.encoder
        shapes = encoder_shapes(c)
        return Effort(_bytes(shapes), encoder_work(c).total, _kernels(shapes) + c.layers)

    def extend_llm(self, rows: Sequence[tuple[int, int]]) -> Effort:
        """One call of the language model.

        Args:
            rows: of every session in the call: positions to feed, and positions its cache holds already.
        """
        return self._llm + _extension(rows, self._llm_position, self._llm_work)

    def extend_speech(self, rows: Sequence[tuple[int, int]]) -> Effort:
        """One call of the speech LM, `rows` as for the language model."""
        return self._speech + _extension(rows, self._speech_position, self._speech_work)

    def fuse(self, rows: Sequence[int]) -> Effort:
        """Gate fusion; `rows` are the pairs of every session in the call."""
        return self._fusion_call + Effort(0, 2 * sum(rows) * self._fusion_call.bytes / BF16)

    def flow(self, rows: Sequence[tuple[int, int]]) -> Effort:
        """One call of flow encoder and solver.

        Args:
            rows: of every session in the call: mel frames to compute, and frames of finished blocks each of them sees
                beside those.
        """
        cached = self.flow_cache * sum(finished for _, finished in rows)
        work = (self._flow_work(count, count * (count + finished)) for count, finished in rows)
        return self._flow_call + Effort(cached, sum(work))

    def vocode(self, rows: Sequence[int]) -> Effort:
        """One call of the vocoder; `rows` are the mel frames of every session in the call."""
        return self._vocoder_call + Effort(0, sum(self._vocoder_work(frames) for frames in rows))

    @cached_property
    def weights(self) -> float:
        """Bytes of all weights, embedding tables included."""
        c = self.config
        decoders = [c.speech_lm] if self._tied else [c.speech_lm, c.llm]  # a tied head is the table
        tables = sum(decoder.vocab * decoder.hidden * BF16 for decoder in decoders)
        calls = (self.encode, self._llm, self._speech, self._fusion_call, self._vocoder_call)
        flow = flow_encoder_weights(c.flow_encoder) | estimator_weights(c.estimator)
        return sum(call.bytes for call in calls) + _bytes(flow) + tables

    @cached_property
    def flow_cache(self) -> float:
        """Bytes that one mel frame takes in the solver's caches."""
        c = self.config.estimator
        layers = c.transformers * (c.mid_blocks + 2)
        return float(c.steps * GUIDANCE_ROWS * KEY_AND_VALUE * layers * c.heads * c.head_dim * BF16)

    def decoder_caches(self, llm: int, speech: int) -> float:
        """Bytes of both language models' caches of so many positions."""
        return llm * self._llm_position + speech * self._speech_position

    @cached_property
    def _llm_position(self) -> float:
        return _position_bytes(self.config.llm)

    @cached_property
    def _speech_position(self) -> float:
        return _position_bytes(self.config.speech_lm)

    @cached_property
    def _llm(self) -> Effort:
        return _decoder_call(self.config.llm)

    @cached_property
    def _speech(self) -> Effort:
        return _decoder_call(self.config.speech_lm)

    @cached_property
    def _fusion_call(self) -> Effort:
        shapes = fusion_shapes(self.config.fusion)
        return Effort(_bytes(shapes), 0, _kernels(shapes))

    @cached_property
    def _flow_call(self) -> Effort:
        e, c = self.config.estimator, self.config.flow_encoder
        step, encoder = estimator_weights(e), flow_encoder_weights(c)
        step_kernels = _kernels(step) + e.transformers * (e.mid_blocks + 2)
        return Effort(
            e.steps * _bytes(step) + _bytes(encoder),
            0,
            e.steps * step_kernels + _kernels(encoder) + c.blocks + c.up_blocks,
        )

    @cached_property
    def _vocoder_call(self) -> Effort:
        shapes = vocoder_shapes(self.config.vocoder)
        return Effort(_bytes(shapes), 0, _kernels(shapes))


def _decoder_call(c: DecoderConfig) -> Effort:
    """What one call does however many rows it has: weights and kernels; the embedding table is looked up only."""
    shapes = decoder_shapes(c)
    return Effort(_bytes(shapes), 0, _kernels(shapes) + c.layers)


def _extension(rows: Sequence[tuple[int, int]], position: float, work: Callable[[int, int], float]) -> Effort:
    return Effort(position * sum(seen for _, seen in rows), sum(work(count, seen) for count, seen in rows))


def _position_bytes(c: DecoderConfig) -> float:
    return float(KEY_AND_VALUE * c.layers * c.kv_heads * c.head_dim * BF16)


def _bytes(shapes: Shapes) -> float:
    return float(BF16 * sum(matrices(shapes, "")))


def _kernels(shapes: Shapes) -> int:
    """Matrix products and norms; biases, activations and sums are part of them."""
    products = {name: shape for name, shape in shapes.items() if "pos_bias" not in name}  # those are added to queries
    norms = [name for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 1]
    return len(matrices(products, "")) + len(norms)
