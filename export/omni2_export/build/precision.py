"""Precision presets: how each stage's linear layers are stored, and what accuracy a preset promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omni2_engine.errors import SettingError
from omni2_export.graphs.linear import Precision

CHOICES = {
    "encoder": ("fp32", "int8"),
    "llm": ("fp32", "int8", "int4"),
    "speech_lm": ("fp32", "int8", "int4"),
    "flow": ("fp32", "int8"),
}
# "int8" means per-channel weights and dynamically quantised activations in the encoder and the flow's velocity network,
# which are bound by arithmetic, and weight-only blocks in the language models, which are bound by memory.
DYNAMIC = ("encoder", "flow")
KINDS = {"fp32": Precision.FP32, "int8": Precision.INT8, "int4": Precision.INT4}
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


@dataclass(frozen=True)
class Precisions:
    """A preset's name and the storage per stage; stages not named are float32."""

    preset: str
    stages: dict[str, str]

    def of(self, stage: str) -> Precision:
        """How a stage's linear layers are written."""
        name = self.stages.get(stage, "fp32")
        return Precision.DYNAMIC if stage in DYNAMIC and name == "int8" else KINDS[name]

    @property
    def floors(self) -> dict[str, float]:
        """See `snr_floors`."""
        return snr_floors(self.stages)


def snr_floors(stages: Mapping[str, str]) -> dict[str, float]:
    """The least signal-to-noise ratio, in dB, that what quantised stages make keeps; `stages` is stage → storage."""
    quantised = [(stage, storage) for stage, storage in stages.items() if storage != "fp32"]
    return {made: floor for choice in quantised for made, floor in FLOORS[choice].items()}


PRESETS = {
    "exact": Precisions("exact", {"encoder": "fp32", "llm": "fp32", "speech_lm": "fp32", "flow": "fp32"}),
    "balanced": Precisions("balanced", {"encoder": "int8", "llm": "int8", "speech_lm": "int8", "flow": "fp32"}),
    "fast": Precisions("fast", {"encoder": "int8", "llm": "int4", "speech_lm": "int4", "flow": "int8"}),
}


def parse_precision(text: str) -> Precisions:
    """Read `--precision`: a preset, and after it any number of `stage=storage`, separated by commas.

    Raises:
        SettingError: an unknown preset, stage or storage.
    """
    preset, *changes = (part.strip() for part in text.split(","))
    if preset not in PRESETS:
        raise SettingError(f"unknown precision {preset!r}", f"use one of {', '.join(PRESETS)}")
    stages = dict(PRESETS[preset].stages)
    for change in changes:
        stage, _, storage = change.partition("=")
        if stage not in CHOICES:
            raise SettingError(f"{change!r} names no stage with a precision", f"use one of {', '.join(CHOICES)}")
        if storage not in CHOICES[stage]:
            raise SettingError(f"{stage} cannot be stored as {storage!r}", f"use one of {', '.join(CHOICES[stage])}")
        stages[stage] = storage
    name = next((name for name, other in PRESETS.items() if other.stages == stages), "custom")
    return Precisions(name, stages)
