"""What each call of each stage has to read and to compute, and which kernels it launches.

Bytes and operations follow from a model's dimensions and number formats: read are the weights of every matrix once per
call and the keys and values of every row; activations stay on the chip. Kernels were counted, see
kernels.csv.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from omni2_bench.common.work import (
    Shapes,
    Work,
    encoder_work,
    estimator_weights,
    flow_encoder_weights,
    flow_work,
    matrices,
    prefill_work,
    vocoder_work,
)
from omni2_bench.simulate.device import Effort
from omni2_bench.simulate.evidence import read_table
from omni2_engine.backends.tensorrt.prefill import padded_positions
from omni2_engine.errors import SettingError
from omni2_engine.model.config import DecoderConfig, TokenConfig
from omni2_engine.model.manifest import PREFILL_SUFFIX
from omni2_engine.stages.encoder_tail import DEVICE_SPEECH, ENCODER_TAIL, MARGIN
from omni2_engine.stages.flow import padded_frames
from omni2_engine.stages.flow_first import padded_units
from omni2_export.checkpoint.names import decoder_shapes, encoder_shapes, fusion_shapes, vocoder_shapes
from omni2_export.checkpoint_writer.dimensions import Dimensions
from omni2_export.graphs.language_model import FIRST_LAYERS

SAMPLING = 3  # kernels of ours behind every decoding step, where it is the device that chooses
KEY_AND_VALUE = 2
TAIL_BYTES = 2  # a number of the encoder's tails
QUESTION = 5.0  # seconds that a question takes
POSITIONS_PER_SECOND = 50  # of the encoder
GUIDANCE_ROWS = 2  # the velocity network computes a conditional and an unconditional row
NO_TOKENS = TokenConfig(eos=(0,), repetition_penalty=1.0, speech=0, sep=0, speech_eos=0)  # none is looked at


@dataclass(frozen=True)
class StoredFormat:
    """Bytes of a weight, its part of a scale included, and how long arithmetic takes against 16 bits.

    Args:
        layers: bytes in the layers of a language model.
        head: in its head.
        encoder: in the encoder's layers.
        other: of every other weight, and of keys and values.
        products: times as long as in 16 bits take the linear layers of encoder and language models.
        slower: the same of all other arithmetic.
        feed: bytes in gates and up-projections behind the first layers of a language model; `layers` if None.
        decoding: of the plan that decodes text, and of the speech LM, which decodes above all; None if the language
            model has one plan, in which case all is in one format.
    """

    layers: float = 2
    head: float = 2
    encoder: float = 2
    other: float = 2
    products: float = 1.0
    slower: float = 1.0
    feed: float | None = None
    decoding: StoredFormat | None = None


INT4 = 0.5 + 2 / 128
MIXED = StoredFormat(layers=1, head=1, feed=INT4)
FORMATS = {
    ("tensorrt", "balanced"): StoredFormat(),
    ("tensorrt", "fast"): StoredFormat(layers=INT4, head=INT4),
    ("tensorrt", "fp8"): StoredFormat(layers=1, head=1, encoder=1, products=0.5),
    ("tensorrt", "mixed"): StoredFormat(layers=1, head=1, encoder=1, products=0.5, decoding=MIXED),
    # int8 language models, all else float32 with TF32
    ("cuda", "balanced"): StoredFormat(1 + 4 / 128, 1 + 4 / 128, encoder=4, other=4, products=2.0, slower=2.0),
}


class Efforts:
    """One model's.

    Args:
        dimensions: of the model.
        runtime: "tensorrt", or "cuda" for ONNX Runtime's provider.
        precision: "balanced", "fast" with language models in int4, "fp8" with encoder and language models in fp8, or
            "mixed" with encoder and prefill in fp8, and int8 and int4 weights where tokens are decoded.
        tail: the encoder computes a question of `QUESTION` seconds and reads the silence behind it, see
            `TailedEncoder`.
    """

    def __init__(
        self, dimensions: Dimensions, runtime: str = "tensorrt", precision: str = "balanced", tail: bool = False
    ) -> None:
        c = self.config = dimensions.model_config(NO_TOKENS)
        self._kernels = kernel_counts(runtime, precision)
        self._format = FORMATS[runtime, precision]
        self._decoding = self._format.decoding or self._format
        self._padded = runtime == "tensorrt"
        self._sampling = SAMPLING if self._padded else 0
        self._tied = dimensions.tie_llm
        self._tail = tail
        # the same few arguments come again and again
        self._prefill_work = cache(lambda count, seen: operations(prefill_work(c.llm, count, seen), self._format))
        self._llm_work = cache(lambda count, seen: operations(prefill_work(c.llm, count, seen), self._decoding))
        self._speech_work = cache(
            lambda count, seen: operations(prefill_work(c.speech_lm, count, seen), self._decoding)
        )
        self._flow_work = cache(lambda frames, seen: self._format.slower * flow_work(c, frames, seen).total)
        self._vocoder_work = cache(lambda frames: self._format.slower * vocoder_work(c.vocoder, frames).total)

    @cached_property
    def encode(self) -> Effort:
        """Log-mel, encoder and projector, one window of speech; never batched."""
        c, plan = self.config.encoder, ENCODER_TAIL if self._tail else "encoder"
        computed = min(n for n in self._lengths if n >= QUESTION * POSITIONS_PER_SECOND + MARGIN)
        launches = self._launches("log_mel") + self._launches(plan, c.layers)
        read = self._encoder_weights + self._tail_bytes(computed)
        return Effort(read, operations(encoder_work(c, computed), self._format), launches)

    @property
    def _lengths(self) -> list[int]:
        """Numbers of positions that the encoder can compute."""
        shorter = [speech + MARGIN for speech in DEVICE_SPEECH] if self._tail else []
        return [*shorter, self.config.encoder.context]

    def _tail_bytes(self, computed: int) -> float:
        """Of the keys and values behind that number of positions."""
        c = self.config.encoder
        return float(KEY_AND_VALUE * c.layers * (c.context - computed) * c.width * TAIL_BYTES)

    @cached_property
    def _encoder_weights(self) -> float:
        """Bytes of all weights of the encoder and the projector."""
        shapes = encoder_shapes(self.config.encoder)
        narrower = (self._format.other - self._format.encoder) * sum(matrices(shapes, "blocks."))
        return self._bytes(shapes) - narrower

    def extend_llm(self, rows: Sequence[tuple[int, int]]) -> Effort:
        """One call of the language model.

        Args:
            rows: of every session in the call: positions to feed, and positions its cache holds already. One position
                of each is a decoding step.
        """
        if max(count for count, _ in rows) > 1:
            return self._prefill + self._extension(rows, self._llm_position, self._prefill_work)
        return self._llm + self._extension(rows, self._llm_position, self._llm_work)

    def extend_speech(self, rows: Sequence[tuple[int, int]]) -> Effort:
        """One call of the speech LM, `rows` as for the language model."""
        return self._speech + self._extension(rows, self._speech_position, self._speech_work)

    def fuse(self, rows: Sequence[int]) -> Effort:
        """Gate fusion; `rows` are the pairs of every session in the call."""
        weights = self._fusion_call.bytes / self._format.other
        return self._fusion_call + Effort(0, self._format.slower * 2 * sum(rows) * weights)

    def flow(self, rows: Sequence[tuple[int, int]], first: bool = False) -> Effort:
        """One call of flow encoder and solver.

        Args:
            rows: of every session in the call: mel frames to compute, and frames of finished blocks each of them sees
                beside those.
            first: while no block of the turn is finished: TensorRT has graphs without state for that, see `FirstBlock`.
        """
        if first and self._padded:
            work = (self._flow_work(frames, frames * frames) for frames in map(self._first_frames, rows))
            return self._first_flow_call + Effort(0, sum(work))
        cached = self.flow_cache * sum(finished for _, finished in rows)
        work = (self._flow_work(padded, padded * (padded + finished)) for padded, finished in self._padded_frames(rows))
        return self._flow_call + Effort(cached, sum(work))

    def vocode(self, rows: Sequence[int]) -> Effort:
        """One call of the vocoder; `rows` are the mel frames of every session in the call."""
        return self._vocoder_call + Effort(0, sum(self._vocoder_work(frames) for frames in rows))

    @cached_property
    def weights(self) -> float:
        """Bytes of all weights, embedding tables and the encoder's tails included."""
        c = self.config
        decoders = [c.speech_lm] if self._tied else [c.speech_lm, c.llm]  # a tied head is the table
        tables = sum(decoder.vocab * decoder.hidden * self._format.other for decoder in decoders)
        calls = [self._llm, self._speech, self._fusion_call, self._vocoder_call]
        calls += [self._prefill] if self._format.decoding else []
        encoder = self._encoder_weights + sum(map(self._tail_bytes, self._lengths))
        flow = self._bytes(flow_encoder_weights(c.flow_encoder) | estimator_weights(c.estimator))
        copies = 2 if self._padded else 1  # the plans of a turn's first units have their own
        return encoder + sum(call.bytes for call in calls) + copies * flow + tables

    @cached_property
    def flow_cache(self) -> float:
        """Bytes that one mel frame takes in the solver's caches."""
        c = self.config.estimator
        layers = c.transformers * (c.mid_blocks + 2)
        return float(c.steps * GUIDANCE_ROWS * KEY_AND_VALUE * layers * c.heads * c.head_dim * self._format.other)

    def decoder_caches(self, llm: int, speech: int) -> float:
        """Bytes of both language models' caches of this number of positions."""
        return llm * self._llm_position + speech * self._speech_position

    @cached_property
    def _llm_position(self) -> float:
        return self._position_bytes(self.config.llm)

    @cached_property
    def _speech_position(self) -> float:
        return self._position_bytes(self.config.speech_lm)

    @cached_property
    def _llm(self) -> Effort:
        return self._decoder_call("llm", self.config.llm, self._decoding)

    @cached_property
    def _prefill(self) -> Effort:
        plan = f"llm{PREFILL_SUFFIX}" if self._format.decoding else "llm"
        return self._decoder_call(plan, self.config.llm, self._format)

    @cached_property
    def _speech(self) -> Effort:
        return self._decoder_call("speech_lm", self.config.speech_lm, self._decoding)

    def _decoder_call(self, plan: str, c: DecoderConfig, stored: StoredFormat) -> Effort:
        """What one call does however many rows it has: weights and kernels; the embedding table is looked up only."""
        shapes = decoder_shapes(c)
        read = sum(matrices(shapes, "layers.")) * stored.layers + sum(matrices(shapes, "lm_head.")) * stored.head
        if stored.feed is not None:
            behind = range(round(c.layers * FIRST_LAYERS), c.layers)
            fed = (f"layers.{layer}.mlp.{part}_proj" for layer in behind for part in ("gate", "up"))
            read -= (stored.layers - stored.feed) * sum(matrices(shapes, *fed))
        return Effort(read, 0, self._launches(plan, c.layers) + self._sampling)

    @cached_property
    def _fusion_call(self) -> Effort:
        return Effort(self._bytes(fusion_shapes(self.config.fusion)), 0, self._launches("fusion"))

    @cached_property
    def _flow_call(self) -> Effort:
        e, c = self.config.estimator, self.config.flow_encoder
        read = e.steps * self._bytes(estimator_weights(e)) + self._bytes(flow_encoder_weights(c))
        return Effort(read, 0, e.steps * self._launches("flow_step") + self._launches("flow_encoder"))

    @cached_property
    def _first_flow_call(self) -> Effort:
        steps = self.config.estimator.steps
        launches = steps * self._launches("first_flow_step") + self._launches("first_flow_encoder")
        return Effort(self._flow_call.bytes, 0, launches)

    def _first_frames(self, row: tuple[int, int]) -> int:
        """Frames that a call without state computes, those of the look-ahead included."""
        c = self.config.flow_encoder
        return c.ratio * padded_units(row[0] // c.ratio + c.lookahead, c)

    @cached_property
    def _vocoder_call(self) -> Effort:
        return Effort(self._bytes(vocoder_shapes(self.config.vocoder)), 0, self._launches("vocoder"))

    def _padded_frames(self, rows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Frames that a plan's calls compute, see `Flow`."""
        if not self._padded:
            return list(rows)
        block = self.config.flow_encoder.block_frames
        return [(padded_frames(count, block), finished) for count, finished in rows]

    def _launches(self, plan: str, layers: int = 0) -> int:
        fixed, per_layer = self._kernels[plan]
        return fixed + layers * per_layer

    def _extension(self, rows: Sequence[tuple[int, int]], position: float, work: Callable[[int, int], float]) -> Effort:
        fed = [(padded_positions(count) if self._padded and count > 1 else count, seen) for count, seen in rows]
        return Effort(position * sum(seen for _, seen in rows), sum(work(count, seen) for count, seen in fed))

    def _position_bytes(self, c: DecoderConfig) -> float:
        return float(KEY_AND_VALUE * c.layers * c.kv_heads * c.head_dim * self._format.other)

    def _bytes(self, shapes: Shapes) -> float:
        return float(self._format.other * sum(matrices(shapes, "")))


def operations(work: Work, stored: StoredFormat) -> float:
    """As many in 16 bits as take the time of these."""
    return stored.products * work.linear + stored.slower * work.other


def kernel_counts(runtime: str, precision: str) -> dict[str, tuple[int, int]]:
    """Of every plan: kernels of a call beside its layers, and of each layer; see kernels.csv.

    Raises:
        SettingError: nothing was counted for these.
    """
    rows = [row for row in read_table("kernels.csv") if (row["runtime"], row["precision"]) == (runtime, precision)]
    if not rows:
        raise SettingError(f"the kernels of {precision} by {runtime} were not counted", "see simulate/kernels.csv")
    return {row["plan"]: (int(row["fixed"]), int(row["per_layer"])) for row in rows}
