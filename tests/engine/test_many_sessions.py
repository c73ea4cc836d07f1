"""Several conversations on one engine: each gets, to the bit, what it would get alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine import Chunk, Engine
from omni2_engine.errors import CapacityError
from omni2_engine.sampling import Sampling, Stream
from omni2_engine.turn.output import ChunkQueue
from omni2_export.build import BuildRequest, build_engine
from omni2_export.build.precision import parse_precision
from omni2_export.checkpoint import open_checkpoint

from ..waiting import SOON, eventually

SESSIONS = 8
LIMITS = {"max_new_tokens": 14, "max_last_write": 30}
Utterance = Callable[..., np.ndarray]


@dataclass
class Heard:
    """What one turn gave."""

    text: str
    pcm: np.ndarray
    units: list[int]

    def equals(self, other: Heard) -> bool:
        return self.text == other.text and self.units == other.units and np.array_equal(self.pcm, other.pcm)


def heard(chunks: list[Chunk]) -> Heard:
    text = "".join(chunk.text for chunk in chunks)
    return Heard(text, np.concatenate([chunk.pcm for chunk in chunks]), [chunk.units for chunk in chunks])


def converse(engine: Engine, utterance: Utterance, number: int, turns: int = 2, **options: object) -> list[Heard]:
    """A conversation that is different for every number, in all that may matter."""
    settings = {**LIMITS, "seed": number, "system": "Be brief." if number % 3 == 0 else None, **options}
    if number % 4 == 1:
        settings["text_sampling"] = Sampling(temperature=1.2)
    answers = []
    with engine.session(**settings) as session:
        for turn in range(turns):
            if number % 5 == 4 and turn == 1:
                chunks = list(session.stream(text=f"and {number}?"))
            else:
                chunks = list(session.stream(utterance(10 * number + turn, 0.5 + 0.2 * number), sample_rate=16_000))
            answers.append(heard(chunks))
            assert session.metrics is not None and session.metrics.finish_reason in ("end", "limit")
    return answers


def endless(engine: Engine) -> Callable[[Stream, list[int], int], int]:
    """Steers an answer so that the speech goes on as long as it may."""
    end = engine.config.tokens.speech_eos
    return lambda stream, generated, chosen: 7 if chosen == end else chosen


def together(works: list[Callable[[], None]]) -> None:
    """Run all at once, to their ends; the first error comes out."""
    errors: list[BaseException] = []

    def attempt(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=attempt, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads)


@contextmanager
def decoding(
    engine: Engine, before: Callable[[str, list[int]], object] = lambda model, sizes: None
) -> Iterator[list[int]]:
    """How many conversations each decoding call served; `before` is called with the model and all sizes so far."""
    sizes: list[int] = []
    lock = threading.Lock()  # the two models decode at the same time
    with pytest.MonkeyPatch.context() as patch:
        for name in ("llm", "speech_lm"):
            model = getattr(engine.pipeline, name)

            def decode(states, embeds, name=name, real=model.decode):  # type: ignore[no-untyped-def]
                with lock:
                    sizes.append(len(states))
                    so_far = list(sizes)
                before(name, so_far)
                real(states, embeds)

            patch.setattr(model, "decode", decode)
        yield sizes


@pytest.fixture(scope="module")
def balanced_engine(
    tiny_checkpoint: CheckpointPaths, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Engine:
    """The tiny engine with quantised language models, which decode by pairs."""
    path = tmp_path_factory.mktemp("many") / "balanced"
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    build_engine(BuildRequest(checkpoint, path, [repository / "examples" / "voice.wav"], parse_precision("balanced")))
    return Engine.load(path, threads=1, warm_up=False, sessions=SESSIONS)


@pytest.fixture(scope="module", params=["exact", "balanced"])
def many(request: pytest.FixtureRequest) -> Engine:
    """An engine for eight sessions, in float32 and quantised."""
    return request.getfixturevalue({"exact": "shared_engine", "balanced": "balanced_engine"}[request.param])


def test_eight_conversations_each_as_alone(
    many: Engine, utterance: Utterance, is_free: Callable[[Engine], bool]
) -> None:
    """Staggered arrivals, different prompts, seeds, sampling and lengths, two turns each."""
    alone = [converse(many, utterance, number) for number in range(SESSIONS)]
    assert len({answers[0].pcm.tobytes() for answers in alone}) == SESSIONS  # they differ
    randomness, answers = random.Random(1), {}
    arrivals = [0, *sorted(randomness.randrange(30) for _ in range(SESSIONS - 1))]  # decoding calls before each

    def come(number: int) -> None:
        eventually(lambda: len(sizes) >= arrivals[number])
        answers[number] = converse(many, utterance, number)

    def meet(model: str, so_far: list[int]) -> None:
        if len(so_far) == 31:  # all have come: another session waits for this model, or will
            eventually(lambda: many.scheduler.counts()[1] > 0)

    with decoding(many, meet) as sizes:
        together([lambda number=number: come(number) for number in range(SESSIONS)])
    for number in range(SESSIONS):
        assert all(mine.equals(other) for mine, other in zip(answers[number], alone[number], strict=True)), number
    assert max(sizes) >= 2 and len(sizes) < sum(sizes)  # some calls were shared
    assert is_free(many)


def test_conversations_beyond_the_slots_answer_as_well(
    tiny_engine_dir: Path, utterance: Utterance, is_free: Callable[[Engine], bool]
) -> None:
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False, sessions=2)
    alone = [converse(engine, utterance, number, turns=1) for number in range(5)]
    answers = {}

    def come(number: int) -> None:
        answers[number] = converse(engine, utterance, number, turns=1)

    together([lambda number=number: come(number) for number in range(5)])
    for number in range(5):
        assert answers[number][0].equals(alone[number][0])
    assert is_free(engine)


def with_room_for(conversations: int, turns: int, path: Path, admission: str, spare: float = 0.0) -> Engine:
    """An engine whose memory is just enough for these numbers of conversations and turns of `LIMITS`."""
    probe = Engine.load(path, threads=1, warm_up=False, sessions=SESSIONS, admission=admission)
    positions = probe.pipeline.speech_positions(LIMITS["max_new_tokens"], LIMITS["max_last_write"])
    turn = probe.states._turn_sizes(positions, positions / probe.config.flow_encoder.unit_rate)[0]
    memory = conversations * probe.states._conversations.slot_nbytes + int((turns + spare) * turn)
    return Engine.load(path, threads=1, warm_up=False, sessions=SESSIONS, admission=admission, memory=memory)


def test_those_for_whom_there_is_no_room_wait(
    tiny_engine_dir: Path, utterance: Utterance, is_free: Callable[[Engine], bool]
) -> None:
    engine = with_room_for(2, 1, tiny_engine_dir, "wait", spare=0.5)
    alone, answers = [converse(engine, utterance, number) for number in range(6)], {}
    together(
        [lambda number=number: answers.update({number: converse(engine, utterance, number)}) for number in range(6)]
    )
    for number in range(6):
        assert all(mine.equals(other) for mine, other in zip(answers[number], alone[number], strict=True))
    assert is_free(engine)


def test_those_for_whom_there_is_no_room_are_refused(
    tiny_engine_dir: Path, utterance: Utterance, is_free: Callable[[Engine], bool]
) -> None:
    engine = with_room_for(2, 1, tiny_engine_dir, "refuse")
    with engine.session(**LIMITS) as first, engine.session(**LIMITS) as second:
        running = first.stream(utterance(1), sample_rate=16_000)
        next(running)
        with pytest.raises(CapacityError, match="others use"):
            engine.session()
        with pytest.raises(CapacityError, match="others use"):
            second.stream(utterance(2), sample_rate=16_000)
        assert list(running)[-1].final
        assert list(second.stream(utterance(2), sample_rate=16_000))[-1].final
    assert is_free(engine)


def test_those_for_whom_there_is_little_room_hear_less_of_themselves(
    tiny_engine_dir: Path, utterance: Utterance, is_free: Callable[[Engine], bool]
) -> None:
    """A turn of half a minute at most, and room for a little more than the shortest left context."""
    limits = {"max_new_tokens": 60, "max_last_write": 600}
    probe = Engine.load(tiny_engine_dir, threads=1, warm_up=False)
    positions = probe.pipeline.speech_positions(*limits.values())
    least, full = probe.states._turn_sizes(positions, positions / probe.config.flow_encoder.unit_rate)
    memory = probe.states._conversations.slot_nbytes + least + (full - least) // 2
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False, memory=memory)
    whole = heard(list(probe.stream(utterance(1), sample_rate=16_000, **limits)))
    with engine.session(**limits) as session:
        chunks = list(session.stream(utterance(1), sample_rate=16_000))
        assert session.metrics is not None
        assert 4.0 < session.metrics.left_context < probe.pipeline.decoder.flow.left_context
    assert chunks[-1].end < session.metrics.left_context and heard(chunks).equals(whole)  # heard in any case
    assert is_free(engine)


def test_sessions_at_the_same_stage_share_calls(shared_engine: Engine, utterance: Utterance) -> None:
    """Where decoding takes most of the time, as reading weights does, each ready session joins the next call."""
    speak_on = endless(shared_engine)

    def one(number: int) -> None:
        with shared_engine.session(seed=number, max_new_tokens=3, max_last_write=60) as session:
            list(session.stream(utterance(number), sample_rate=16_000, steer=speak_on))

    with decoding(shared_engine) as sizes:
        one(0)
    assert set(sizes) == {1}
    spoken = threading.Event()

    def take_long(model: str, sizes: list[int]) -> None:
        """A token of speech: as long as all else that runs; the first until all others wait for theirs."""
        if model == "speech_lm" and not spoken.is_set():
            spoken.set()
            eventually(lambda: shared_engine.scheduler.counts()[1:] == (SESSIONS - 1, 1))
        if model == "speech_lm":
            eventually(lambda: shared_engine.scheduler.counts()[2] == sizes[-1])

    with decoding(shared_engine, take_long) as sizes:
        together([lambda number=number: one(number) for number in range(SESSIONS)])
    assert sum(sizes) == SESSIONS * (2 + 59)
    assert max(sizes) >= SESSIONS // 2
    assert sum(sizes) >= 2 * len(sizes)


def test_a_slow_consumer_bounds_what_is_made(
    shared_engine: Engine, utterance: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gets the same; others are not kept waiting."""
    alone = converse(shared_engine, utterance, 2, turns=1)[0]
    made: dict[int, list[float]] = {}  # seconds of sound, by turn
    put = ChunkQueue.put

    def counted(queue: ChunkQueue, chunk: Chunk) -> None:
        made.setdefault(id(queue), []).append(chunk.duration)
        put(queue, chunk)

    monkeypatch.setattr(ChunkQueue, "put", counted)
    limit = 0.3
    with shared_engine.session(**LIMITS, seed=2, unread=limit) as session:
        chunks = session.stream(utterance(20, 0.9), sample_rate=16_000)
        taken = [next(chunks)]
        (mine,) = made.values()
        together([lambda: converse(shared_engine, utterance, 3, turns=1)])

        def rests() -> bool:
            """There is more to do, and no thread does it."""
            sessions, queued, running = shared_engine.scheduler.counts()
            return sessions == 1 and queued >= 1 and running == 0 and sum(mine) - taken[0].end > limit

        eventually(rests)
        assert sum(mine) - taken[0].end <= limit + max(mine)
        for chunk in chunks:
            taken.append(chunk)
            assert sum(mine) - taken[-1].end <= limit + max(mine)
    assert heard(taken).equals(alone)
    assert sum(mine) == pytest.approx(taken[-1].end) and len(taken) > 3


def test_chunks_that_grow_say_the_same_in_fewer_calls(shared_engine: Engine, utterance: Utterance) -> None:
    def answer(chunks: str) -> tuple[Heard, int]:
        with shared_engine.session(seed=5, chunks=chunks, max_new_tokens=9, max_last_write=150) as session:
            on = session.stream(utterance(5), sample_rate=16_000, steer=endless(shared_engine))
            result = heard(list(on))
            assert session.metrics is not None
            return result, sum(span.stage == "flow" for span in session.metrics.spans)

    fixed, fixed_calls = answer("fixed")
    growing, growing_calls = answer("growing")
    assert growing.text == fixed.text and len(growing.pcm) == len(fixed.pcm) > 0
    assert growing.units[-1] == fixed.units[-1]
    assert growing_calls < fixed_calls  # by how many depends on the machine: with `lead` given, see test_turn_policy
