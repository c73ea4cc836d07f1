"""Precision presets: what each stage computes in, how its linear layers are stored, and what accuracy that promises.

On the CPU every stage computes in float32, and a storage is the weights' ("int4"). Behind it may stand "+units" (the
speech LM's head scores the tokens of units and the end alone) or "+kv16" (the flow's keys and values are float16). For
a GPU it is what the stage computes in ("fp16"), with the weights' behind it where these take less ("bf16+int4"). Two of
these are of a language model with two plans: the one that prefills, and the one that decodes ("bf16+fp8+mixed").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from omni2_engine.errors import SettingError
from omni2_engine.model.manifest import PREFILL_SUFFIX, LoadSettings
from omni2_engine.settings import choice
from omni2_export.graphs.linear import Precision
from omni2_export.graphs.numerics import Numerics

COMPUTE = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
WEIGHTS = {
    "int8": Precision.INT8,
    "int4": Precision.INT4,
    "mixed": Precision.MIXED,
    "w8a8": Precision.W8A8,
    "fp8": Precision.FP8,
}
UNITS_ALONE, HALF_CACHES = "+units", "+kv16"  # behind a storage on the CPU


def _with_weights(*weights: str) -> tuple[str, ...]:
    return (*COMPUTE, *(f"{compute}+{stored}" for compute in ("fp16", "bf16") for stored in weights))


CPU, GPU = "cpu", "gpu"
CHOICES = {
    CPU: {
        "encoder": ("fp32", "int8"),
        "llm": ("fp32", "int8", "int4", "w8a8"),
        "speech_lm": ("fp32", "int8", "int4", "int8+units", "int4+units"),
        "flow": ("fp32", "int8", "int8+kv16"),
    },
    GPU: {
        "encoder": _with_weights("int8", "fp8"),
        "llm": _with_weights("int8", "int4", "mixed", "fp8", "fp8+mixed"),
        "fusion": _with_weights(),
        "speech_lm": _with_weights("int8", "int4", "mixed", "fp8"),
        "flow": ("fp32", "fp16"),  # bfloat16 would leave 27 dB in the sound, float16 leaves 44
        "vocoder": ("fp32", "fp16"),
    },
}
# On the CPU "int8" means per-channel weights and dynamically quantised activations in the encoder and the flow's
# velocity network, which are bound by arithmetic, and weight-only blocks in the language models, which are bound by
# memory while they decode; "w8a8" serves their prefill, which arithmetic bounds. On a GPU int8 means weight-only
# everywhere, with a scale per output channel; fp8 means activations too; mixed is int4 in those layers of a language
# model that lose least by it, and int8 in all others. fp8 serves prefill and mixed decoding: a prompt is bound by
# arithmetic, a token by the bytes that are read.
DYNAMIC = ("encoder", "flow")
# dB that results keep at least over their quantisation error, by what a row of `verify` or `--check` compares. Measured
# on random weights, which are the hardest: over 2 to 12 layers int8 keeps 17 to 33 and int4 4 to 10 (one layer of width
# 896: 46 and 26), the encoder 37 to 61; the velocity network 33 to 41, the mel made with it 39 to 45. The vocoder's
# exponential enlarges what is left in the mel: over vocoders of several shapes and one released size the sound, driven
# by one source, keeps 30 to 40.
FLOORS = {
    ("encoder", "int8"): {"encoder": 25.0},
    ("llm", "int8"): {"llm": 12.0},
    ("llm", "int4"): {"llm": 3.0},
    ("llm", "w8a8"): {"llm": 12.0},
    ("speech_lm", "int8"): {"speech_lm": 12.0},
    ("speech_lm", "int4"): {"speech_lm": 3.0},
    ("flow", "int8"): {"estimator": 25.0, "flow_step": 30.0, "flow": 33.0, "sound": 30.0},
}
# The same for plans, one graph at a time against float32, by what it computes in and by how weights are stored: some
# 10 dB below what `bench precision` finds on random weights with every result rounded, at the tiny and the 0.5B size
# (docs/number_formats.md), for GPUs that sum in another order. Float32 without float64 keeps 90 in the vocoder and more
# elsewhere; one that rounds to TF32 unasked misses 70. fp8 was measured at the tiny size alone; its floors leave room
# for 24 layers.
FLOAT32_FLOOR = 70.0
DEVICE_FLOORS = {
    "encoder": {"fp16": 52.0, "bf16": 35.0, "int8": 30.0, "fp8": 18.0},
    "llm": {"fp16": 43.0, "bf16": 25.0, "int8": 15.0, "int4": 1.5, "mixed": 3.0, "fp8": 3.0},
    "fusion": {"fp16": 58.0, "bf16": 40.0},
    "speech_lm": {"fp16": 38.0, "bf16": 20.0, "int8": 12.0, "int4": 0.5, "mixed": 2.0, "fp8": 2.0},
    "flow_conditions": {"fp16": FLOAT32_FLOOR},  # float32 at every precision of the flow
    "flow_encoder": {"fp16": 50.0},
    "flow_step": {"fp16": 40.0},  # the mel after all Euler steps; measured 58
    "vocoder": {"fp32": 60.0, "fp16": 35.0},
}


@dataclass(frozen=True)
class Precisions:
    """A preset's name and the storage per stage; stages not named are float32.

    Args:
        preset: its name, or "custom".
        stages: stage → storage.
        target: "cpu" or "gpu".
        settings: how the engine is loaded unless told otherwise.
    """

    preset: str
    stages: dict[str, str]
    target: str = CPU
    settings: LoadSettings = field(default_factory=LoadSettings)

    def loaded_with(self, encoder: str | None) -> Precisions:
        """The same for an engine that is loaded with another encoder, "window" or "tail"; None changes nothing.

        Raises:
            SettingError: it is neither.
        """
        if encoder is None:
            return self
        choice("encoder", encoder, ("window", "tail"))
        return replace(self, settings=self.settings.model_copy(update={"encoder": encoder}))

    def plan_storage(self, plan: str) -> str | None:
        """What a plan computes in and stores, such as "bf16+int4"; None of one for prefill where one plan does both.

        Args:
            plan: a stage, or "llm_prefill".
        """
        compute, *weights = self.stages.get(plan.removesuffix(PREFILL_SUFFIX), "fp32").split("+")
        if not plan.endswith(PREFILL_SUFFIX):
            return "+".join([compute, *weights[-1:]])
        return f"{compute}+{weights[0]}" if len(weights) > 1 else None

    def of(self, stage: str) -> Precision:
        """How a stage's linear layers are written; for a GPU those of a plan, see `plan_storage`."""
        storage = self.stages.get(stage, "fp32")
        if self.target == GPU:
            return WEIGHTS.get((self.plan_storage(stage) or "").partition("+")[2], Precision.FP32)
        stored = storage.partition("+")[0]
        if stage in DYNAMIC and stored == "int8":
            return Precision.DYNAMIC
        return WEIGHTS.get(stored, Precision.FP32)

    @property
    def units_alone(self) -> bool:
        """Whether the speech LM's head scores units and the end alone."""
        return "speech_lm" in unscored_stages(self.stages)

    @property
    def half_caches(self) -> bool:
        """Whether the flow's keys and values are float16 where it computes in float32."""
        return self.stages.get("flow", "").endswith(HALF_CACHES)

    def numerics(self, stage: str) -> Numerics:
        """What a stage computes in."""
        if self.target == CPU:
            return Numerics()
        compute = COMPUTE[self.stages.get(stage, "fp32").partition("+")[0]]
        return Numerics(compute, doubles=False, device=True)

    @property
    def floors(self) -> dict[str, float]:
        """See `snr_floors`."""
        return snr_floors(self.stages)


