"""Conversations as ids: what the engine's prompt will be, and what is to be answered at which position."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from omni2_engine.text import ChatTemplate
from omni2_training.config import Settings
from omni2_training.domain.corpus import held_out
from omni2_training.domain.exercises import conversations, drawn, joined, parts
from omni2_training.domain.item import Item, Turn
from omni2_training.domain.typed import typed
from omni2_training.models.listener import IGNORED
from omni2_training.train_llm import Pool, make_listener, read_losses, script, typed_losses
from omni2_training.vocabulary import CHAT_TEMPLATE, TextIds
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
        assert not any(held_out(item) for item in items)
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


def test_conversations_mix_questions_and_what_follows_from_them(settings: Settings) -> None:
    made = conversations(settings.corpus.sizes, 8, 0.5, 40, np.random.default_rng(4))
    assert {len(item.turns) for item in made} == {8}
    assert not any(held_out(item) for item in made if item.kind in ("talk", "facts"))
    rng = np.random.default_rng(0)
    lengths = [[len(item.turns) for item in parts(4, 0.5, rng, lambda n: two if n == 2 else one)] for _ in range(200)]
    assert {sum(row) for row in lengths} == {4} and {tuple(row) for row in lengths} == {
        (1, 1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2)
    }  # fmt: skip
    both = joined([one, two])
    assert both.turns == (*one.turns, *two.turns) and both.kind == "b"


one = Item("a", ("x",), "p", False, (Turn("One?", "One."),))
two = Item("b", ("y",), "q", False, (Turn("Two?", "Two."), Turn("And?", "Three.")))


def test_typed_questions_are_what_the_chat_template_renders(workspace: Workspace, settings: Settings) -> None:
    ids = TextIds.load(workspace)
    made = script(one, ids)
    messages = [{"role": "user", "content": "One?"}]
    expected = ids.tokenizer.encode(ChatTemplate(CHAT_TEMPLATE).render(messages))
    assert [*made.before[0], *ids.tokenizer.encode("One?"), *made.after] == expected
    losses = typed_losses(make_listener(settings, ids), ids, [one, two_silent], random.Random(0))
    assert torch.isfinite(losses["answer"])


two_silent = Item("silence", ("",), "", False, (Turn("", "I did not hear you."),))


def test_silence_has_a_transcript_without_a_word(workspace: Workspace, settings: Settings) -> None:
    model = make_listener(settings, TextIds.load(workspace))
    heard = torch.randn(2, 20, settings.llm.model.hidden)
    assert torch.isfinite(model.transcript_loss(heard, [[], []])) and len(model.read([[], []])[0]) > 0


def test_typing_changes_spelling_only() -> None:
    rng = random.Random(0)
    question = "What is twenty one plus five?"
    found = {typed(question, rng) for _ in range(300)}
    assert {question, "what is 21 + 5", "What is 21 plus 5?", "what is twenty one plus five"} <= found
    assert all(re.fullmatch(r"what is (twenty one|21) (plus|\+) (five|5)\??", text.lower()) for text in found)


def test_kinds_are_heard_by_the_root_of_their_size() -> None:
    items = [replace(one, kind="many", phrasing=str(i)) for i in range(9)] + [two]
    rng = np.random.default_rng(0)
    pool = Pool(items)
    counts = Counter(pool.draw(rng).kind for _ in range(4000))
    assert abs(counts["many"] / 4000 - 3 / 4) < 0.03
