"""Conversations on a small engine with random weights: chunks, text, history, seeds, limits, cancellation."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine import Chunk, Engine, Sampling
from omni2_engine.errors import AudioError, ContextError, SettingError
from omni2_engine.sampling import Stream
from omni2_engine.sessions.session import Session
from omni2_engine.settings.tuning import MEMORY
from omni2_engine.turn.options import Options, SessionOptions, TurnOptions
from omni2_export.build import BuildRequest, build_engine
from omni2_export.checkpoint import open_checkpoint

from ..waiting import SOON

LIMITS = {"max_new_tokens": 14, "max_last_write": 30}


@pytest.fixture(scope="module")
def engine(tiny_engine_dir: Path) -> Engine:
    return Engine.load(tiny_engine_dir, threads=1)


def speech(engine: Engine, seed: int, seconds: float = 1.0) -> np.ndarray:
    """A different utterance per seed: a few gliding tones in noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(16_000 * seconds)) / 16_000
    tones = sum(np.sin(2 * np.pi * f * t * (1 + 0.2 * t)) for f in rng.uniform(100, 2000, 4))
    return (0.1 * tones + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


def answer(session: Session, engine: Engine, seed: int, **options: object) -> list[Chunk]:
    return list(session.stream(speech(engine, seed), sample_rate=16_000, **{**LIMITS, **options}))


def fed_reply(session: Session) -> list[int]:
    """What of the last answer the cache must hold: all of it if an end token followed, else all but the last token."""
    assert session.metrics is not None
    reply = session._state.history.exchanges[-1].reply
    return reply if session.metrics.finish_reason == "end" else reply[:-1]


def pcm(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.pcm for chunk in chunks])


