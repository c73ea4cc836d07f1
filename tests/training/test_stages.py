"""Every stage on the tiny configuration, one after another, up to an engine that speaks."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from omni2_engine import Engine
from omni2_engine.errors import CheckpointError
from omni2_export.build import BuildRequest, build_engine
from omni2_export.checkpoint import open_checkpoint
from omni2_export.checkpoint_writer.paths import CheckpointPaths
from omni2_export.reference.build import load_flow, load_fusion, load_llm, load_speech_lm
from omni2_export.reference.whisper import TorchSpeechEncoder
from omni2_training import released
from omni2_training.adopt import adopt_released, adopt_understanding
from omni2_training.config import Settings
from omni2_training.domain import exercises
from omni2_training.domain.corpus import held_out
from omni2_training.domain.talk import COMMON
from omni2_training.features import load_answers
from omni2_training.flow_mels import with_flow_mels, write_mels
from omni2_training.gates import write_units
from omni2_training.listening import hear
from omni2_training.listening.hear import (
    Heard,
    Question,
    common_questions,
    heard_shards,
    new_questions,
    questions,
    silent_turns,
)
from omni2_training.loop import Task, Trainer, load_averaged, start_path
from omni2_training.refined import refined_listener
from omni2_training.refit import answered, refit_fusion
from omni2_training.synthesise import answers
from omni2_training.train_flow import STAGE as FLOW
from omni2_training.train_flow import make_flow, train_flow
from omni2_training.train_join import spoken_items, train_join
from omni2_training.train_llm import LISTENING, READING, in_its_words, make_listener, train_listening, train_llm
from omni2_training.train_speech_lm import make_speech_lm, train_speech_lm
from omni2_training.train_tokenizer import load_units, train_tokenizer
from omni2_training.train_tokenizer import write_units as write_all_units
from omni2_training.train_vocoder import STAGE as VOCODER
from omni2_training.train_vocoder import draws, finish_vocoder, load_vocoder, make_vocoder, train_vocoder
from omni2_training.vocabulary import TextIds, make_vocabulary, read_vocabulary
from omni2_training.workspace import Workspace

from .conftest import copy_of


@pytest.fixture(scope="module")
def trained(workspace: Workspace, settings: Settings, console: Console) -> Workspace:
    """All stages run once; the questions' features are noise."""
    torch.manual_seed(0)
    for stage in (
        train_tokenizer,
        write_all_units,
        train_vocoder,
        train_flow,
        write_mels,
        finish_vocoder,
        train_speech_lm,
        train_llm,
    ):
        assert stage(settings, workspace, console) in (True, None)
    encoder = settings.listening.encoder
    rng = np.random.default_rng(0)
    for path, asked in heard_shards(settings, workspace):
        rows = rng.standard_normal((len(asked), encoder.positions, encoder.stack * encoder.width)).astype(np.float16)
        np.save(path, rows)
    assert train_listening(settings, workspace, console) and train_join(settings, workspace, console)
    return workspace


def test_answers_are_held_out_by_their_text(workspace: Workspace) -> None:
    corpus = workspace.corpus()
    trained = {turn.answer for item in corpus.train for turn in item.turns}
    held = [u for u in load_answers(workspace) if u.held]
    assert held and not {u.text for u in held} & trained


def test_kinds_of_few_answers_are_spoken_first(workspace: Workspace) -> None:
    corpus = workspace.corpus()
    order = answers(corpus)
    place = {text: number for number, text in enumerate(order)}
    items = (*corpus.train, *corpus.test)
    assert set(order) == {turn.answer for item in items for turn in item.turns} and len(place) == len(order)
    last = {
        kind: [place[t.answer] for i in items if i.kind == kind for t in i.turns] for kind in {i.kind for i in items}
    }
    few, many = (pick(last, key=lambda kind: len(set(last[kind]))) for pick in (min, max))
    assert max(last[few]) < max(last[many])


