"""Golden arrays of the speech half: flow, vocoder and streaming decoder on random units."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omni2_engine.errors import CheckpointError
from omni2_export.checkpoint import Checkpoint
from omni2_export.reference.build import Reference
from omni2_export.reference.speaker import fbank, speaker_vector
from omni2_export.reference.speech_decoder import DecodedCall, TorchSpeechDecoder, Utterance
from omni2_export.reference.vocoder import SourceDraws

ESTIMATOR_TIME = 0.37  # any time inside the schedule
ENCODER_CALL = ("tok", "out", "mu")
ENCODER_INSIDE = ("embed", "posemb", "prelook", "layers", "up")
Arrays = dict[str, np.ndarray]


class SpeechGoldens:
    """Draws the inputs of every call from one seed and records what the reference makes of them.

    Args:
        checkpoint: gives the speaker network; must have one.
        reference: its modules.
        voice: (n,) float32 voice prompt at 16 kHz.
        noise_frames: length of the solver's noise buffer.
        seed: of every random input.

    Raises:
        CheckpointError: the checkpoint has no speaker network.
    """

    def __init__(
        self, checkpoint: Checkpoint, reference: Reference, voice: np.ndarray, noise_frames: int, seed: int
    ) -> None:
        if checkpoint.campplus is None:
            raise CheckpointError("the decoder directory has no campplus.onnx", "golden arrays of a voice need it")
        self.reference = reference
        self.config = reference.config
        self.generator = torch.Generator().manual_seed(seed)
        self.voice = torch.from_numpy(voice)
        self.embedding = speaker_vector(checkpoint.campplus, self.voice)
        self.noise = self._normal(1, self.config.estimator.mel, noise_frames)
        self.decoder = TorchSpeechDecoder(
            reference.flow,
            reference.vocoder,
            self.embedding,
            self.noise,
            ratio=self.config.flow_encoder.ratio,
            lookahead=self.config.flow_encoder.lookahead,
        )

    @torch.inference_mode()
    def modules(self, encoder_calls: tuple[int, ...], estimator_calls: tuple[int, ...], vocoder_frames: int) -> Arrays:
        """`decoder_units.npz`: single calls of these sizes; of the middle encoder call the inner results too."""
        flow = self.reference.flow
        arrays = {
            "rand_noise": self.noise,
            "prompt_16k": self.voice[None],
            "fbank_meannorm": fbank(self.voice),
            "embedding": self.embedding,
            "spks": flow.speaker(self.embedding),
            "t_span": flow.decoder.time_span(self.noise.device),
        }
        for frames in estimator_calls:
            arrays |= self._estimator(frames)
        for count in encoder_calls:
            middle = count == sorted(encoder_calls)[len(encoder_calls) // 2]
            arrays |= self._encoder(count, ENCODER_CALL + ENCODER_INSIDE if middle else ENCODER_CALL)
        return as_numpy(arrays | self._vocoder(vocoder_frames))

    def stream(self, units: list[int], schedule: tuple[int, ...]) -> Arrays:
        """`stream_<X>.npz`: units delivered by the schedule, the last call final."""
        arrays: dict[str, Tensor] = {"units": torch.tensor(units), "schedule": torch.tensor(schedule)}
        utterance, start, heard = Utterance(), 0, []
        for k, size in enumerate(schedule):
            voice = self.decoder.finish if k == len(schedule) - 1 else self.decoder.push
            call = voice(utterance, units[start : start + size], self.generator)
            start += size
            heard.append(call.wav)
            arrays |= {
                f"c{k}_mel_full": call.mel,
                f"c{k}_hift_mel_in": call.vocoder_mel,
                f"c{k}_f0": call.f0,
                f"c{k}_source": call.source,
                f"c{k}_wav": call.wav,
                f"c{k}_wav_raw": call.raw,
                f"c{k}_phase": call.draws.phase,
                f"c{k}_sine_noise": call.draws.noise,
                f"c{k}_token_offset_after": torch.tensor(utterance.voiced),
            }
        return as_numpy(arrays | {"wav": torch.cat(heard, dim=1)})

    def offline(self, units: list[int]) -> Arrays:
        """`offline_<X>.npz`: the units in one final call, with the draws of its source.

        `source_float64` is the same source computed in float64 from `f0`. Over a long call it is the better witness:
        the original's phase, a float32 number of turns, rounds more the longer it grows.
        """
        call = self.decoder.finish(Utterance(), units, self.generator)
        found = {
            "mel_full": call.mel,
            "source": call.source,
            "f0": call.f0,
            "wav": call.wav,
            "phase": call.draws.phase,
            "sine_noise": call.draws.noise,
            "source_float64": self._precise_source(call),
        }
        return as_numpy({"units": torch.tensor(units)} | found)

    def _precise_source(self, call: DecodedCall) -> Tensor:
        vocoder = copy.deepcopy(self.reference.vocoder).double()
        draws = SourceDraws(call.draws.phase.double(), call.draws.noise.double())
        with torch.inference_mode():
            return vocoder.source(call.f0.double(), draws).float()

    def units(self, count: int) -> list[int]:
        """Random units."""
        return torch.randint(self.config.flow_encoder.units, (count,), generator=self.generator).tolist()

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _estimator(self, frames: int) -> dict[str, Tensor]:
        mel, flow = self.config.estimator.mel, self.reference.flow
        x, mu = self._normal(2, mel, frames), self._normal(2, mel, frames)
        speaker = flow.speaker(self._normal(2, self.config.estimator.speaker))
        mu[1], speaker[1] = 0.0, 0.0  # the unconditional row
        t = torch.full((2,), ESTIMATOR_TIME)
        out = flow.decoder.estimator(x, mu, speaker, torch.zeros_like(mu), t)
        call = {"x": x, "mu": mu, "spks": speaker, "t": t, "out": out}
        return {f"est{frames}_{name}": array for name, array in call.items()}

    def _encoder(self, count: int, names: tuple[str, ...]) -> dict[str, Tensor]:
        flow, units = self.reference.flow, torch.tensor([self.units(count)])
        trace = flow.encoder.trace(flow.embed_units(units))
        call = {
            "tok": units,
            "out": trace.out,
            "mu": flow.encoder_proj(trace.out),
            "embed": trace.embed,
            "posemb": trace.positions[None],
            "prelook": trace.prelookahead,
            "layers": trace.layers,
            "up": trace.up,
        }
        return {f"enc{count}_{name}": call[name] for name in names}

    def _vocoder(self, frames: int) -> dict[str, Tensor]:
        vocoder = self.reference.vocoder
        mel = self._normal(1, self.config.vocoder.mel, frames)
        draws = vocoder.m_source.draw(frames * self.config.vocoder.hop, self.generator)
        wav, source, f0 = vocoder(mel, draws, mel.new_zeros(1, 1, 0))
        real, imaginary = vocoder.stft(source)
        call = {"mel": mel, "f0": f0, "s": source, "stft_real": real, "stft_imag": imaginary, "wav": wav}
        return {f"hift_{name}": array for name, array in call.items()}


def as_numpy(arrays: dict[str, Tensor]) -> Arrays:
    """Tensors as NumPy arrays."""
    return {name: array.numpy() for name, array in arrays.items()}


def save(path: Path, arrays: Arrays) -> None:
    """Write one golden file."""
    np.savez_compressed(path, allow_pickle=False, **arrays)
