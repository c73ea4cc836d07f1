"""Streaming speech decoder: units arrive in chunks, waveform leaves; each call recomputes the whole flow (spec §10)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES
from omni2_export.reference.solver import TorchFlow
from omni2_export.reference.vocoder import HiFT, SourceDraws


@dataclass(frozen=True)
class Tail:
    """What the vocoder keeps of a call for the next one."""

    mel: Tensor  # (1, mel, 8) frames to begin again with
    source: Tensor  # (1, 1, overlap) samples
    speech: Tensor  # (1, overlap) samples not yet returned


@dataclass
class Utterance:
    """State of one utterance."""

    units: list[int] = field(default_factory=list)
    voiced: int = 0  # units whose mel has been given to the vocoder
    tail: Tail | None = None


@dataclass(frozen=True)
class DecodedCall:
    """Everything one call computed; `wav` is what it returns to the listener."""

    mel: Tensor  # (1, mel, frames) of all units so far
    vocoder_mel: Tensor  # (1, mel, F): the tail's frames, then the new ones
    f0: Tensor  # (1, F) Hz
    draws: SourceDraws
    source: Tensor  # (1, 1, hop·F)
    raw: Tensor  # (1, hop·F) vocoder output
    wav: Tensor  # (1, samples)


class TorchSpeechDecoder:
    """Flow and vocoder with one voice.

    Args:
        flow, vocoder: the modules.
        embedding: (1, speaker) speaker vector.
        noise: (1, mel, frames) the solver's fixed noise.
        ratio, lookahead: mel frames per unit, and units held back until the next call.
    """

    def __init__(
        self, flow: TorchFlow, vocoder: HiFT, embedding: Tensor, noise: Tensor, *, ratio: int, lookahead: int
    ) -> None:
        self.flow = flow
        self.vocoder = vocoder
        self.embedding = embedding
        self.noise = noise
        self.ratio = ratio
        self.lookahead = lookahead
        window = torch.from_numpy(np.hamming(2 * vocoder.config.overlap)).to(noise.device)
        self.fade_in, self.fade_out = window.chunk(2)  # float64; the two do not sum to 1, spec §10

    @torch.inference_mode()
    def push(self, utterance: Utterance, units: list[int], generator: torch.Generator) -> DecodedCall:
        """Voice new units; the last ones are held back as look-ahead, the last samples for the cross-fade.

        Args:
            utterance: state, moved on by this call. The first call's units must make at least 8 frames (spec §10).
            units: new units.
            generator: draws the vocoder's phases and noise.
        """
        utterance.units += units
        mel = self.flow.partial(self._all_units(utterance), self.embedding, self.noise)
        call = self._vocode(utterance, mel, generator)
        overlap = self.vocoder.config.overlap
        utterance.voiced = len(utterance.units) - self.lookahead
        utterance.tail = Tail(
            call.vocoder_mel[:, :, -VOCODER_OVERLAP_FRAMES:], call.source[:, :, -overlap:], call.wav[:, -overlap:]
        )
        return replace(call, wav=call.wav[:, :-overlap])

    @torch.inference_mode()
    def finish(self, utterance: Utterance, units: list[int], generator: torch.Generator) -> DecodedCall:
        """Voice the utterance's last units and all that was held back; as its only call, voice the whole of it."""
        utterance.units += units
        mel = self.flow.final(self._all_units(utterance), self.embedding, self.noise)
        call = self._vocode(utterance, mel, generator)
        utterance.voiced, utterance.tail = len(utterance.units), None
        return call

    def _all_units(self, utterance: Utterance) -> Tensor:
        return torch.tensor([utterance.units], device=self.noise.device)

    def _vocode(self, utterance: Utterance, mel: Tensor, generator: torch.Generator) -> DecodedCall:
        tail = utterance.tail
        new = mel[:, :, self.ratio * utterance.voiced :]
        vocoder_mel = torch.cat([tail.mel, new], dim=2) if tail else new
        draws = self.vocoder.m_source.draw(vocoder_mel.shape[2] * self.vocoder.config.hop, generator)
        cached = tail.source if tail else mel.new_zeros(1, 1, 0)
        raw, source, f0 = self.vocoder(vocoder_mel, draws, cached)
        return DecodedCall(mel, vocoder_mel, f0, draws, source, raw, self._cross_fade(raw, tail))

    def _cross_fade(self, raw: Tensor, tail: Tail | None) -> Tensor:
        if tail is None:
            return raw
        overlap = tail.speech.shape[1]
        head = raw[:, :overlap] * self.fade_in + tail.speech * self.fade_out
        return torch.cat([head.to(raw.dtype), raw[:, overlap:]], dim=1)