def test_questions_are_asked_the_same_way_every_time(workspace: Workspace, settings: Settings) -> None:
    first: list[Question] = questions(workspace.corpus(), settings.seed)
    assert first == questions(workspace.corpus(), settings.seed)
    assert len({q.asking.voice for q in first}) > 5
    more = questions(workspace.corpus(), settings.seed, 3)
    assert more[: len(first)] == first, "other ways come behind, so that what was heard stays where it is"
    again = more[len(first) :]
    assert len(again) == 2 * sum(not q.held for q in first) and not any(q.held for q in again)
    assert len({q.asking for q in more}) == len(more)


def test_new_questions_are_none_of_those_held_out(workspace: Workspace, settings: Settings) -> None:
    few, many = new_questions(settings, 40), new_questions(settings, 400)
    assert many[:40] == few and len(many) == 400
    assert not any(q.held or held_out(q.item) for q in many)
    asked = {q.item.turns[q.turn].question for q in questions(workspace.corpus(), settings.seed)}
    assert sum(q.item.turns[q.turn].question not in asked for q in many) > 200
    assert any(q.turn == 1 for q in many) and len({q.asking.voice for q in many}) > 5


def test_common_questions_are_usual_wordings_in_many_voices(trained: Workspace, settings: Settings) -> None:
    common = common_questions(settings, 300)
    assert common_questions(settings, 50) == common[:50]
    assert not any(q.held or held_out(q.item) for q in common)
    greeted = [q.asking.voice for q in common if q.item.turns[0].question in ("Hello!", "Thank you!", "Goodbye!")]
    assert len(greeted) > 6 and len(set(greeted)) > 3
    assert {q.item.turns[0].answer for q in common} == set(COMMON)
    heard = Counter(item.turns[0].question for item in Heard(settings, trained).items(False, 1))
    assert all(heard[q.item.turns[0].question] for q in common[: settings.listening.common])


def test_silent_turns_are_heard_each_in_its_own_way(trained: Workspace, settings: Settings) -> None:
    silent = silent_turns(settings, 40)
    assert silent_turns(settings, 60)[:40] == silent and len({q.asking.seed for q in silent}) == 40
    assert {q.item.turns[0].question for q in silent} == {""}
    heard = [item for item in Heard(settings, trained).items(False, 1) if not item.turns[0].question]
    assert len(heard) >= settings.listening.silent > 0 and len(set(heard)) == 1


def test_no_held_out_answer_is_learnt_from_whoever_asks_for_it(trained: Workspace, settings: Settings) -> None:
    ears, utterances = Heard(settings, trained), load_answers(trained)
    items = spoken_items(ears, utterances, held=False, turns=1)
    text = items[0].turns[-1].answer
    kept = [replace(u, held=True) if u.text == text else u for u in utterances]
    left = spoken_items(ears, kept, held=False, turns=1)
    assert left == [item for item in items if item.turns[-1].answer != text]