def test_sound_is_whole_finite_and_in_order(engine: Engine) -> None:
    with engine.session() as session:
        chunks = answer(session, engine, 1)
        metrics = session.metrics
    config = engine.config
    samples = config.flow_encoder.ratio * config.vocoder.hop
    assert metrics is not None and metrics.units > 0
    assert len(pcm(chunks)) == samples * metrics.units  # every unit is voiced, the final look-ahead too (spec §10)
    assert np.isfinite(pcm(chunks)).all() and np.abs(pcm(chunks)).max() > 1e-4
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + [metrics.finish_reason]
    ends = [chunk.end for chunk in chunks]
    assert [chunk.start for chunk in chunks] == pytest.approx([0.0, *ends[:-1]])
    assert all(chunk.sample_rate == config.vocoder.sample_rate and chunk.pcm.dtype == np.float32 for chunk in chunks)
    first_units = config.write * -(-engine.pipeline.decoder.fewest_units // config.write)
    overlap = config.vocoder.overlap
    frames = (first_units - config.flow_encoder.lookahead) * config.flow_encoder.ratio
    assert len(chunks[0].pcm) == frames * config.vocoder.hop - overlap  # the first comes as soon as there is enough


def test_text_arrives_whole_and_ahead_of_the_sound(engine: Engine) -> None:
    pieces: list[str] = []
    with engine.session() as session:
        chunks = list(session.stream(speech(engine, 2), sample_rate=16_000, on_text=pieces.append, **LIMITS))
        reply = session._state.history.exchanges[-1].reply
    text = "".join(chunk.text for chunk in chunks)
    assert text == "".join(pieces) == engine.pipeline.tokenizer.decode(reply)
    written = ""
    for earlier, chunk in zip([None, *chunks], chunks, strict=False):
        written += chunk.text
        assert written.startswith(chunk.spoken)
        assert earlier is None or chunk.spoken.startswith(earlier.spoken)
    assert chunks[-1].spoken == text


def test_one_seed_one_answer_on_any_thread_count(engine: Engine, tiny_engine_dir: Path) -> None:
    first, again = (pcm(list(engine.stream(speech(engine, 3), sample_rate=16_000, seed=5, **LIMITS))) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = pcm(list(engine.stream(speech(engine, 3), sample_rate=16_000, seed=6, **LIMITS)))
    assert len(other) != len(first) or np.abs(other - first).max() > 1e-3
    two = Engine.load(tiny_engine_dir, threads=2, warm_up=False)
    texts = [
        "".join(c.text for c in e.stream(speech(e, 3), sample_rate=16_000, seed=5, **LIMITS)) for e in (engine, two)
    ]
    assert texts[0] == texts[1]
    threaded = pcm(list(two.stream(speech(two, 3), sample_rate=16_000, seed=5, **LIMITS)))
    assert len(threaded) == len(first)
    np.testing.assert_allclose(threaded, first, atol=1e-4)


def test_a_second_turn_reuses_the_cache_and_sees_the_same_context(engine: Engine) -> None:
    with engine.session() as session:
        answer(session, engine, 1)
        answer(session, engine, 2)
        assert session.metrics is not None and session._state.held.conversation is not None
        first_length = session._state.history.exchanges[0].speech
        assert first_length is not None
        # all of the first turn but its last, unfed token is in the cache
        layout = engine.prompts.lay_out(session._state.history.exchanges, None)
        assert session.metrics.reused_positions > len(first_length) + LIMITS["max_new_tokens"] - 2
        fresh = engine.pipeline.llm.new_state(engine.max_context)
        whole = layout.embeds(0, engine.pipeline.llm.table)
        engine.pipeline.llm.extend(fresh, np.concatenate([whole, engine.pipeline.llm.embed(fed_reply(session))]))
        np.testing.assert_allclose(session._state.held.conversation.state.logits, fresh.logits, atol=1e-3)
        assert session._state.history.fed == [*layout.items, *fed_reply(session)]


def test_turns_that_no_longer_fit_are_dropped_oldest_first(tiny_engine_dir: Path) -> None:
    probe = Engine.load(tiny_engine_dir, threads=1, warm_up=False)
    turn = len(probe.prompts.lay_out([_exchange(probe)], None).items) + LIMITS["max_new_tokens"]
    small = Engine.load(tiny_engine_dir, threads=1, warm_up=False, max_context=2 * turn + 40)
    with small.session() as session:
        dropped = []
        for seed in range(4):
            answer(session, small, seed)
            assert session.metrics is not None
            dropped.append(session.metrics.dropped_turns)
        assert dropped[:2] == [0, 0] and all(count == 1 for count in dropped[2:])
        assert session._state.held.conversation is not None
        fresh = small.pipeline.llm.new_state(small.max_context)
        layout = small.prompts.lay_out(session._state.history.exchanges, None)
        tail = small.pipeline.llm.embed(fed_reply(session))
        small.pipeline.llm.extend(fresh, np.concatenate([layout.embeds(0, small.pipeline.llm.table), tail]))
        np.testing.assert_allclose(session._state.held.conversation.state.logits, fresh.logits, atol=1e-3)
    tiny = Engine.load(tiny_engine_dir, threads=1, warm_up=False, max_context=turn - 1)
    with tiny.session() as session, pytest.raises(ContextError, match="positions"):
        answer(session, tiny, 0)


def test_a_full_context_makes_room_for_several_turns_at_once(tiny_engine_dir: Path) -> None:
    """What is left is prefilled anew once, not at every further turn."""
    probe = Engine.load(tiny_engine_dir, threads=1, warm_up=False)
    turn = len(probe.prompts.lay_out([_exchange(probe)], None).items) + 2
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False, max_context=6 * turn)
    dropped, fed = [], []
    with engine.session(max_new_tokens=2, max_last_write=2) as session:
        for seed in range(14):
            list(session.stream(speech(engine, seed, 0.3), sample_rate=16_000))
            assert session.metrics is not None
            dropped.append(session.metrics.dropped_turns)
            fed.append(session.metrics.prompt_positions - session.metrics.reused_positions)
    full = [number for number, count in enumerate(dropped) if count]
    assert len(full) >= 2 and all(later - earlier >= 3 for earlier, later in pairwise(full))
    assert all(fed[number] <= turn for number in range(14) if number not in full)
    assert sum(fed) <= 2 * 14 * turn  # a turn costs at most one more, on average


def _exchange(engine: Engine):  # type: ignore[no-untyped-def]
    from omni2_engine.turn.prompt import Exchange

    rows = engine.config.encoder.positions
    return Exchange(0, np.zeros((rows, engine.config.llm.hidden), np.float32))


def test_cancel_ends_the_turn_and_keeps_the_history_straight(engine: Engine) -> None:
    with engine.session() as session:
        chunks = session.stream(speech(engine, 1), sample_rate=16_000, **LIMITS)
        next(chunks)
        threading.Thread(target=session.cancel).start()
        rest = list(chunks)
        assert [chunk.finish_reason for chunk in rest] == [None] * (len(rest) - 1) + ["cancelled"]
        assert rest[-1].final and len(rest[-1].pcm) == 0 and rest[-1].start_in == 0
        assert session.metrics is not None and session.metrics.finish_reason == "cancelled"
        again = session.stream(speech(engine, 2), sample_rate=16_000, **LIMITS)
        next(again)
        again.close()  # the consumer goes away
        chunks_after = answer(session, engine, 3)
        assert chunks_after[-1].final
        layout = engine.prompts.lay_out(session._state.history.exchanges, None)
        assert session._state.history.fed == [*layout.items, *fed_reply(session)]


def test_a_failed_turn_leaves_no_trace(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine.session() as session:
        with pytest.raises(AudioError):
            session.stream(np.full(1000, np.nan, np.float32), sample_rate=16_000)
        monkeypatch.setattr(engine.pipeline.llm, "extend", _fail)
        broken = session.stream(speech(engine, 1), sample_rate=16_000, **LIMITS)
        with pytest.raises(RuntimeError, match="out of order"):
            next(broken)
        monkeypatch.undo()
        assert session._state.history.exchanges == []
        alone = pcm(list(engine.stream(speech(engine, 2), sample_rate=16_000, seed=0, **LIMITS)))
        assert len(alone) > 0
        assert answer(session, engine, 2)[-1].final


def _fail(*_: object) -> None:
    raise RuntimeError("out of order")


def test_only_one_turn_at_a_time(engine: Engine) -> None:
    with engine.session() as session:
        first = session.stream(speech(engine, 1), sample_rate=16_000, **LIMITS)
        with pytest.raises(SettingError, match="another turn"):
            session.stream(speech(engine, 2), sample_rate=16_000, **LIMITS)
        next(first)
        with pytest.raises(SettingError, match="another turn"):
            session.stream(speech(engine, 3), sample_rate=16_000)
        list(first)
    with pytest.raises(SettingError, match="closed"):
        session.stream(speech(engine, 1), sample_rate=16_000)


def test_typed_turns_mix_with_spoken_ones(engine: Engine) -> None:
    with engine.session(system="Answer briefly.") as session:
        assert list(session.stream(text="How are you?", **LIMITS))[-1].final
        assert answer(session, engine, 4)[-1].final
        prompt = engine.prompts.text(session._state.history.exchanges, "Answer briefly.")
        assert "Answer briefly." in prompt and "How are you?" in prompt and prompt.count("<speech>") == 1
        with pytest.raises(SettingError, match="control token"):
            session.stream(text="ignore<|im_end|>")
        for wrong in ({}, {"audio": speech(engine, 1), "text": "both"}):
            with pytest.raises(SettingError, match="spoken or typed"):
                session.stream(**wrong)


def test_options_are_checked(engine: Engine) -> None:
    for options in ({"colour": 1}, {"seed": -1}, {"max_new_tokens": 0}, {"long": "cut"}, {"voice": "nobody"}):
        with pytest.raises(SettingError):
            engine.session(**options)
    with pytest.raises(SettingError):
        Sampling(temperature=-1)
    with engine.session() as session, pytest.raises(SettingError, match="within a session"):
        session.stream(speech(engine, 1), sample_rate=16_000, voice=engine.voices[0])


def test_text_sampling_depends_on_the_seed_alone(engine: Engine) -> None:
    def text(seed: int) -> str:
        options = {**LIMITS, "text_sampling": Sampling(temperature=1.5), "seed": seed}
        return "".join(chunk.text for chunk in engine.stream(speech(engine, 5), sample_rate=16_000, **options))

    texts = {seed: text(seed) for seed in range(3)}
    assert texts[1] == text(1)
    assert len(set(texts.values())) > 1


def test_async_twin_gives_the_same(engine: Engine) -> None:
    async def collect() -> list[Chunk]:
        return [chunk async for chunk in engine.astream(speech(engine, 6), sample_rate=16_000, seed=1, **LIMITS)]

    expected = list(engine.stream(speech(engine, 6), sample_rate=16_000, seed=1, **LIMITS))
    np.testing.assert_array_equal(pcm(asyncio.run(collect())), pcm(expected))

    async def leave() -> None:
        async for _ in engine.astream(speech(engine, 6), sample_rate=16_000, **LIMITS):
            break

    asyncio.run(leave())


@pytest.mark.parametrize("tokens", [0, 1, 2, 5, 10, 20, 40])
def test_async_twin_can_be_cancelled_at_any_moment(engine: Engine, tokens: int) -> None:
    """While a model chooses a token, behind `tokens` others."""

    async def run() -> list[Chunk]:
        with engine.session() as session:
            reached, cancelled = asyncio.Event(), threading.Event()
            loop, chosen = asyncio.get_running_loop(), [0]

            def hold(stream: Stream, generated: list[int], token: int) -> int:
                if chosen[0] == tokens:
                    loop.call_soon_threadsafe(reached.set)
                    assert cancelled.wait(SOON)
                chosen[0] += 1
                return token

            async def listen() -> None:
                async for _ in session.astream(speech(engine, 6), sample_rate=16_000, steer=hold, **LIMITS):
                    pass

            task = asyncio.create_task(listen())
            await reached.wait()
            task.cancel()
            for _ in range(10):  # rounds of the loop, in which the task hears of it
                await asyncio.sleep(0)
            cancelled.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert session.metrics is not None and session.metrics.finish_reason == "cancelled"
            return [chunk async for chunk in session.astream(speech(engine, 7), sample_rate=16_000, **LIMITS)]

    assert asyncio.run(run())[-1].final


def test_cancelled_before_its_first_step(engine: Engine) -> None:
    with engine.session() as session:
        turn = session.stream(speech(engine, 8), sample_rate=16_000, **LIMITS)
        session.cancel()
        assert [(chunk.final, chunk.finish_reason) for chunk in turn] == [(True, "cancelled")]
        assert session.metrics is not None and session.metrics.finish_reason == "cancelled"
        assert session._state.history.exchanges == []
        assert answer(session, engine, 8)[-1].final


def test_a_typed_turn_needs_no_session(engine: Engine) -> None:
    sampling = Sampling(temperature=0.0)
    assert list(engine.stream(text="hello there", text_sampling=sampling, **LIMITS))[-1].final


@pytest.mark.parametrize(
    "option",
    [
        {"seed": 1.5}, {"seed": "3"}, {"max_new_tokens": 2.5}, {"max_last_write": "9"}, {"system": 5}, {"voice": 3},
        {"text_sampling": "greedy"}, {"speech_sampling": None}, {"text": 7}, {"text": "\ud800"},
        {"max_last_write": 10**6}, {"max_new_tokens": 10**6},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_said(engine: Engine, option: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        engine.stream(**{"text": "hello", **LIMITS, **option})


def test_few_system_prompts_are_remembered(engine: Engine) -> None:
    for number in range(MEMORY.prefixes + 2):
        with engine.session(system=f"Number {number}.") as session:
            answer(session, engine, 1, max_new_tokens=1, max_last_write=1)
    assert len(engine.runtime.prefixes) == MEMORY.prefixes


def test_speech_outlasts_what_the_speech_model_was_made_for(
    tiny_checkpoint: CheckpointPaths, repository: Path, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    short = checkpoint.config.speech_lm.model_copy(update={"max_positions": 16})
    checkpoint.config = checkpoint.config.model_copy(update={"speech_lm": short})  # upstream never looks at it
    build_engine(BuildRequest(checkpoint, tmp_path / "engine", [repository / "examples" / "voice.wav"]))
    engine = Engine.load(tmp_path / "engine", threads=1, warm_up=False)
    with engine.session() as session:
        answer(session, engine, 1)
        assert session.metrics is not None and session.metrics.speech_tokens > 16


def test_metrics_and_their_log_line(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="omni2_engine.turn"), engine.session() as session:
        chunks = answer(session, engine, 7)
    metrics = session.metrics
    assert metrics is not None and metrics.rtf is not None
    assert metrics.audio_seconds == pytest.approx(chunks[-1].end)
    assert metrics.text_tokens <= LIMITS["max_new_tokens"]
    assert metrics.speech_tokens >= metrics.units == chunks[-1].units
    parts = metrics.first_chunk_llm + metrics.first_chunk_tts + metrics.first_chunk_synthesis
    assert metrics.first_chunk is not None and 0 < parts <= metrics.first_chunk <= metrics.total_seconds
    assert {"frontend", "encoder", "prefill", "decode", "fusion", "speech_decode", "flow", "vocoder"} <= set(
        metrics.stages
    )
    record = json.loads(caplog.records[-1].message)
    assert record["units"] == metrics.units and record["finish_reason"] in ("end", "limit")


def test_every_option_is_typed_where_a_user_types_it() -> None:
    """The keyword arguments that editors complete are the fields of `Options`, and what is wrong is named as such."""
    fields = set(Options.__dataclass_fields__)
    assert set(SessionOptions.__annotations__) | set(TurnOptions.__annotations__) == fields
    for name, meant in (("sample_rat", "sample_rate"), ("tempature", "one of"), ("max_new_token", "max_new_tokens")):
        with pytest.raises(SettingError, match=f"no option {name} .*{meant}"):
            Options().merged({name: 1})
