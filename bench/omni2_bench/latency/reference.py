"""The original's algorithm in eager PyTorch: a waveform goes in, chunks of sound come out.

What every speed-up is measured against. As in the original, the encoder hears its whole window, both language models
compute their head at every position they are given, the speech language model reads its whole context again at every
write, and the flow computes everything said so far again at every chunk (spec §6, §10).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from omni2_bench.common.script import units_per_chunk
from omni2_engine.audio.source import read_audio
from omni2_engine.model.config import WHISPER_SAMPLE_RATE
from omni2_engine.text import ChatTemplate, UnitTable
from omni2_engine.turn.metrics import Recorder
from omni2_export.checkpoint import Checkpoint
from omni2_export.reference.build import load_reference
from omni2_export.reference.frontend import log_mel
from omni2_export.reference.prompt import mark_speech, prompt_embeds
from omni2_export.reference.qwen2 import Cache, Qwen2
from omni2_export.reference.read_write import LAST_WRITE, Pick, embed
from omni2_export.reference.solver import TorchFlow
from omni2_export.reference.speech_decoder import TorchSpeechDecoder, Utterance
from omni2_export.reference.vocoder import HiFT, SourceDraws
from omni2_export.tokenizer_files import load_tokenizer, special_tokens

Floats = NDArray[np.float32]
Draws = Callable[[int, int], SourceDraws]  # (call, samples) → the vocoder's random numbers
SPOKEN_TURN = {"role": "user", "content": "<speech>"}


@dataclass(frozen=True)
class AnswerSettings:
    """How a turn is answered.

    Args:
        pick_text, pick_speech: choose ids from logits.
        max_text: text tokens at most.
        last_write: speech tokens of the final write at most.
        draws: the vocoder's random numbers.
    """

    pick_text: Pick
    pick_speech: Pick
    max_text: int
    draws: Draws
    last_write: int = LAST_WRITE


class ReferencePipeline:
    """All modules of one checkpoint with one voice.

    Args:
        checkpoint: an opened checkpoint.
        voice: (speaker,) or (1, speaker) float32 speaker vector.
        noise: (frames, mel) float32 the flow starts from.
        device: where it runs.
        dtype: of encoder, fusion and language models; flow and vocoder are float32, as in the original.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        voice: Floats,
        noise: Floats,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.modules = modules = load_reference(checkpoint)
        keep_weight_norm(modules.vocoder)
        for module in (modules.encoder, modules.llm, modules.fusion, modules.speech_lm):
            module.to(self.device, dtype)
        modules.flow.to(self.device)
        modules.vocoder.to(self.device)
        self.config = checkpoint.config
        self.voice = torch.from_numpy(np.array(voice, np.float32).reshape(1, -1)).to(self.device)
        noise = np.ascontiguousarray(np.asarray(noise, np.float32).T)[None]
        self.noise = torch.from_numpy(noise).to(self.device)
        template = ChatTemplate(checkpoint.chat_template, special_tokens(checkpoint.text_tokenizer))
        ids = load_tokenizer(checkpoint.text_tokenizer).tokenizer.encode(template.render([SPOKEN_TURN]))
        self.prompt_ids = mark_speech(ids, self.config.tokens.speech)
        self.units = UnitTable.build(load_tokenizer(checkpoint.speech_tokenizer).tokenizer)

    @torch.inference_mode()
    def answer(self, audio: Path | Floats, how: AnswerSettings, recorder: Recorder) -> Iterator[Floats]:
        """Answer one spoken turn.

        Args:
            audio: a file, or (n,) float32 at 16 kHz; what is beyond the encoder's window is cut off.
            how: how ids are chosen, and limits.
            recorder: takes the times of all stages.

        Yields:
            Chunks (n,) float32 at the vocoder's rate.
        """
        voice = Voice(self, how.draws, recorder)
        for ids, final in self._rounds(audio, how, recorder):
            yield from voice.say(self.units.units(ids), final)
        recorder.finish()

    def _rounds(
        self, audio: Path | Floats, how: AnswerSettings, recorder: Recorder
    ) -> Iterator[tuple[list[int], bool]]:
        """The ids of every write, and whether it is the last (spec §6)."""
        llm, tokens, read = self.modules.llm, self.config.tokens, self.config.read
        prompt = self._listen(audio, recorder)
        with recorder.span("prefill"):
            prompt = prompt_embeds(llm, self.prompt_ids, [prompt], tokens.context_limit)
            hidden, logits, cache = forward(llm, prompt)
        recorder.metrics.prompt_positions = prompt.shape[1]
        writer = _Writer(self, how, recorder)
        text: list[int] = []
        pairs: list[Tensor] = []
        while True:
            text.append(how.pick_text(logits, text))
            pairs.append(hidden)
            recorder.text()
            recorder.metrics.text_tokens = len(text)
            final = text[-1] in tokens.eos or len(text) >= how.max_text
            if final or len(pairs) == read:
                yield writer.write(torch.stack(pairs), text[-len(pairs) :], final), final
                pairs = []
            if final:
                return
            with recorder.span("decode"):
                hidden, logits, cache = forward(llm, embed(llm, text[-1:]), cache)

    def _listen(self, audio: Path | Floats, recorder: Recorder) -> Tensor:
        """One utterance → (positions, hidden)."""
        encoder = self.config.encoder
        with recorder.span("frontend"):
            rate = None if isinstance(audio, Path) else WHISPER_SAMPLE_RATE
            waveform = read_audio(audio, rate, encoder.samples / WHISPER_SAMPLE_RATE, "truncate")
            mel = log_mel(torch.from_numpy(waveform).to(self.device), encoder)
        with recorder.span("encoder"):
            return self.modules.encoder(mel[None].to(self.dtype))[0]


