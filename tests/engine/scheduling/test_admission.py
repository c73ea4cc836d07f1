"""Memory is promised before it is taken, never twice, and comes back: budgets, and the states made within them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine import Engine
from omni2_engine.errors import CapacityError
from omni2_engine.memory.budget import Admission, MemoryBudget
from omni2_engine.memory.states import Conversation, StatePool, TurnStates
from omni2_engine.settings.tuning import MEMORY
from omni2_engine.stages.graph_state import cache_bytes
from omni2_engine.stages.speech_decoder import SpeechState
from omni2_engine.system.resources import available_memory
from omni2_engine.system.waits import run

from ...waiting import SOON, let_others_run, sleeps

CONTEXT = 200
POSITIONS = 500  # of speech: 20 s of sound
SECONDS = 20.0


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def all_finish(threads: list[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(SOON)
    return not any(thread.is_alive() for thread in threads)


# -- the budget --------------------------------------------------------------------------------------------------------


@given(
    limit=st.integers(0, 100),
    moves=st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 120), st.integers(0, 120))), max_size=40),
)
def test_a_budget_promises_what_it_has_and_no_more(limit: int, moves: list[tuple[int, int] | None]) -> None:
    budget, given_out = MemoryBudget(limit), []
    for move in moves:
        free = limit - sum(given_out)
        assert budget.free == free
        if move is None:
            if given_out:
                budget.give_back(given_out.pop(0))
            continue
        least, most = sorted(move)
        if least > free:
            with pytest.raises(CapacityError, match="others use" if least <= limit else "may use"):
                run(budget.take(most, least, wait=False))
        else:
            given_out.append(run(budget.take(most, least, wait=False)))
            assert given_out[-1] == min(most, free)
    for taken in given_out:
        budget.give_back(taken)
    assert budget.used == 0


def test_waiting_ends_when_there_is_enough_and_comes_in_order() -> None:
    budget = MemoryBudget(10)
    first = run(budget.take(9, 9, wait=True))
    requests = [budget.take(size, size, wait=True) for size in (8, 1, 5)]
    large, small, later = (next(request) for request in requests)
    assert not large.done() and not small.done()  # the small one would fit, and must not starve the large one
    budget.give_back(first)
    assert large.result(0) == 8 and small.result(0) == 1 and not later.done()
    assert budget.used == 9 and len(requests) == 3


def test_a_wait_for_what_will_never_be_is_refused() -> None:
    with pytest.raises(CapacityError, match="may use"):
        run(MemoryBudget(10).take(20, 11, wait=True))


def test_a_request_that_is_given_up_lets_the_next_go() -> None:
    """By an interrupt, as a consumer gets it, or because it took too long."""
    budget = MemoryBudget(10)
    taken = [run(budget.take(5, 5, wait=True)), run(budget.take(4, 4, wait=True))]
    interrupted, late, behind = (budget.take(size, size, wait=True) for size in (8, 9, 2))
    waits_for = [next(work) for work in (interrupted, late, behind)]
    with pytest.raises(KeyboardInterrupt):
        interrupted.throw(KeyboardInterrupt())
    with pytest.raises(TimeoutError):
        late.throw(TimeoutError())
    assert not waits_for[2].done()
    budget.give_back(taken[0])
    assert waits_for[2].result(0) == 2 and budget.used == 4 + 2


def test_what_was_granted_too_late_is_given_back() -> None:
    budget = MemoryBudget(10)
    taken = run(budget.take(10, 10, wait=True))
    waiting = budget.take(6, 6, wait=True)
    next(waiting)
    budget.give_back(taken)
    assert budget.used == 6
    with pytest.raises(KeyboardInterrupt):
        waiting.throw(KeyboardInterrupt())
    assert budget.used == 0


def test_a_cancelled_future_leaves_the_queue() -> None:
    """As `Session.cancel` and asyncio cancel it."""
    budget = MemoryBudget(10)
    taken = run(budget.take(10, 10, wait=True))
    first, second = budget.take(9, 9, wait=True), budget.take(3, 3, wait=True)
    cancelled, granted = next(first), next(second)
    cancelled.cancel()
    budget.give_back(taken)
    assert granted.result(0) == 3
    with pytest.raises(CancelledError):
        first.throw(CancelledError())
    assert budget.used == 3


def test_what_fails_gives_its_bytes_back() -> None:
    budget = MemoryBudget(10)
    with pytest.raises(KeyError), budget.undone_on_error(run(budget.take(7, 7, wait=False))):
        raise KeyError
    assert budget.used == 0


def test_many_threads_share_a_budget() -> None:
    budget, problems = MemoryBudget(100), []

    def work(seed: int) -> None:
        random = Random(seed)
        for _ in range(300):
            least = random.randint(0, 60)
            taken = run(budget.take(least + random.randint(0, 40), least, wait=True))
            if not (least <= taken and budget.used <= budget.limit):
                problems.append(taken)
            budget.give_back(taken)

    assert all_finish([in_thread(lambda seed=seed: work(seed)) for seed in range(8)])
    assert not problems and budget.used == 0


def test_available_memory_is_that_of_a_machine() -> None:
    assert 1 << 26 < available_memory() < 1 << 50


# -- states ------------------------------------------------------------------------------------------------------------


def pool(engine: Engine, limit: int, admission: Admission, sessions: int = 2) -> StatePool:
    p = engine.pipeline
    return StatePool(p.llm, p.speech_lm, p.decoder, sessions, CONTEXT, POSITIONS, MemoryBudget(limit), admission)


def begin(states: StatePool, engine: Engine, positions: int = POSITIONS, seconds: float = SECONDS) -> TurnStates:
    return run(states.begin(engine.voice_features(), positions, seconds))


def sizes(engine: Engine) -> tuple[int, int, int]:
    """Bytes of a conversation, of a turn at least, and of all a turn may use."""
    states, flow = pool(engine, 1 << 40, Admission.REFUSE), engine.pipeline.decoder.flow
    conversation, turn = run(states.open()), begin(states, engine)
    full = turn.promised
    return conversation.promised, full - flow.nbytes(SECONDS) + flow.nbytes(SECONDS, MEMORY.least_context), full


def nothing_is_out(states: StatePool) -> bool:
    return states.budget.used == states._lasting.used == states._open == states._running == 0


def test_slots_are_shared_until_there_are_none(tiny_engine: Engine) -> None:
    states = pool(tiny_engine, 1 << 40, Admission.REFUSE)
    conversations = [run(states.open()) for _ in range(3)]
    turns = [begin(states, tiny_engine) for _ in range(3)]
    keys = [states.key(conversation.state) for conversation in conversations]
    speech_keys = [states.key(turn.speech) for turn in turns]
    assert keys[0] == keys[1] > 0 and speech_keys[0] == speech_keys[1] > 0 and keys[0] != speech_keys[0]
    assert keys[2] == speech_keys[2] == 0
    assert conversations[2].promised == conversations[0].promised and turns[2].promised == turns[0].promised
    states.close(conversations[1])
    assert states.key(run(states.open()).state) == keys[0]  # the slot is taken again
    states.end(turns[0])
    longer = begin(states, tiny_engine, positions=POSITIONS + 100)
    assert states.key(longer.speech) == 0 and longer.speech.capacity >= POSITIONS + 100
    assert longer.promised > turns[1].promised


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), admission=st.sampled_from([Admission.REFUSE, Admission.SHORTEN]))
def test_accounts_are_straight_after_any_coming_and_going(tiny_engine: Engine, seed: int, admission: Admission) -> None:
    size, _, full = sizes(tiny_engine)
    states, random = pool(tiny_engine, 3 * size + 2 * full, admission), Random(seed)
    conversations: list[Conversation] = []
    turns: list[TurnStates] = []
    for _ in range(30):
        move = random.randrange(4)
        try:
            if move == 0:
                conversations.append(run(states.open()))
            elif move == 1 and len(turns) < len(conversations):
                turns.append(begin(states, tiny_engine, random.randint(1, POSITIONS), random.uniform(0.1, SECONDS)))
        except CapacityError:
            pass
        if move == 2 and turns:
            states.end(turns.pop(random.randrange(len(turns))))
        elif move == 3 and len(conversations) > len(turns):
            states.close(conversations.pop())
        assert states.budget.used == sum(held.promised for held in (*conversations, *turns)) <= states.budget.limit
    for turn in turns:
        states.end(turn)
    for conversation in conversations:
        states.close(conversation)
    assert nothing_is_out(states)
    assert states._conversations.free == states._speeches.free == 2


def test_the_memory_of_the_turn_that_ended_last_is_used_again(tiny_engine: Engine) -> None:
    """By one turn at a time, as if it were new; its bytes count while a turn has it, and not in between."""
    states, decoder, random = pool(tiny_engine, 1 << 40, Admission.REFUSE), tiny_engine.pipeline.decoder, Random(1)

    def sound(state: SpeechState, units: list[int]) -> bytes:
        chunks = [decoder.run_flow(state, units[first : first + 10], False) for first in range(0, len(units), 10)]
        return b"".join(decoder.run_vocoder(state, mel, False, 1, 2).tobytes() for mel in chunks)

    def speak(turn: TurnStates, count: int) -> bytes:
        units = [random.randrange(decoder.flow.units_config.units) for _ in range(count)]
        said = sound(turn.decoder, units)
        assert said == sound(decoder.new_state(tiny_engine.voice_features()), units)
        return said

    run(states.open())
    turn, other = begin(states, tiny_engine), begin(states, tiny_engine)
    used = states.budget.used
    memory = turn.decoder.flow.steps[0].caches["keys_0"]
    speak(turn, 170)  # several blocks, and the encoder's contexts are not zero any more
    states.end(turn)
    assert states.budget.used == used - turn.promised
    again, another = begin(states, tiny_engine), begin(states, tiny_engine)
    assert again.decoder is turn.decoder and again.decoder.flow.steps[0].caches["keys_0"] is memory
    assert again.promised == turn.promised and states.budget.used == used + another.promised
    assert len({id(each.decoder) for each in (again, another, other)}) == 3
    assert speak(again, 90) != speak(another, 90)


def test_idle_memory_is_not_used_for_a_turn_that_is_promised_less(tiny_engine: Engine) -> None:
    states = pool(tiny_engine, 1 << 40, Admission.REFUSE)
    turn = begin(states, tiny_engine)
    states.end(turn)
    shorter = begin(states, tiny_engine, seconds=SECONDS / 2)
    assert shorter.decoder is not turn.decoder
    states.end(shorter)
    assert begin(states, tiny_engine).decoder is shorter.decoder  # and may fill more from now on

    size, _, full = sizes(tiny_engine)
    states = pool(tiny_engine, 2 * size + full - 1, Admission.SHORTEN)
    conversation, turn = run(states.open()), begin(states, tiny_engine)
    states.end(turn)
    states.close(conversation)
    conversations = [run(states.open()), run(states.open())]
    further = begin(states, tiny_engine)
    assert further.left_context != turn.left_context and further.decoder is not turn.decoder
    assert len(conversations) == 2


def test_idle_memory_goes_when_a_conversation_needs_it(tiny_engine: Engine) -> None:
    size, _, full = sizes(tiny_engine)
    states = pool(tiny_engine, 2 * size + full, Admission.REFUSE)
    run(states.open())
    turn = begin(states, tiny_engine)
    gone = weakref.ref(turn.decoder)
    states.end(turn)
    del turn
    run(states.open())
    assert gone() is not None  # there is room for both
    run(states.open())
    assert gone() is None


def test_refused_with_the_reason(tiny_engine: Engine) -> None:
    size, _, full = sizes(tiny_engine)
    states = pool(tiny_engine, 2 * size + full, Admission.REFUSE)
    conversations, turn = [run(states.open()), run(states.open())], begin(states, tiny_engine)
    for ask in (lambda: run(states.open()), lambda: begin(states, tiny_engine, 1, 0.1)):
        with pytest.raises(CapacityError, match="others use"):
            ask()
    states.end(turn)
    states.end(begin(states, tiny_engine))
    for conversation in conversations:
        states.close(conversation)
    assert nothing_is_out(states)


def test_a_failure_on_the_way_gives_all_back(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    states = pool(tiny_engine, 1 << 40, Admission.SHORTEN, sessions=1)
    conversation = run(states.open())
    used = states.budget.used

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(type(tiny_engine.pipeline.decoder), "new_state", fail)
    with pytest.raises(MemoryError):
        begin(states, tiny_engine)
    monkeypatch.setattr(type(tiny_engine.pipeline.llm), "new_state", fail)  # no slot is left
    with pytest.raises(MemoryError):
        run(states.open())
    assert states.budget.used == used and states._running == 0
    states.close(conversation)
    assert nothing_is_out(states)


# -- shortening --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 5), spare=st.floats(0, 1.2))
def test_what_is_left_is_shared_so_that_all_fit(tiny_engine: Engine, count: int, spare: float) -> None:
    """From just the least for each turn to more than enough."""
    size, least, full = sizes(tiny_engine)
    flow = tiny_engine.pipeline.decoder.flow
    limit = count * (size + least) + int(spare * count * (full - least))
    states = pool(tiny_engine, limit, Admission.SHORTEN)
    conversations = [run(states.open()) for _ in range(count)]
    turns = [begin(states, tiny_engine) for _ in range(count)]
    for turn in turns:
        assert MEMORY.least_context <= turn.left_context <= flow.left_context
        assert flow.nbytes(SECONDS, turn.left_context) <= turn.promised - (full - flow.nbytes(SECONDS))
        if flow.nbytes(SECONDS, turn.left_context) < flow.nbytes(SECONDS):  # as long as fits: one block more would not
            block = flow.units_config.block_units / flow.units_config.unit_rate
            longer = flow.nbytes(SECONDS, turn.left_context + block)
            assert longer > turn.promised - (full - flow.nbytes(SECONDS))
        assert turn.decoder.flow.window.kept == flow._kept(turn.left_context)
    if spare >= 1.0:
        assert {turn.left_context for turn in turns} == {flow.left_context}
    with pytest.raises(CapacityError):
        for _ in range(count + 10):
            turns.append(begin(states, tiny_engine))
    for turn in turns:
        states.end(turn)
    for conversation in conversations:
        states.close(conversation)
    assert nothing_is_out(states)


def test_room_for_others_is_kept_when_all_begin_at_once(tiny_engine: Engine) -> None:
    class Slow(MemoryBudget):
        @property
        def free(self) -> int:
            value = super().free
            let_others_run(turns=1)  # in between
            return value

    size, least, full = sizes(tiny_engine)
    count = 6
    states = pool(tiny_engine, 0, Admission.SHORTEN)
    states.budget = Slow(count * (size + least) + (full - least))
    states._lasting = MemoryBudget(states.budget.limit)
    conversations = [run(states.open()) for _ in range(count)]
    for _ in range(10):
        together, turns, refused = threading.Barrier(count), [], []

        def one(together: threading.Barrier = together, turns: list = turns, refused: list = refused) -> None:
            together.wait()
            try:
                turns.append(begin(states, tiny_engine))
            except CapacityError as error:
                refused.append(error)

        assert all_finish([in_thread(one) for _ in range(count)])
        assert not refused and len(turns) == count
        for turn in turns:
            states.end(turn)
    for conversation in conversations:
        states.close(conversation)
    assert nothing_is_out(states)


@pytest.mark.parametrize("seconds", [1.0, 9.0, 20.0])
@pytest.mark.parametrize("chunk", [10, 40])
@pytest.mark.parametrize("left_context", [4.0, 8.0, 30.0])
def test_a_turn_takes_no_more_than_it_was_promised(
    tiny_engine: Engine, seconds: float, chunk: int, left_context: float
) -> None:
    decoder = tiny_engine.pipeline.decoder
    flow, config = decoder.flow, decoder.flow.units_config
    state = decoder.new_state(tiny_engine.voice_features(), left_context)
    units = np.random.default_rng(0).integers(0, config.units, int(seconds * config.unit_rate)).tolist()
    most = 0
    for start in range(0, len(units), chunk):
        decoder.run_flow(state, units[start : start + chunk], final=start + chunk >= len(units))
        most = max(most, state.flow.window.capacity)
    filled = cache_bytes(flow._encoder, lambda name: flow._encoder_positions(name, len(units)))
    filled += flow.solver.steps * cache_bytes(flow._step, lambda _: most)
    assert 0.5 * flow.nbytes(seconds, left_context) < filled <= flow.nbytes(seconds, left_context)


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_a_turn_waits_for_another_to_end(tiny_engine: Engine) -> None:
    size, _, full = sizes(tiny_engine)
    states = pool(tiny_engine, 2 * size + full, Admission.WAIT)
    conversations, first, began = [run(states.open()), run(states.open())], begin(states, tiny_engine), []
    second = in_thread(lambda: began.append(begin(states, tiny_engine)))
    third = in_thread(lambda: conversations.append(run(states.open())))
    assert sleeps(second) and sleeps(third)
    states.end(first)
    assert all_finish([second]) and sleeps(third)
    states.close(conversations.pop(0))
    assert all_finish([third])
    states.end(began[0])
    for conversation in conversations:
        states.close(conversation)
    assert nothing_is_out(states)


def test_those_who_wait_never_wait_for_each_other(tiny_engine: Engine) -> None:
    """Each holds a conversation and waits for a turn: without a reserve, as many as fit would hold all there is."""
    size, _, full = sizes(tiny_engine)
    states, ended = pool(tiny_engine, 2 * size + full + full // 2, Admission.WAIT), []

    def converse() -> None:
        conversation = run(states.open())
        for _ in range(3):
            turn = begin(states, tiny_engine)
            let_others_run()
            states.end(turn)
        states.close(conversation)
        ended.append(conversation)

    assert all_finish([in_thread(converse) for _ in range(12)])
    assert len(ended) == 12 and nothing_is_out(states)


def test_a_turn_too_long_to_be_waited_for_is_refused(tiny_engine: Engine) -> None:
    size, _, full = sizes(tiny_engine)
    states = pool(tiny_engine, 4 * size + 2 * full, Admission.WAIT)
    run(states.open())
    states.end(begin(states, tiny_engine, 2 * POSITIONS, 1.0))  # there is room at present
    begin(states, tiny_engine)
    refused: list[str] = []

    def ask() -> None:
        try:
            begin(states, tiny_engine, 5 * POSITIONS, SECONDS)
        except CapacityError as error:
            refused.append(str(error))

    assert all_finish([in_thread(ask)]) and "others use" in refused[0]


@pytest.mark.parametrize("admission", list(Admission))
def test_memory_for_a_single_conversation_serves_one(tiny_engine: Engine, admission: Admission) -> None:
    size, _, full = sizes(tiny_engine)
    states = pool(tiny_engine, size + full, admission)
    conversation = run(states.open())
    states.end(begin(states, tiny_engine))
    states.close(conversation)
    assert nothing_is_out(states)
    with pytest.raises(CapacityError, match="may use"):
        run(pool(tiny_engine, size - 1, admission).open())
