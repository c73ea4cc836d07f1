"""Conversations as ids: what the engine's prompt will be, and what is to be answered at which position."""

from __future__ import annotations

import re

import numpy as np
import torch

from omni2_training.config import Settings
from omni2_training.domain.corpus import held_combination, held_phrasing
from omni2_training.domain.exercises import CALLED, CALLS, UNCALLED, drawn
from omni2_training.models.listener import IGNORED
from omni2_training.train_llm import evened, make_listener, read_losses, script
from omni2_training.vocabulary import TextIds
from omni2_training.workspace import Workspace


def test_scripts_are_what_the_chat_template_renders(workspace: Workspace, settings: Settings) -> None:
    ids = TextIds.load(workspace)
    [item] = drawn(settings.corpus.sizes, 2, 1, np.random.default_rng(3))
    made = script(item, ids)
    first = [*made.before[0], ids.speech, *made.after]
    assert first == ids.prompt()
    both = [*first, *made.answers[0], *made.before[1], ids.speech, *made.after]
    assert both == ids.prompt((item.turns[0].answer,))
    assert [answer[-1] for answer in made.answers] == [ids.end, ids.end]


def test_nothing_held_out_is_drawn_or_practised_on(settings: Settings) -> None:
    for turns in (1, 2):
        items = drawn(settings.corpus.sizes, turns, 600, np.random.default_rng(turns))
        assert not any(held_combination(item) or held_phrasing(item) for item in items)
        numbers = [
            int(n) for item in items if item.kind == "arithmetic" for n in re.findall(r"\d+", item.combinations[0])
        ]
        assert turns == 2 or max(numbers) > 20, "no sum is practised that is never asked"


def test_every_answer_is_wanted_where_it_is_predicted(workspace: Workspace, settings: Settings) -> None:
    torch.manual_seed(0)
    ids = TextIds.load(workspace)
    model = make_listener(settings, ids)
    items = drawn(settings.corpus.sizes, 2, 3, np.random.default_rng(5))
    scripts = [script(item, ids) for item in items]
    slots = [torch.randn(3, length, settings.llm.model.hidden) for length in (7, 4)]
    embeds, targets = model.conversation(scripts, slots)
    for row, wanted, made in zip(embeds, targets, scripts, strict=True):
        answers = [i for answer in made.answers for i in answer]
        assert wanted[wanted != IGNORED].tolist() == answers
        # What is wanted at a position is what is fed at the next.
        for place in torch.nonzero(wanted != IGNORED)[:, 0].tolist():
            assert torch.equal(row[place + 1], model.model.embed_tokens.weight[wanted[place]])


def test_read_questions_teach(workspace: Workspace, settings: Settings) -> None:
    torch.manual_seed(0)
    ids = TextIds.load(workspace)
    model = make_listener(settings, ids)
    items = drawn(settings.corpus.sizes, 1, 2, np.random.default_rng(1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        losses.append(read_losses(model, ids, items)["answer"])
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


def test_calls_come_before_questions_of_the_drawn_only(settings: Settings) -> None:
    items = drawn(settings.corpus.sizes, 1, 600, np.random.default_rng(2))
    called = [item for item in items if item.turns[0].question.startswith(CALLS)]
    assert 0.05 < len([i for i in called if i.kind not in UNCALLED]) / len(items) < CALLED
    again = drawn(settings.corpus.sizes, 1, 600, np.random.default_rng(2))
    assert again == items, "the words decide"


def test_kinds_are_heard_by_the_root_of_their_size() -> None:
    chances = evened(["many"] * 9 + ["few"])
    assert np.isclose(chances.sum(), 1) and np.isclose(chances[:9].sum(), 3 * chances[9])
