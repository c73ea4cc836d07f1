"""What golden files of each kind hold: type and shape of every array by its name, in terms of the model's dimensions.

A dimension is a number, or a symbol for a length that differs from file to file but not within one. Array names are
regular expressions; a symbol may repeat what a group of them matched, as `\\1`.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from omni2_engine.model.config import ModelConfig
from omni2_export.speaker import BINS


class Kind(Enum):
    """Kinds of golden files, spelled as their names begin."""

    TURN = "llm_<n>"
    MULTITURN = "llm_multiturn*"
    TEXT_END = "llm_eos*"
    UNITS = "decoder_units"
    STREAM = "stream_*"
    OFFLINE = "offline_*"


class ExpectedArray(NamedTuple):
    """Type ("f" floats, "i" integers, "U" text) and shape of an array; ids are at least 0 and less than `below`."""

    dtype: str
    shape: tuple[int | str, ...]
    below: int | None = None


def kind_of(stem: str) -> Kind | None:
    """The kind of a file by its name without `.npz`; None if it is not known."""
    prefixes = {
        "llm_multiturn": Kind.MULTITURN,
        "llm_eos": Kind.TEXT_END,
        "stream_": Kind.STREAM,
        "offline_": Kind.OFFLINE,
    }
    for prefix, kind in prefixes.items():
        if stem.startswith(prefix):
            return kind
    if stem == "decoder_units":
        return Kind.UNITS
    number = stem.removeprefix("llm_")
    return Kind.TURN if number != stem and number.isdecimal() else None


def schema(kind: Kind, config: ModelConfig) -> dict[str, ExpectedArray]:
    """Array name pattern → what it must be."""
    makers = {
        Kind.TURN: _turn,
        Kind.MULTITURN: _multiturn,
        Kind.TEXT_END: _text_end,
        Kind.UNITS: _units,
        Kind.STREAM: _stream,
        Kind.OFFLINE: _offline,
    }
    return makers[kind](config)


def _prompt(c: ModelConfig) -> dict[str, ExpectedArray]:
    return {
        "prompt_text": ExpectedArray("U", ()),
        "prompt_ids_raw": ExpectedArray("i", ("ids",)),
        "prompt_ids": ExpectedArray("i", ("ids",)),
        "inputs_embeds": ExpectedArray("f", ("positions", c.llm.hidden)),
        "prefill_last_logits": ExpectedArray("f", (c.llm.vocab,)),
    }


def _turn(c: ModelConfig) -> dict[str, ExpectedArray]:
    run = "(f|g|rp1)"
    return _prompt(c) | {
        "audio16k_i16": ExpectedArray("i", ("samples",)),
        "log_mel": ExpectedArray("f", (c.encoder.frames, c.encoder.mel_bins)),
        "encoder_out": ExpectedArray("f", (c.encoder.context, c.encoder.width)),
        "projector_out": ExpectedArray("f", (c.encoder.positions, c.encoder.output)),
        "prefill_last_hidden": ExpectedArray("f", (c.llm.hidden,)),
        "text_ids": ExpectedArray("i", ("text",), c.llm.vocab),
        "llm_logits": ExpectedArray("f", ("text", c.llm.vocab)),
        "tts_hidden": ExpectedArray("f", ("text", c.llm.hidden)),
        "input_proj_out": ExpectedArray("f", ("text", c.speech_lm.hidden)),
        "fused": ExpectedArray("f", ("text", c.speech_lm.hidden)),
        "f_tts_inputs_final": ExpectedArray("f", ("context", c.speech_lm.hidden)),
        "f_tts_logits": ExpectedArray("f", ("speech f", c.speech_lm.vocab)),
        f"{run}_text_ids": ExpectedArray("i", (r"text \1",), c.llm.vocab),
        f"{run}_tts_tokens": ExpectedArray("i", (r"speech \1",), c.speech_lm.vocab),
        f"{run}_group_text_len": ExpectedArray("i", (r"rounds \1",)),
        f"{run}_group_unit_len": ExpectedArray("i", (r"rounds \1",)),
        f"{run}_units_string": ExpectedArray("U", ()),
        "g_top8_vals": ExpectedArray("f", ("speech g", "top")),
        "g_top8_ids": ExpectedArray("i", ("speech g", "top"), c.speech_lm.vocab),
    }


def _multiturn(c: ModelConfig) -> dict[str, ExpectedArray]:
    return _prompt(c) | {"wavs": ExpectedArray("i", ("turns",)), "n_embeds": ExpectedArray("i", ())}


def _text_end(c: ModelConfig) -> dict[str, ExpectedArray]:
    return {
        "(.+)_eos": ExpectedArray("i", ()),
        "(.+)_text_ids": ExpectedArray("i", (r"text \1",)),
        "(.+)_(?:read_len|ctx_len|max_new|write_len)": ExpectedArray("i", (r"rounds \1",)),
        "(.+)_tts_tokens": ExpectedArray("i", (r"speech \1",)),
    }


def _units(c: ModelConfig) -> dict[str, ExpectedArray]:
    mel, bins = c.estimator.mel, c.vocoder.fft // 2 + 1
    width = c.flow_encoder.width
    return {
        "rand_noise": ExpectedArray("f", (1, mel, "noise")),
        "prompt_16k": ExpectedArray("f", (1, "prompt")),
        "fbank_meannorm": ExpectedArray("f", ("fbank", BINS)),
        "embedding": ExpectedArray("f", (1, c.estimator.speaker)),
        "spks": ExpectedArray("f", (1, mel)),
        "t_span": ExpectedArray("f", (c.estimator.steps + 1,)),
        r"est(\d+)_(?:x|mu|out)": ExpectedArray("f", (2, mel, r"est \1")),
        r"est\d+_spks": ExpectedArray("f", (2, mel)),
        r"est\d+_t": ExpectedArray("f", (2,)),
        r"enc(\d+)_tok": ExpectedArray("i", (1, r"enc \1"), c.flow_encoder.units),
        r"enc(\d+)_out": ExpectedArray("f", (1, r"out \1", width)),
        r"enc(\d+)_mu": ExpectedArray("f", (1, r"out \1", mel)),
        r"enc(\d+)_posemb": ExpectedArray("f", (1, r"posemb \1", width)),
        r"enc(\d+)_up": ExpectedArray("f", (1, r"out \1", width)),
        r"enc(\d+)_(?:embed|prelook|layers)": ExpectedArray("f", (1, r"enc \1", width)),
        "hift_mel": ExpectedArray("f", (1, c.vocoder.mel, "frames")),
        "hift_f0": ExpectedArray("f", (1, "frames")),
        "hift_s": ExpectedArray("f", (1, 1, "hift samples")),
        "hift_stft_(?:real|imag)": ExpectedArray("f", (1, bins, "stft")),
        "hift_wav": ExpectedArray("f", (1, "hift samples")),
    }


def _stream(c: ModelConfig) -> dict[str, ExpectedArray]:
    sines = c.vocoder.harmonics + 1
    return {
        "units": ExpectedArray("i", ("units",), c.flow_encoder.units),
        "schedule": ExpectedArray("i", ("calls",)),
        r"c(\d+)_mel_full": ExpectedArray("f", (1, c.vocoder.mel, r"full \1")),
        r"c(\d+)_hift_mel_in": ExpectedArray("f", (1, c.vocoder.mel, r"frames \1")),
        r"c(\d+)_f0": ExpectedArray("f", (1, r"frames \1")),
        r"c(\d+)_source": ExpectedArray("f", (1, 1, r"samples \1")),
        r"c(\d+)_wav_raw": ExpectedArray("f", (1, r"samples \1")),
        r"c(\d+)_wav": ExpectedArray("f", (1, r"out \1")),
        r"c\d+_phase": ExpectedArray("f", (1, sines, 1)),
        r"c(\d+)_sine_noise": ExpectedArray("f", (1, sines, r"samples \1")),
        r"c\d+_token_offset_after": ExpectedArray("i", ()),
        "wav": ExpectedArray("f", (1, "all samples")),
    }


def _offline(c: ModelConfig) -> dict[str, ExpectedArray]:
    sines = c.vocoder.harmonics + 1
    return {
        "units": ExpectedArray("i", ("units",), c.flow_encoder.units),
        "mel_full": ExpectedArray("f", (1, c.vocoder.mel, "frames")),
        "source(?:_float64)?": ExpectedArray("f", (1, 1, "samples")),
        "phase": ExpectedArray("f", (1, sines, 1)),
        "sine_noise": ExpectedArray("f", (1, sines, "samples")),
        "f0": ExpectedArray("f", (1, "frames")),
        "wav": ExpectedArray("f", (1, "samples")),
    }
