"""The sampling settings in force in the original (`tts_sampling_observed.json`) against the engine's defaults."""

from __future__ import annotations

from pathlib import Path

from omni2_engine.errors import CheckpointError
from omni2_engine.model.config import ModelConfig
from omni2_engine.turn.options import LAST_WRITE, SPEECH_SAMPLING
from omni2_export.fields import read_json
from omni2_export.verify.goldens import REMAKE, GoldenError
from omni2_export.verify.rows import Comparison

FILE = "tts_sampling_observed.json"


def compare_sampling(directory: Path, config: ModelConfig, comparison: Comparison) -> None:
    """Compare the speech LM's settings, if the directory of goldens has their file.

    Raises:
        GoldenError: the file is damaged.
    """
    path = directory / FILE
    if not path.is_file():
        return
    try:
        file = read_json(path)
        settings = file.section("gc")
        observed = {name: settings.number(name) for name in ("temperature", "top_p", "repetition_penalty")}
        observed |= {name: settings.integer(name, least=0) for name in ("top_k", "max_new_tokens", "eos_token_id")}
        sampled = settings.flag("do_sample", False)
        warpers = [str(warper[0]) for warper in file.values["warpers"]]
    except CheckpointError as error:
        raise GoldenError(error.problem, REMAKE) from error
    except (KeyError, TypeError, IndexError) as error:
        raise GoldenError(f"{path}: `warpers` is not a list of names with their arguments", REMAKE) from error
    ours = {
        "temperature": SPEECH_SAMPLING.temperature,
        "top_p": SPEECH_SAMPLING.top_p,
        "repetition_penalty": SPEECH_SAMPLING.repetition_penalty,
        "top_k": SPEECH_SAMPLING.top_k,
        "max_new_tokens": LAST_WRITE,
        "eos_token_id": config.tokens.speech_eos,
    }
    if not sampled:  # greedy at any temperature
        observed["temperature"] = 0.0
    in_force = {
        "TemperatureLogitsWarper": SPEECH_SAMPLING.temperature != 1.0,
        "TopKLogitsWarper": SPEECH_SAMPLING.top_k > 0,
        "TopPLogitsWarper": SPEECH_SAMPLING.top_p < 1.0,
    }
    names = ", ".join(name for name, on in in_force.items() if on)
    comparison.same(path.stem, "warpers", ("sampling",), names, ", ".join(warpers))
    for name, value in ours.items():
        comparison.same(path.stem, name, ("sampling",), [value], [observed[name]])