def snr_floors(stages: Mapping[str, str]) -> dict[str, float]:
    """The least signal-to-noise ratio, in dB, that what quantised stages make keeps; `stages` is stage → storage."""
    quantised = [(stage, storage.partition("+")[0]) for stage, storage in stages.items() if storage != "fp32"]
    return {made: floor for choice in quantised for made, floor in FLOORS[choice].items()}


def unscored_stages(stages: Mapping[str, str]) -> list[str]:
    """Stages whose head scores some of the vocabulary alone; `stages` is stage → storage."""
    return [stage for stage, storage in stages.items() if storage.endswith(UNITS_ALONE)]


def device_floor(graph: str, storage: str) -> float:
    """The least signal-to-noise ratio, dB, of a plan against its float32 graph; `storage` as in `CHOICES`."""
    floors = {"fp32": FLOAT32_FLOOR, **DEVICE_FLOORS.get(graph.removesuffix(PREFILL_SUFFIX), {})}
    return min(floors[part] for part in storage.split("+"))


_LIVE = LoadSettings(encoder="tail", flow_steps=4, flow_solver="damped")
_FAST = {"encoder": "int8", "llm": "int4", "speech_lm": "int4", "flow": "int8"}
PRESETS = {
    "exact": Precisions("exact", {"encoder": "fp32", "llm": "fp32", "speech_lm": "fp32", "flow": "fp32"}),
    "balanced": Precisions("balanced", {"encoder": "int8", "llm": "int8", "speech_lm": "int8", "flow": "fp32"}),
    "fast": Precisions("fast", _FAST),
    "live": Precisions(
        "live",
        {"encoder": "int8", "llm": "w8a8", "speech_lm": "int8+units", "flow": "int8+kv16"},
        settings=_LIVE,
    ),
}
# bfloat16 in the language models: it is what they were trained in, and what their activations' range asks for.
_HALVES = {"encoder": "fp16", "llm": "bf16", "fusion": "bf16", "speech_lm": "bf16", "flow": "fp16", "vocoder": "fp32"}
_GPU_FAST = {**_HALVES, "llm": "bf16+int4", "speech_lm": "bf16+int4", "vocoder": "fp16"}
_FP8 = {**_HALVES, "encoder": "fp16+fp8", "llm": "bf16+fp8", "speech_lm": "bf16+fp8"}
_MIXED = {**_FP8, "llm": "bf16+fp8+mixed", "speech_lm": "bf16+mixed"}
GPU_PRESETS = {
    "exact": Precisions("exact", dict.fromkeys(CHOICES[GPU], "fp32"), GPU),
    "balanced": Precisions("balanced", _HALVES, GPU),
    "fast": Precisions("fast", _GPU_FAST, GPU),
    "fp8": Precisions("fp8", _FP8, GPU),
    "mixed": Precisions("mixed", _MIXED, GPU),
    "live": Precisions("live", _GPU_FAST, GPU, _LIVE),
}


