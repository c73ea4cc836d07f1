"""Flow and vocoder: a short utterance in one call, a longer one whose second call continues behind a finished block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES
from omni2_engine.stages.flow import Flow
from omni2_export.inspection import Tap
from omni2_export.reference.build import load_flow, load_vocoder
from omni2_export.reference.checks.subject import Floats, Subject, tensor
from omni2_export.reference.solver import TorchFlow
from omni2_export.reference.vocoder import SourceDraws
from omni2_export.verify.rows import Row
from omni2_export.verify.tolerances import DEVIATION, DRIVEN_WAVE, HERTZ, MEL_DEVIATION, SIGNAL

SHORT = 9  # units of the short utterance
MORE = 5  # units beyond a block and its look-ahead, in the longer one's two calls each
FRAMES = (VOCODER_OVERLAP_FRAMES + 5, 2 * VOCODER_OVERLAP_FRAMES + 3)  # of the vocoder's calls


@dataclass
class _Utterance:
    """An utterance said by the engine's flow stage and by the torch module side by side."""

    subject: Subject
    reference: TorchFlow
    noise: Floats
    voice: Floats

    def __post_init__(self) -> None:
        config, graph = self.subject.config, self.subject.graph
        self.encoder, self.step = Tap(graph("flow_encoder")), Tap(graph("flow_step"))
        stage = Flow(
            self.encoder, self.step, graph("flow_conditions"), config.flow_encoder, config.estimator, self.noise
        )
        self.stage, self.state = stage, stage.new_state(stage.speaker_features(self.voice[0]))

    def say(self, units: list[int], final: bool) -> tuple[Row, Row, Row]:
        """Compare μ, the first solver step and the mel of one call, where the stage computes them anew."""
        self.step.runs.clear()
        output = self.stage.step(self.state, units, final)
        everything = torch.tensor([self.state.units])
        mu = self.reference.mean(everything)
        kept = mu.shape[2] - (0 if final else self.reference.lookahead_frames)
        noise, voice = tensor(self.noise.T[None]), tensor(self.voice)
        solve = self.reference.final if final else self.reference.partial
        frames = f"frames {output.start}–{kept - 1}"
        found = {
            ("flow_encoder", "μ", DEVIATION): (self.encoder.runs[-1]["mu"], mu),
            ("flow_step", "first step", DEVIATION): (
                self.step.runs[0]["new_z"],
                self._first_step(noise[:, :, :kept], mu[:, :, :kept]),
            ),
            ("flow_step", "mel", MEL_DEVIATION): (output.mel[None], solve(everything, voice, noise)),
        }
        rows = [
            self.subject.judge(
                stage, f"{what}, {frames}", ours, theirs[:, :, output.start :].transpose(1, 2), relative=limit
            )
            for (stage, what, limit), (ours, theirs) in found.items()
        ]
        return rows[0], rows[1], rows[2]

    def _first_step(self, z: Tensor, mu: Tensor) -> Tensor:
        solver = self.reference.decoder
        start, stop = solver.time_span(z.device)[:2]
        voice = self.reference.speaker(tensor(self.voice))
        with_voice, without = (
            solver.estimator(z, scale * mu, scale * voice, torch.zeros_like(mu), start[None]) for scale in (1.0, 0.0)
        )
        guidance = solver.config.guidance
        moved: Tensor = z + (stop - start) * ((1.0 + guidance) * with_voice - guidance * without)
        return moved


@torch.inference_mode()
def check_flow(subject: Subject) -> None:
    """Flow encoder and solver."""
    config, reference = subject.config.flow_encoder, load_flow(subject.checkpoint)
    first = config.block_units + config.lookahead + MORE
    noise = subject.normal((first + MORE) * config.ratio, config.mel)
    voice = subject.normal(1, subject.config.estimator.speaker)

    def units(count: int) -> list[int]:
        return [int(unit) for unit in subject.random.integers(config.units, size=count)]

    short = _Utterance(subject, reference, noise, voice).say(units(SHORT), final=True)
    longer = _Utterance(subject, reference, noise, voice)
    calls = [short, longer.say(units(first), final=False), longer.say(units(MORE), final=True)]
    for rows in zip(*calls, strict=True):
        subject.add(rows)


@torch.inference_mode()
def check_vocoder(subject: Subject) -> None:
    """F0 and waveform of two lengths of mel, and the source made of that F0, with part of it cached."""
    config, graph, vocoder = subject.config.vocoder, subject.graph("vocoder"), load_vocoder(subject.checkpoint)
    calls = []
    for frames, cached in zip(FRAMES, (0, config.overlap), strict=True):
        mel = subject.normal(1, config.mel, frames)
        phase = (2 * np.pi * subject.random.random((1, config.harmonics + 1, 1)) - np.pi).astype(np.float32)
        noise = subject.normal(1, config.harmonics + 1, frames * config.hop)
        cache = 0.1 * subject.normal(1, 1, cached)
        outputs = graph.run({"mel": mel, "phase": phase, "noise": noise, "source_cache": cache})
        fresh = vocoder.source(tensor(outputs["f0"]), SourceDraws(tensor(phase), tensor(noise)))
        source = torch.cat([tensor(cache), fresh[:, :, cached:]], dim=2)
        wav = vocoder.decode(tensor(mel), tensor(outputs["source"]))
        what = f"{frames} frames"
        calls.append(
            (
                subject.judge("vocoder", f"F0, {what}", outputs["f0"], vocoder.f0(tensor(mel)), absolute=HERTZ),
                subject.judge("vocoder", f"source, {what}", outputs["source"], source, absolute=SIGNAL),
                subject.judge("vocoder", f"waveform, {what}", outputs["wav"], wav, absolute=DRIVEN_WAVE),
            )
        )
    for rows in zip(*calls, strict=True):
        subject.add(rows)
