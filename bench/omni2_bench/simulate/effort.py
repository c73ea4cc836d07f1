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
from omni2_engine.stages.flow import padded_frames
from omni2_export.checkpoint.names import decoder_shapes, encoder_shapes, fusion_shapes, vocoder_shapes
from omni2_export.checkpoint_writer.dimensions import Dimensions

SAMPLING = 3  # kernels of ours behind every decoding step, where it is the device that chooses
KEY_AND_VALUE = 2
GUIDANCE_ROWS = 2  # the velocity network computes a conditional and an unconditional row
NO_TOKENS = TokenConfig(eos=(0,), repetition_penalty=1.0, speech=0, sep=0, speech_eos=0)  # none is looked at


@dataclass(frozen=True)
class StoredFormat:
    """Bytes, and how much slower than in 16 bits arithmetic is.

    Args:
        linear: of a language model's weight, its part of a scale included.
        other: of every other weight, and of keys and values.
        slower: times the operations that 16 bits would take.
    """

    linear: float
    other: float
    slower: float = 1.0


FORMATS = {
    ("tensorrt", "balanced"): StoredFormat(2, 2),
    ("tensorrt", "fast"): StoredFormat(0.5 + 2 / 128, 2),
    ("cuda", "balanced"): StoredFormat(1 + 4 / 128, 4, slower=2.0),  # int8 language models, all else float32 with TF32
}


class Efforts:
    """One model's.

    Args:
        dimensions: of the model.
        runtime: "tensorrt", or "cuda" for ONNX Runtime's provider.
        precision: "balanced", or "fast" with language models in int4.
    """

    def __init__(self, dimensions: Dimensions, runtime: str = "tensorrt", precision: str = "balanced") -> None:
        c = self.config = dimensions.model_config(NO_TOKENS)
        self._kernels = kernel_counts(runtime, precision)
        self._format = FORMATS[runtime, precision]
        self._padded = runtime == "tensorrt"
        self._sampling = SAMPLING if self._padded else 0
        self._tied = dimensions.tie_llm
        # the same few arguments come again and again
        self._llm_work = cache(lambda count, seen: prefill_work(c.llm, count, seen).total)
        self._speech_work = cache(lambda count, seen: prefill_work(c.speech_lm, count, seen).total)
        self._flow_work = cache(lambda frames, seen: flow_work(c, frames, seen).total)
        self._vocoder_work = cache(lambda frames: vocoder_work(c.vocoder, frames).total)

    @cached_property
    def encode(self) -> Effort:
        """Log-mel, encoder and projector, one window of speech. Never batched: its dynamic scales are per tensor."""
        c = self.config.encoder
        launches = self._launches("log_mel") + self._launches("encoder", c.layers)
        return self._effort(self._bytes(encoder_shapes(c)), encoder_work(c).total, launches)

    def extend_llm(self, rows: Sequence[tuple[int, int]]) -> Effort:
        """One call of the language model.

        Args:
            rows: of every session in the call: positions to feed, and positions its cache holds already.
        """
        return self._llm + self._extension(rows, self._llm_position, self._llm_work)

    def extend_speech(self, rows: Sequence[tuple[int, int]]) -> Effort:
        """One call of the speech LM, `rows` as for the language model."""
        return self._speech + self._extension(rows, self._speech_position, self._speech_work)

    def fuse(self, rows: Sequence[int]) -> Effort:
        """Gate fusion; `rows` are the pairs of every session in the call."""
        return self._fusion_call + self._effort(0, 2 * sum(rows) * self._fusion_call.bytes / self._format.other)

    def flow(self, rows: Sequence[tuple[int, int]]) -> Effort:
        """One call of flow encoder and solver.

        Args:
            rows: of every session in the call: mel frames to compute, and frames of finished blocks each of them sees
                beside those.
        """
        cached = self.flow_cache * sum(finished for _, finished in rows)
        work = (self._flow_work(padded, padded * (padded + finished)) for padded, finished in self._padded_frames(rows))
        return self._flow_call + self._effort(cached, sum(work))

    def vocode(self, rows: Sequence[int]) -> Effort:
        """One call of the vocoder; `rows` are the mel frames of every session in the call."""
        return self._vocoder_call + self._effort(0, sum(self._vocoder_work(frames) for frames in rows))

    @cached_property
    def weights(self) -> float:
        """Bytes of all weights, embedding tables included."""
        c = self.config
        decoders = [c.speech_lm] if self._tied else [c.speech_lm, c.llm]  # a tied head is the table
        tables = sum(decoder.vocab * decoder.hidden * self._format.other for decoder in decoders)
        calls = (self.encode, self._llm, self._speech, self._fusion_call, self._vocoder_call)
        flow = flow_encoder_weights(c.flow_encoder) | estimator_weights(c.estimator)
        return sum(call.bytes for call in calls) + self._bytes(flow) + tables

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
        return self._decoder_call("llm", self.config.llm)

    @cached_property
    def _speech(self) -> Effort:
        return self._decoder_call("speech_lm", self.config.speech_lm)

    def _decoder_call(self, plan: str, c: DecoderConfig) -> Effort:
        """What one call does however many rows it has: weights and kernels; the embedding table is looked up only."""
        read = self._format.linear * sum(matrices(decoder_shapes(c), ""))
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

    def _effort(self, read: float, operations: float, launches: int = 0) -> Effort:
        return Effort(read, self._format.slower * operations, launches)

    def _extension(self, rows: Sequence[tuple[int, int]], position: float, work: Callable[[int, int], float]) -> Effort:
        fed = [(padded_positions(count) if self._padded and count > 1 else count, seen) for count, seen in rows]
        return self._effort(position * sum(seen for _, seen in rows), sum(work(count, seen) for count, seen in fed))

    def _position_bytes(self, c: DecoderConfig) -> float:
        return float(KEY_AND_VALUE * c.layers * c.kv_heads * c.head_dim * self._format.other)

    def _bytes(self, shapes: Shapes) -> float:
        return float(self._format.other * sum(matrices(shapes, "")))


def kernel_counts(runtime: str, precision: str) -> dict[str, tuple[int, int]]:
    """Of every plan: kernels of a call beside its layers, and of each layer; see kernels.csv.

    Raises:
        SettingError: nothing was counted for these.
    """
    rows = [row for row in read_table("kernels.csv") if (row["runtime"], row["precision"]) == (runtime, precision)]
    if not rows:
        raise SettingError(f"the kernels of {precision} by {runtime} were not counted", "see simulate/kernels.csv")
    return {row["plan"]: (int(row["fixed"]), int(row["per_layer"])) for row in rows}