def test_other_new_questions_are_not_taken_for_those_heard(
    workspace: Workspace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = heard_shards(settings, workspace)
    before, new = {path for path, _ in shards}, new_questions(settings, settings.listening.more)
    more = settings.model_copy(update={"listening": settings.listening.model_copy(update={"ways": 5, "more": 99})})
    assert before < {path for path, _ in heard_shards(more, workspace)}, "more of the same come behind"
    monkeypatch.setattr(exercises, "EVENNESS", 0.1)
    changed = before - {path for path, _ in heard_shards(settings, workspace)}
    assert changed == {path for path, asked in shards if asked == new}


def test_a_question_is_heard_in_all_its_ways_when_it_is_learnt(trained: Workspace, settings: Settings) -> None:
    ears = Heard(settings, trained)
    rng = np.random.default_rng(0)
    item = ears.items(held=False, turns=1)[0]
    drawn = [ears.features(item, 0, rng) for _ in range(20)]
    assert len({row.numpy().tobytes() for row in drawn}) == settings.listening.ways
    first = ears.features(item, 0)
    assert torch.equal(first, ears.features(item, 0)) and any(torch.equal(first, row) for row in drawn)
    held = ears.items(held=True, turns=1)[0]
    assert torch.equal(ears.features(held, 0, rng), ears.features(held, 0))


def test_more_ways_fill_up_the_shard_that_ended_the_fewer(
    workspace: Workspace, settings: Settings, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = copy_of(workspace, tmp_path / "state")
    for path, _ in heard_shards(settings, mine):
        path.unlink(missing_ok=True)
    encoder = settings.listening.encoder
    monkeypatch.setattr(hear, "load_encoder", _random_encoder)
    monkeypatch.setattr(hear, "heard", lambda text, asking: np.zeros(16_000, np.float32))
    one = settings.model_copy(update={"listening": settings.listening.model_copy(update={"ways": 1, "more": 4})})
    lengths = []
    for chosen in (one, settings):
        assert hear.hear_questions(chosen, mine, console)
        shards = heard_shards(chosen, mine)
        lengths.append({path: len(np.load(path)) for path, _ in shards})
        assert lengths[-1] == {path: len(asked) for path, asked in shards}
        ears = Heard(chosen, mine)
        for held, turns in ((False, 1), (False, 2), (True, 1)):
            for item in ears.items(held, turns)[-5:]:
                assert ears.features(item, turns - 1).shape == (encoder.positions, encoder.stack * encoder.width)
    few, many = lengths
    assert sum(few[path] < many[path] for path in few) == 2, "choose sizes that leave both a shard half full"
    assert hear.SHARD in [many[path] for path in few if few[path] < many[path]]


def test_flow_mels_stand_beside_the_true_ones(trained: Workspace) -> None:
    learnt = [u for u in load_answers(trained) if not u.held]
    both = with_flow_mels(learnt, trained)
    assert len(both) == 2 * len(learnt)
    for true, made in zip(learnt, both[len(learnt) :], strict=True):
        assert made.text == true.text and np.array_equal(made.pcm, true.pcm)
        assert made.mel.shape == true.mel.shape and not np.array_equal(made.mel, true.mel)
    held = [u for u in load_answers(trained) if u.held]
    assert with_flow_mels(held, trained) == held
    shorter = [replace(learnt[0], pitch=learnt[0].pitch[:-2])]
    with pytest.raises(ValueError, match="mels"):
        with_flow_mels(shorter, trained)


def test_units_belong_to_their_answers(trained: Workspace, settings: Settings) -> None:
    utterances = load_answers(trained)
    rows = load_units(utterances, trained)
    assert [len(row) for row in rows] == [u.units for u in utterances]
    assert all(row.min() >= 0 and row.max() < settings.flow.encoder.units for row in rows)
    with pytest.raises(ValueError, match="units"):
        load_units(utterances[:-1], trained)


def test_released_files_hold_what_was_trained(
    trained: Workspace, settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(released, "load_encoder", lambda config: _random_encoder(config))
    path = released.export(settings, trained, console)
    opened = open_checkpoint(path / "omni2", decoder=path / "decoder")
    assert opened.warnings == []
    assert (opened.config.read, opened.config.write) == (settings.read, settings.write)
    ids = TextIds.load(trained)
    assert opened.config.tokens.speech == ids.speech and opened.config.tokens.eos == (ids.end,)
    assert opened.config.tokens.sep == ids.size

    listener = load_averaged(trained, LISTENING, make_listener(settings, ids))
    llm = load_llm(opened)
    prompt = listener.model.embed_tokens(torch.tensor([ids.prompt()]))
    assert torch.allclose(llm(prompt)[0], listener.hidden(prompt), atol=2e-2)
    assert len(read_vocabulary(trained).tokens) + 4 == llm.config.vocab

    # Every text token but the end has one and the same row in the speech head; units have their own.
    head = load_speech_lm(opened).lm_head.weight
    text = torch.cat([head[: ids.end], head[ids.end + 1 : ids.size]])
    assert torch.equal(text, text[:1].expand_as(text))
    assert len(head[ids.size + 1 :].unique(dim=0)) == settings.flow.encoder.units

    # For any voice that is asked for, the learnt one speaks.
    flow = load_flow(opened)
    one, other = (flow.speaker(torch.randn(1, settings.flow.estimator.speaker)) for _ in range(2))
    assert torch.equal(one, other)

    engine_path = tmp_path / "engine"
    voice = Path(__file__).parents[2] / "examples" / "voice.wav"
    build_engine(BuildRequest(opened, engine_path, [voice]))
    engine = Engine.load(engine_path, threads=1, warm_up=False)
    with engine.session(seed=1, max_new_tokens=6, max_last_write=20) as session:
        chunks = list(session.stream(voice, long="truncate"))
    assert sum(len(chunk.pcm) for chunk in chunks) > 0


def test_a_run_begins_with_released_weights(
    trained: Workspace, settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(released, "load_encoder", lambda config: _random_encoder(config))
    path = released.export(settings, trained, console)
    mine = Workspace(tmp_path)
    mine.save_corpus(trained.corpus())
    make_vocabulary(settings.model_copy(update={"merges": settings.merges + 40}), mine)
    adopt_released(settings, mine, console, path)

    ids, old = TextIds.load(mine), TextIds.load(trained)
    model = make_listener(settings, ids)
    Trainer(mine, Task(READING, model, lambda step, rng: {}), settings.llm.reading, 1, console)
    listener = load_averaged(trained, LISTENING, make_listener(settings, old))
    table, before = model.model.embed_tokens.weight, listener.model.embed_tokens.weight
    assert ids.size == old.size + 40 and table is model.model.lm_head.weight
    assert torch.allclose(table[ids.end], before[old.end], atol=1e-3)
    known = {old.tokenizer.token_bytes(i, skip_special=False) for i in range(old.size)}
    new = [i for i in range(ids.size) if ids.tokenizer.token_bytes(i, skip_special=False) not in known]
    word = new[-1]
    pieces = old.tokenizer.encode(ids.tokenizer.decode([word]))
    assert len(new) == 40 and len(pieces) > 1
    assert torch.allclose(table[word], before[pieces].mean(0), atol=1e-3)
    for name, value in listener.projector.state_dict().items():
        assert torch.allclose(model.projector.state_dict()[name], value, atol=1e-3)

    vocoder, flow = make_vocoder(settings), make_flow(settings)
    units = flow.table.parts.detach().clone()
    Trainer(mine, Task(VOCODER, vocoder, lambda step, rng: {}), settings.vocoder.schedule, 1, console)
    Trainer(mine, Task(FLOW, flow, lambda step, rng: {}), settings.flow.schedule, 1, console)
    own = load_vocoder(settings, trained)
    for name, value in own.state_dict().items():
        assert torch.allclose(vocoder.state_dict()[name], value, atol=2e-3, rtol=2e-3), name
    trained_flow = load_averaged(trained, FLOW, make_flow(settings)).flow
    assert torch.allclose(flow.flow.encoder_proj.weight, trained_flow.encoder_proj.weight, atol=1e-3)
    assert torch.equal(flow.table.parts, units), "units are the run's own"


def test_what_understands_goes_on_learning_and_the_voice_stays(
    trained: Workspace, settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(released, "load_encoder", lambda config: _random_encoder(config))
    before = CheckpointPaths.below(released.export(settings, trained, console))
    path = before.model.parent
    mine = Workspace(tmp_path)
    mine.save_corpus(trained.corpus())
    shutil.copytree(trained.path("questions"), mine.path("questions"))
    adopt_understanding(mine, console, path)
    learning = settings.llm.listening.model_copy(update={"steps": 120, "rate": 1e-2})
    one = settings.llm.model_copy(update={"answers": {".+": "Very good."}, "listening": learning})
    settings = settings.model_copy(
        update={"llm": one, "refit": settings.refit.model_copy(update={"steps": 150, "rate": 1e-2})}
    )

    ids = TextIds.load(mine)
    model = make_listener(settings, ids)
    assert Trainer(mine, Task(LISTENING, model, lambda step, rng: {}), learning, 1, console).step == 0
    for name, value in load_llm(open_checkpoint(before.model, decoder=before.decoder)).state_dict().items():
        assert torch.equal(model.model.state_dict()[name], value), name

    # A model that gives one answer to all that it hears; then it learns on.
    assert train_listening(settings, mine, console)
    old = load_averaged(mine, LISTENING, make_listener(settings, ids))
    torch.save(old.state_dict(), start_path(mine, LISTENING))
    longer = one.model_copy(update={"listening": learning.model_copy(update={"steps": 160}), "learnt": 0.6})
    settings = settings.model_copy(update={"llm": longer})
    assert train_listening(settings, mine, console)
    assert refit_fusion(settings, mine, console, path)
    after = CheckpointPaths.below(released.export(settings, mine, console, voice=path))

    names = ("vocab.json", "merges.txt", "tts_tokenizer/vocab.json", "model-00001-of-00002.safetensors")
    files = [(p.model / name).read_bytes() for name in names for p in (before, after)]
    files += [
        (p.decoder / name).read_bytes() for name in ("flow.safetensors", "hift.safetensors") for p in (before, after)
    ]
    assert files[::2] == files[1::2]
    first, last = (open_checkpoint(p.model, decoder=p.decoder) for p in (before, after))
    for name, value in load_speech_lm(first).state_dict().items():
        assert torch.equal(load_speech_lm(last).state_dict()[name], value), name
    assert not torch.equal(load_llm(last).norm.weight, load_llm(first).norm.weight)

    # What the speech language model is given is nearer to what it was than with the fusion as it was.
    new = refined_listener(settings, mine)
    items = in_its_words(Heard(settings, mine).items(True, 1), one.answers)
    rows = answered(old, new, Heard(settings, mine), ids, items)
    assert len(rows.ids) == len(items) * len(ids.answer("Very good."))
    embeds = load_speech_lm(first).embed_tokens.weight[rows.ids]
    wanted = load_fusion(first)(rows.before, embeds)
    apart = [float((load_fusion(c)(rows.after, embeds) - wanted).norm()) for c in (first, last)]
    assert apart[1] < 0.5 * apart[0]

    # It has come a part of the way from what it was to what it learnt.
    whole = load_averaged(mine, LISTENING, make_listener(settings, ids))
    between = torch.lerp(old.model.norm.weight, whole.model.norm.weight, 0.6)
    assert torch.equal(new.model.norm.weight, between)
    torch.testing.assert_close(load_llm(last).norm.weight, between.half().float())


def test_a_model_that_gives_no_right_answer_is_nothing_to_refit_by(trained: Workspace, settings: Settings) -> None:
    ids, ears = TextIds.load(trained), Heard(settings, trained)
    model = load_averaged(trained, LISTENING, make_listener(settings, ids))
    with pytest.raises(CheckpointError, match="none of the questions"):
        answered(model, model, ears, ids, ears.items(False, 1)[:4])


def test_a_released_vocoder_makes_of_scaled_mels_what_the_trained_one_makes_of_its_own(
    trained: Workspace, settings: Settings
) -> None:
    torch.manual_seed(0)
    mel, scale = torch.randn(1, 80, 12), 6.0
    own, released_one = (load_vocoder(settings, trained) for _ in range(2))
    noise, nothing = draws(own, 1, mel.shape[2]), mel.new_zeros(1, 1, 0)
    with torch.inference_mode():
        expected = own(mel, noise, nothing)[0]
        found = released.listening_to(released_one, scale)(scale * mel, noise, nothing)[0]
        other = own(scale * mel, noise, nothing)[0]
    assert (found - expected).abs().max() < 1e-3 * (other - expected).abs().max()


def test_speech_is_written_round_by_round(trained: Workspace, settings: Settings) -> None:
    ids = TextIds.load(trained)
    model = make_speech_lm(settings, ids)
    units = write_units(settings, model, ids, "Seven plus five is twelve.")
    assert np.all((units >= 0) & (units < settings.flow.encoder.units))


def _random_encoder(config: object) -> TorchSpeechEncoder:
    encoder = TorchSpeechEncoder(config)  # type: ignore[arg-type]
    torch.nn.init.normal_(encoder.positional_embedding, std=0.1)
    return encoder.eval().requires_grad_(False)
