"""Precision presets: what each stage computes in, how its linear layers are stored, and what accuracy that promises.

On the CPU every stage computes in float32, and a storage is the weights' ("int4"). For a GPU it is what the stage
computes in ("fp16"), with the weights' behind it where they are stored in less ("bf16+int4").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from omni2_engine.errors import SettingError
from omni2_engine.model.manifest import LoadSettings
from omni2_engine.settings import choice
from omni2_export.graphs.linear import Precision
from omni2_export.graphs.numerics import Numerics

COMPUTE = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
WEIGHTS = {"int8": Precision.INT8, "int4": Precision.INT4}


def _with_weights(*weights: str) -> tuple[str, ...]:
    return (*COMPUTE, *(f"{compute}+{stored}" for compute in ("fp16", "bf16") for stored in weights))


CPU, GPU = "cpu", "gpu"
CHOICES = {
    CPU: {
        "encoder": ("fp32", "int8"),
        "llm": ("fp32", "int8", "int4"),
        "speech_lm": ("fp32", "int8", "int4"),
        "flow": ("fp32", "int8"),
    },
    GPU: {
        "encoder": _with_weights("int8"),
        "llm": _with_weights("int8", "int4"),
        "fusion": _with_weights(),
        "speech_lm": _with_weights("int8", "int4"),
        "flow": ("fp32", "fp16"),  # bfloat16 would leave 27 dB in the sound, float16 leaves 44
        "vocoder": ("fp32", "fp16"),
    },
}
# On the CPU "int8" means per-channel weights and dynamically quantised activations in the encoder and the flow's
# velocity network, which are bound by arithmetic, and weight-only blocks in the language models, which are bound by
# memory. On a GPU it means weight-only everywhere, with a scale per output channel.
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
    ("speech_lm", "int8"): {"speech_lm": 12.0},
    ("speech_lm", "int4"): {"speech_lm": 3.0},
    ("flow", "int8"): {"estimator": 25.0, "flow_step": 30.0, "flow": 33.0, "sound": 30.0},
}
# The same for plans, one graph at a time against float32, by what it computes in and by how weights are stored: some
# 10 dB below what `bench precision` finds on random weights with every result rounded, at the tiny and the 0.5B size
# (docs/number_formats.md), for GPUs that sum in another order. Float32 without float64 keeps 90 in the vocoder and more
# elsewhere; one that rounds to TF32 unasked misses 70.
FLOAT32_FLOOR = 70.0
DEVICE_FLOORS = {
    "encoder": {"fp16": 52.0, "bf16": 35.0, "int8": 30.0},
    "llm": {"fp16": 43.0, "bf16": 25.0, "int8": 15.0, "int4": 1.5},
    "fusion": {"fp16": 58.0, "bf16": 40.0},
    "speech_lm": {"fp16": 38.0, "bf16": 20.0, "int8": 12.0, "int4": 0.5},
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

    def of(self, stage: str) -> Precision:
        """How a stage's linear layers are written."""
        storage = self.stages.get(stage, "fp32")
        if self.target == CPU and stage in DYNAMIC and storage == "int8":
            return Precision.DYNAMIC
        return WEIGHTS.get(storage.rpartition("+")[2], Precision.FP32)

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
    quantised = [(stage, storage) for stage, storage in stages.items() if storage != "fp32"]
    return {made: floor for choice in quantised for made, floor in FLOORS[choice].items()}


def device_floor(graph: str, storage: str) -> float:
    """The least signal-to-noise ratio, dB, of a plan against its float32 graph; `storage` as in `CHOICES`."""
    floors = {"fp32": FLOAT32_FLOOR, **DEVICE_FLOORS.get(graph, {})}
    return min(floors[part] for part in storage.split("+"))


_LIVE = LoadSettings(flow_steps=4, flow_solver="damped")
_FAST = {"encoder": "int8", "llm": "int4", "speech_lm": "int4", "flow": "int8"}
PRESETS = {
    "exact": Precisions("exact", {"encoder": "fp32", "llm": "fp32", "speech_lm": "fp32", "flow": "fp32"}),
    "balanced": Precisions("balanced", {"encoder": "int8", "llm": "int8", "speech_lm": "int8", "flow": "fp32"}),
    "fast": Precisions("fast", _FAST),
    "live": Precisions("live", _FAST, settings=_LIVE.model_copy(update={"encoder": "tail"})),
}
# bfloat16 in the language models: it is what they were trained in, and what their activations' range asks for.
_HALVES = {"encoder": "fp16", "llm": "bf16", "fusion": "bf16", "speech_lm": "bf16", "flow": "fp16", "vocoder": "fp32"}
_GPU_FAST = {**_HALVES, "llm": "bf16+int4", "speech_lm": "bf16+int4", "vocoder": "fp16"}
GPU_PRESETS = {
    "exact": Precisions("exact", dict.fromkeys(CHOICES[GPU], "fp32"), GPU),
    "balanced": Precisions("balanced", _HALVES, GPU),
    "fast": Precisions("fast", _GPU_FAST, GPU),
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
        if target == GPU and storage in WEIGHTS:
            storage = f"{stages[stage].partition('+')[0]}+{storage}"
        if storage not in choices[stage]:
            raise SettingError(f"{stage} cannot be stored as {storage!r}", f"use one of {', '.join(choices[stage])}")
        stages[stage] = storage
    settings = presets[preset].settings
    same = (name for name, other in presets.items() if (other.stages, other.settings) == (stages, settings))
    return Precisions(next(same, "custom"), stages, target, settings)