def parse_precision(text: str, target: str = CPU) -> Precisions:
    """Read `--precision`: a preset, and after it any number of `stage=storage`, separated by commas.

    For a GPU a storage may also name weights alone ("int4"): the stage goes on computing in the preset's type.

    Raises:
        SettingError: an unknown preset, stage or storage.
    """
    preset, *changes = (part.strip() for part in text.split(","))
    presets, choices = (PRESETS if target == CPU else GPU_PRESETS), CHOICES[target]
    if preset not in presets:
        raise SettingError(f"unknown precision {preset!r}", f"use one of {', '.join(presets)}")
    stages = dict(presets[preset].stages)
    for change in changes:
        stage, _, storage = change.partition("=")
        if stage not in choices:
            raise SettingError(f"{change!r} names no stage with a precision", f"use one of {', '.join(choices)}")
        computed = f"{stages[stage].partition('+')[0]}+{storage}"
        if target == GPU and computed in choices[stage]:
            storage = computed
        if storage not in choices[stage]:
            raise SettingError(f"{stage} cannot be stored as {storage!r}", f"use one of {', '.join(choices[stage])}")
        stages[stage] = storage
    settings = presets[preset].settings
    same = (name for name, other in presets.items() if (other.stages, other.settings) == (stages, settings))
    return Precisions(next(same, "custom"), stages, target, settings)
