"""Stage `gates`: word errors of held-out answers at every step between the teacher's voice and the model's own.

`teacher` is the floor: what the judge mishears of the voice to be learnt. `copy` is the vocoder on true mels, `units`
the flow on true units, `text` the speech language model on the text of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from omni2_bench.quality.judge import Judge, Score
from omni2_export.reference.qwen2 import Qwen2
from omni2_export.reference.read_write import sampled, write
from omni2_training.batches import as_tensor
from omni2_training.config import Settings
from omni2_training.domain import Corpus
from omni2_training.features import Utterance, load_answers
from omni2_training.flow_mels import flow_mel, load_flow
from omni2_training.loop import load_averaged
from omni2_training.mel import SAMPLE_RATE
from omni2_training.models.speech_lm import SEP, SpeechLM
from omni2_training.quiet import pause_while_measured
from omni2_training.train_speech_lm import STAGE as SPEECH_LM
from omni2_training.train_speech_lm import make_speech_lm
from omni2_training.train_tokenizer import load_units
from omni2_training.train_vocoder import draws, load_vocoder
from omni2_training.vocabulary import TextIds
from omni2_training.workspace import Workspace

Floats = NDArray[np.float32]
Say = Callable[[Utterance], Floats]
GATES = ("teacher", "copy", "units", "text")


def measure_gate(settings: Settings, workspace: Workspace, console: Console, gate: str, most: int) -> None:
    """Judge one gate and write `gates/NAME.json`.

    Args:
        gate: one of `GATES`; the modules it needs must have been trained, if only for a while.
        most: sentences to judge.
    """
    utterances = load_answers(workspace)
    held = [u for u in utterances if u.held][:most]
    kinds = kinds_of(workspace.corpus())
    say, judge = _voice(gate, settings, workspace, utterances), Judge()
    scores: dict[str, Score] = {}
    lines = []
    for u in held:
        pause_while_measured()
        torch.manual_seed(settings.seed)
        heard = judge.hear(say(u), SAMPLE_RATE)
        for name in ("all", kinds[u.text]):
            scores.setdefault(name, Score()).add(u.text, heard)
        lines.append({"kind": kinds[u.text], "said": u.text, "heard": heard})
    table = {name: {"wer": round(100 * s.rate, 2), **vars(s)} for name, s in sorted(scores.items())}
    result = {"gate": gate, "scores": table, "sentences": lines}
    path = workspace.path("gates", f"{gate}.json")
    workspace.write(path, lambda p: p.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8"))
    for name, s in sorted(scores.items()):
        console.print(f"  {gate:<8s} {name:<18s} {100 * s.rate:5.1f} %  of {s.words} words in {s.sentences} sentences")


def kinds_of(corpus: Corpus) -> dict[str, str]:
    """Answer → the kind of question it answers."""
    return {turn.answer: item.kind for item in (*corpus.train, *corpus.test) for turn in item.turns}


def _voice(gate: str, settings: Settings, workspace: Workspace, utterances: list[Utterance]) -> Say:
    if gate == "teacher":
        return lambda u: u.pcm.astype(np.float32) / 32768
    vocoder = load_vocoder(settings, workspace)

    def sound(mel: torch.Tensor) -> Floats:
        with torch.inference_mode():
            return vocoder(mel, draws(vocoder, 1, mel.shape[2]), mel.new_zeros(1, 1, 0))[0][0].numpy()

    if gate == "copy":
        return lambda u: sound(as_tensor(u.mel).T[None])
    flow = load_flow(settings, workspace)

    def spoken(units: NDArray[np.integer]) -> Floats:
        return sound(flow_mel(flow, units, settings.flow.scale))

    if gate == "units":
        rows = dict(zip((u.text for u in utterances), load_units(utterances, workspace), strict=True))
        return lambda u: spoken(rows[u.text])
    ids = TextIds.load(workspace)
    model = load_averaged(workspace, SPEECH_LM, make_speech_lm(settings, ids))
    return lambda u: spoken(write_units(settings, model, ids, u.text))


@torch.inference_mode()
def write_units(settings: Settings, model: SpeechLM, ids: TextIds, text: str) -> NDArray[np.int64]:
    """Units of a text by the read/write loop, the language model's hidden states left at zero (spec §6)."""
    plain, _ = model.export(settings.sharpness)
    tokens = ids.answer(text)
    hidden = torch.zeros(1, len(tokens), settings.fusion.llm_hidden)
    pick = sampled(torch.Generator().manual_seed(settings.seed))
    context = torch.zeros(1, 0, plain.config.hidden)
    first = ids.size + 1
    units: list[int] = []
    for start in range(0, len(tokens), settings.read):
        stop = min(start + settings.read, len(tokens))
        final = stop == len(tokens)
        at = torch.tensor([list(range(start, stop)) + [-1] * final])
        fed = torch.tensor([[-1] * (stop - start) + [SEP] * final])
        context = torch.cat([context, model.inputs(torch.tensor([tokens]), hidden, at, fed)], dim=1)
        limit = 25 * len(tokens) if final else settings.write
        written, _ = write(plain, context, limit, ids.end, pick)
        context = torch.cat([context, _embedded(plain, written)], dim=1)
        units += [i - first for i in written if i >= first]
    return np.array(units, np.int64)


def _embedded(model: Qwen2, written: list[int]) -> torch.Tensor:
    return model.embed_tokens(torch.tensor([written]))
