"""Random weights of flow and vocoder that babble: noise, but shaped so that what comes out resembles a voice.

Three things make the sound: the flow's mel moves at the pace of the units; the F0 predictor turns it into a gliding
pitch, sometimes below the voicing threshold; and the vocoder's last stage passes the harmonic source, through random
resonances that open and close with the mel, to the two lowest bins of its inverse STFT. Their sizes over time are
waveforms below half the STFT's frame rate; under a Hann window they count with the same weight and opposite signs, so
that, moved in opposite directions, their sounds add up and their means cancel.
"""

from __future__ import annotations

import math
import re

import numpy as np

from omni2_bench.random_checkpoint.draw import Edit, Floats, Rule
from omni2_engine.model.config import VocoderConfig
from omni2_export.checkpoint_writer.dimensions import Dimensions

MEL_MEAN, MEL_TILT, MEL_SWING = -5.0, -3.0, 3.0  # of the log mel: middle, from first to last bin, deviation
PITCH, PITCH_SWING = 150.0, 60.0  # Hz; the lowest dips are voiceless
LOUDNESS = 4.0  # size of the two lowest STFT bins at rest
MODULATION = 0.5  # of its logarithm by the source
QUIET = 8.0  # how far below that, in logarithm, all other bins lie
OVERTONES = 2.0  # weight of the fundamental; harmonic h gets 1/√h of it
OPENNESS = 3.0  # how much the mel moves the channels that the source passes through
CLOSED = -1.0  # where these channels rest: below zero a leaky ReLU lets next to nothing through


def flow_rule(name: str, shape: tuple[int, ...], d: Dimensions) -> Rule:
    """The flow's tensor: all of scale 1/√inputs, residual branches less, norms one."""
    inputs = math.prod(shape[1:]) if len(shape) > 1 else 1
    if name == "input_embedding.weight":
        return Rule(1.0)
    if name.endswith("pos_bias_u") or name.endswith("pos_bias_v"):
        return Rule(0.3)
    if name == "decoder.estimator.final_proj.bias":
        return Rule(edit=_mel_profile(d.flow_encoder.mel))
    if name == "decoder.estimator.final_proj.weight":
        return Rule(MEL_SWING / math.sqrt(inputs))
    if len(shape) == 1:
        return Rule(shift=1.0) if name.endswith("weight") else Rule()
    gain = 0.5 if name.endswith(("linear_out.weight", "w_2.weight", "to_out.0.weight", "ff.net.2.weight")) else 1.0
    return Rule(gain / math.sqrt(inputs))


def _mel_profile(bins: int) -> Edit:
    """Velocity that carries noise around zero to the mean of a log mel within the solver's unit of time."""
    profile = MEL_MEAN + MEL_TILT * (np.arange(bins) / max(bins - 1, 1) - 0.5)

    def edit(rows: Floats, start: int) -> None:
        rows[...] = profile[start : start + len(rows)]

    return edit


def vocoder_rule(name: str, shape: tuple[int, ...], c: VocoderConfig) -> Rule:
    """HiFT's tensor, weight norm undone."""
    inputs = math.prod(shape[1:]) if len(shape) > 1 else 1
    if name.endswith("alpha"):
        return Rule(0.2, shift=1.0)
    if name == "m_source.l_linear.weight":
        return Rule(edit=_overtones)
    if name == "f0_predictor.classifier.weight":
        return Rule(PITCH_SWING / math.sqrt(inputs))
    if name == "f0_predictor.classifier.bias":
        return Rule(shift=PITCH)
    if name == "conv_post.weight":
        return Rule(MODULATION / math.sqrt(inputs), edit=_lowest_bins, whole=True)
    if name == "conv_post.bias":
        return Rule(edit=_bin_levels(c))
    if name == f"ups.{len(c.upsample_rates) - 1}.bias":
        return Rule(0.1, shift=CLOSED)
    if len(shape) == 1:
        return Rule(0.02)
    if name == "conv_pre.weight" or name == "f0_predictor.condnet.0.weight":
        gain = OPENNESS if name == "conv_pre.weight" else 1.0
        return Rule(gain / (MEL_SWING * math.sqrt(shape[1])), edit=_smooth_and_centred, whole=True)
    if name.startswith("f0_predictor."):
        return Rule(math.sqrt(2 / shape[1]), edit=_smooth, whole=True)
    if re.fullmatch(r"ups\.\d+\.weight", name):
        rate = c.upsample_rates[int(name.split(".")[1])]
        return Rule(math.sqrt(2 / shape[0]), edit=_interpolating(rate), whole=True)
    if name.startswith("source_downs."):
        return Rule(1 / math.sqrt(shape[1]), edit=_smooth, whole=True)
    return Rule(0.5 / math.sqrt(inputs))  # residual blocks


def _overtones(rows: Floats, start: int) -> None:
    rows[...] = OVERTONES / np.sqrt(np.arange(1, rows.shape[1] + 1))


def _window(taps: int) -> Floats:
    """A Hann window without its zeros that sums to one, (taps,) float32."""
    window: Floats = np.hanning(taps + 2)[1:-1].astype(np.float32)
    window /= window.sum()
    return window


def _smooth(rows: Floats, start: int) -> None:
    """One random matrix under a window of time, so that the convolution blurs and does not scramble."""
    rows[...] = rows[:, :, :1] * _window(rows.shape[2])


def _smooth_and_centred(rows: Floats, start: int) -> None:
    """`_smooth`, and blind to the mean over bins, which in a log mel is far from zero."""
    rows -= rows.mean(axis=1, keepdims=True)
    _smooth(rows, start)


def _interpolating(rate: int) -> Edit:
    """A transposed convolution that interpolates: overlapping kernels sum to the same at every phase."""

    def edit(rows: Floats, start: int) -> None:
        taps = rows.shape[2]
        kernel = np.convolve(np.ones(rate), np.ones(taps - rate + 1)) / (taps - rate + 1)
        rows[...] = rows[:, :, :1] * kernel.astype(np.float32)

    return edit


def _lowest_bins(rows: Floats, start: int) -> None:
    """The lowest bin hears the stage before without its slow part; the next bin its opposite; the others little."""
    rows[0] -= rows[0].mean(axis=1, keepdims=True)
    rows[1] = -rows[0]
    rows[2:] *= 0.2


def _bin_levels(c: VocoderConfig) -> Edit:
    bins = c.fft // 2 + 1

    def edit(rows: Floats, start: int) -> None:
        levels = np.zeros(2 * bins, np.float32)
        levels[:bins] = math.log(LOUDNESS) - QUIET
        levels[:2] = math.log(LOUDNESS)
        rows[...] = levels[start : start + len(rows)]

    return edit