def keep_weight_norm(vocoder: HiFT) -> None:
    """Make a vocoder's convolutions multiply g·v/‖v‖ out in every call, as the original's do (spec §1.4)."""
    for name, module in vocoder.named_modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)) and not name.startswith("source_downs."):
            weight_norm(module)


def forward(model: Qwen2, embeds: Tensor, cache: Cache | None = None) -> tuple[Tensor, Tensor, Cache]:
    """One call of a language model as transformers 4.43 makes it, with logits of every position.

    Args:
        embeds: (1, S, hidden).
        cache: of the positions before.

    Returns:
        Hidden state (hidden,) and float32 logits (vocab,) of the last position, and the cache grown by S.
    """
    hidden, cache = model(embeds, cache)
    return hidden[0, -1], model.lm_head(hidden).float()[0, -1], cache


class _Writer:
    """The speech language model's side of one turn."""

    def __init__(self, pipeline: ReferencePipeline, how: AnswerSettings, recorder: Recorder) -> None:
        self._pipeline = pipeline
        self._how = how
        self._recorder = recorder
        self._context = embed(pipeline.modules.speech_lm, [])  # (1, C, speech_hidden)
        self._written: list[int] = []

    def write(self, hidden: Tensor, tokens: list[int], final: bool) -> list[int]:
        """Read pairs of hidden states (n, llm_hidden) and n ids, then write: the ids written."""
        modules, config = self._pipeline.modules, self._pipeline.config
        model, span = modules.speech_lm, self._recorder.span
        with span("fusion"):
            fused = modules.fusion(hidden, embed(model, tokens)[0])[None]
            separator = embed(model, [config.tokens.sep] if final else [])
            self._context = torch.cat([self._context, fused, separator], dim=1)
        limit, first = self._how.last_write if final else config.write, len(self._written)
        with span("speech_prefill"):
            _, logits, cache = forward(model, self._context)
        while True:
            self._written.append(self._how.pick_speech(logits, self._written))
            if self._written[-1] == config.tokens.speech_eos or len(self._written) - first == limit:
                break
            with span("speech_decode"):
                _, logits, cache = forward(model, embed(model, self._written[-1:]), cache)
        ids = self._written[first:]
        self._recorder.metrics.speech_tokens = len(self._written)
        self._context = torch.cat([self._context, embed(model, ids)], dim=1)
        return ids


@dataclass
class Voice:
    """Flow and vocoder of one turn; a call is made as soon as a chunk's units are there."""

    pipeline: ReferencePipeline
    draws: Draws
    recorder: Recorder
    utterance: Utterance = field(default_factory=Utterance)
    unread: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        p = self.pipeline
        flow = cast(TorchFlow, _TimedFlow(p.modules.flow, self.recorder))
        vocoder = cast(HiFT, _TimedVocoder(p.modules.vocoder, self.draws, self.recorder))
        c = p.config.flow_encoder
        self.decoder = TorchSpeechDecoder(flow, vocoder, p.voice, p.noise, ratio=c.ratio, lookahead=c.lookahead)

    def say(self, units: list[int], final: bool) -> Iterator[Floats]:
        """Voice the units of one write; those too few for a call wait for the next."""
        self.unread += [unit for unit in units if unit < self.pipeline.config.flow_encoder.units]
        hop = units_per_chunk(self.pipeline.config)
        while len(self.unread) >= hop and not (final and len(self.unread) == hop):
            yield self._voice(self.decoder.push, hop)
        if final and (self.unread or self.utterance.units):
            yield self._voice(self.decoder.finish, len(self.unread))

    def _voice(self, call: Callable[..., Any], count: int) -> Floats:
        units, self.unread = self.unread[:count], self.unread[count:]
        pcm: Floats = call(self.utterance, units, None).wav[0].cpu().numpy()
        self.recorder.metrics.units += count
        self.recorder.chunk(len(pcm) / self.pipeline.config.vocoder.sample_rate)
        return pcm


class _TimedFlow:
    """The flow as the speech decoder calls it, timed."""

    def __init__(self, flow: Any, recorder: Recorder) -> None:
        self._flow = flow
        self._recorder = recorder

    def partial(self, *arguments: Tensor) -> Tensor:
        """See `TorchFlow.partial`."""
        with self._recorder.span("flow"):
            return self._flow.partial(*arguments)

    def final(self, *arguments: Tensor) -> Tensor:
        """See `TorchFlow.final`."""
        with self._recorder.span("flow"):
            return self._flow.final(*arguments)


class _TimedVocoder:
    """The vocoder as the speech decoder calls it, timed, with random numbers from elsewhere."""

    def __init__(self, vocoder: Any, draws: Draws, recorder: Recorder) -> None:
        self._vocoder = vocoder
        self._draws = draws
        self._recorder = recorder
        self._calls = 0
        self.config = vocoder.config
        self.m_source = self

    def draw(self, samples: int, generator: torch.Generator | None) -> SourceDraws:
        """See `Source.draw`."""
        with self._recorder.span("vocoder"):
            self._calls += 1
            return self._draws(self._calls - 1, samples)

    def __call__(self, *arguments: Any) -> Any:
        with self._recorder.span("vocoder"):
            return self._vocoder(*arguments)
