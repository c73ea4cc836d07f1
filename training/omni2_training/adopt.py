"""Weights of a released model as those that stages begin with, in place of random ones.

`adopt_released` is for a run that makes everything anew, `adopt_understanding` for one that keeps the voice (`refine`).

The projector, the language model, the flow but for its units, and the vocoder are taken over. Texts may have another
vocabulary: a token that is new gets the mean of those it was made of. The units of a run are its tokenizer's, which is
not released, so that the speech language model and the flow's table begin at random.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from omni2_engine.text import TextTokenizer
from omni2_export.checkpoint import open_checkpoint
from omni2_export.reference.build import load_encoder, load_flow, load_llm, load_vocoder
from omni2_export.tokenizer_files import load_tokenizer
from omni2_training.config import Settings
from omni2_training.loop import start_path
from omni2_training.train_flow import STAGE as FLOW
from omni2_training.train_llm import LISTENING, READING
from omni2_training.train_vocoder import STAGE as VOCODER
from omni2_training.vocabulary import TextIds
from omni2_training.workspace import Workspace

TOKENIZER_FILES = ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")


def adopt_released(settings: Settings, workspace: Workspace, console: Console, path: Path) -> None:
    """Write `start/llm.pt`, `start/flow.pt` and `start/vocoder.pt`.

    Args:
        path: the directories `omni2` and `decoder`, of the dimensions of `settings`.

    Raises:
        CheckpointError: there is no such model.
        FileNotFoundError: stage `vocabulary` has not run.
    """
    released = open_checkpoint(path / "omni2", decoder=path / "decoder")
    old, new = load_tokenizer(path / "omni2").tokenizer, TextIds.load(workspace).tokenizer
    llm = load_llm(released)
    llm.embed_tokens.weight = torch.nn.Parameter(rows_of(llm.embed_tokens.weight, old, new))
    llm.lm_head.weight = llm.embed_tokens.weight
    projector = load_encoder(released).projector
    states = {
        READING: _below("model.", llm) | _below("projector.", projector),
        FLOW: {k: v for k, v in _below("flow.", load_flow(released)).items() if "input_embedding" not in k},
        VOCODER: _own_scale(load_vocoder(released).state_dict(), settings.flow.scale),
    }
    for name, state in states.items():
        workspace.write(start_path(workspace, name), lambda file, state=state: torch.save(state, file))
    known = sum(row is not None for row in _matches(old, new))
    console.print(f"{known} of {new.size} text tokens are known already")


def adopt_understanding(workspace: Workspace, console: Console, path: Path) -> None:
    """Take over the vocabulary, and write `start/listen.pt`: projector and language model as they are.

    Args:
        path: the directories `omni2` and `decoder`; the language model is of the dimensions of `settings.llm`.

    Raises:
        CheckpointError: there is no such model.
    """
    released = open_checkpoint(path / "omni2", decoder=path / "decoder")
    vocabulary = workspace.path("vocabulary", "vocab.json").parent
    shutil.rmtree(vocabulary, ignore_errors=True)
    for directory in (Path(), Path("tts_tokenizer")):
        (vocabulary / directory).mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            shutil.copyfile(path / "omni2" / directory / name, vocabulary / directory / name)
    state = _below("model.", load_llm(released)) | _below("projector.", load_encoder(released).projector)
    workspace.write(start_path(workspace, LISTENING), lambda file: torch.save(state, file))
    console.print(f"{TextIds.load(workspace).size} text tokens, as they were")


def rows_of(table: Tensor, old: TextTokenizer, new: TextTokenizer) -> Tensor:
    """A table (old size, width) for another vocabulary: (new size, width)."""
    rows = []
    for token, match in enumerate(_matches(old, new)):
        if match is not None:
            rows.append(table[match])
        else:
            pieces = old.encode(new.token_bytes(token, skip_special=False).decode("utf-8", "replace"))
            rows.append(table[pieces].mean(0))
    return torch.stack(rows).detach()


def _matches(old: TextTokenizer, new: TextTokenizer) -> list[int | None]:
    """For every new token the old one of the same bytes."""
    places = {old.token_bytes(i, skip_special=False): i for i in reversed(range(old.size))}
    return [places.get(new.token_bytes(i, skip_special=False)) for i in range(new.size)]


def _below(prefix: str, module: torch.nn.Module) -> dict[str, Tensor]:
    return {prefix + name: value.detach().clone() for name, value in module.state_dict().items()}


def _own_scale(state: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """A released vocoder reads mels that are `scale` times its own; see `released.listening_to`."""
    readers = ("conv_pre.weight", "f0_predictor.condnet.0.weight")
    return {name: value * scale if name in readers else value for name, value in state.items()}
