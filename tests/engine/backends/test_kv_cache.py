"""Several conversations in one KV cache: each gets the same as alone, to the bit, in any batch."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine.backends.base.host_language_model import HostLanguageModel
from omni2_engine.backends.base.kv_cache import GRANULE, DecoderState
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.errors import CapacityError, ContextError
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.model.tables import EmbeddingTable
from omni2_engine.settings.tuning import DECODE
from omni2_export.build import BuildRequest, build_engine
from omni2_export.build.precision import parse_precision
from omni2_export.checkpoint import open_checkpoint

SLOTS = 8
CAPACITY = 90
LENGTHS = (37, 64, 3, 71, 15, 16, 80, 44)  # at a granule's edge, and off it
COMPANIES = ([0], [0, 1], [5, 2, 0], [1, 2, 3], [7, 0], [7, 1, 3, 6, 4], list(range(SLOTS)), [6, 5, 4, 3, 2, 1, 0])


@pytest.fixture(scope="module")
def load(
    tiny_checkpoint: CheckpointPaths, tiny_engine_dir: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], HostLanguageModel]:
    """Loads a language model of the tiny engine at a preset; those of quantised weights decode even batches."""
    engines, models = {"exact": tiny_engine_dir}, {}

    def loaded(preset: str, name: str = "llm") -> HostLanguageModel:
        if preset not in engines:
            engines[preset] = tmp_path_factory.mktemp("slots") / preset
            checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
            voice = repository / "examples" / "voice.wav"
            build_engine(BuildRequest(checkpoint, engines[preset], [voice], parse_precision(preset)))
        if (preset, name) not in models:
            directory = EngineDirectory(engines[preset])
            table = EmbeddingTable(directory.path / "tables" / f"{name}_embed.npy")
            graph = OnnxRuntimeBackend(threads=1).load(directory.graph(name))
            config = getattr(directory.manifest.model, name)
            models[preset, name] = HostLanguageModel(graph, config, table, even_batches=preset != "exact")
        return models[preset, name]

    return loaded


@pytest.fixture(scope="module")
def model(load: Callable[[str], HostLanguageModel]) -> HostLanguageModel:
    return load("exact")


def embeds(model: HostLanguageModel, count: int, seed: int) -> np.ndarray:
    return model.embed(np.random.default_rng(seed).integers(0, model.config.vocab, count).tolist())


def bits(state: DecoderState) -> bytes:
    return state.logits.tobytes() + state.hidden.tobytes()


def in_threads(*works: Callable[[], None]) -> None:
    """Run all at once, to their ends."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def contents(state: DecoderState) -> list[bytes]:
    """Everything of a slot that may matter to it: outputs and filled positions."""
    filled = state.cache.filled(state.index, state.length).values()
    return [bits(state), *(np.ascontiguousarray(part).tobytes() for part in filled)]


# -- the same as alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llm", "speech_lm"])
@pytest.mark.parametrize("preset", ["exact", "balanced", "fast"])
def test_a_row_does_not_depend_on_its_company(load: Callable[..., HostLanguageModel], preset: str, name: str) -> None:
    model, steps = load(preset, name), 3
    fed = embeds(model, SLOTS * steps, seed=0).reshape(steps, SLOTS, -1)
    alone = []
    for slot, length in enumerate(LENGTHS):
        state = model.new_state(CAPACITY)
        model.extend(state, embeds(model, length, seed=slot))
        alone.append([])
        for step in range(steps):
            model.extend(state, fed[step, slot][None])
            alone[-1].append(bits(state))
    cache = model.new_cache(SLOTS, CAPACITY)
    states = [cache.acquire() for _ in range(SLOTS)]
    for slot, (state, length) in enumerate(zip(states, LENGTHS, strict=True)):
        model.extend(state, embeds(model, length, seed=slot))
    for company in COMPANIES:
        for step in range(steps):
            model.decode([states[slot] for slot in company], fed[step, company])
            for slot in company:
                assert bits(states[slot]) == alone[slot][step], (company, slot, step)
        for slot in company:
            assert states[slot].length == LENGTHS[slot] + steps
            states[slot].truncate(LENGTHS[slot])


def test_decoding_equals_prefilling(model: HostLanguageModel) -> None:
    whole, steps = model.new_state(CAPACITY), model.new_cache(3, CAPACITY)
    fed = embeds(model, 40, seed=5)
    model.extend(whole, fed)
    first, second = steps.acquire(), steps.acquire()
    for row in fed:
        model.decode([second, first], np.stack([row, row]))
    for state in (first, second):
        np.testing.assert_allclose(state.logits, whole.logits, atol=1e-4)
        np.testing.assert_allclose(state.hidden, whole.hidden, atol=1e-4)


@pytest.mark.parametrize("preset", ["exact", "balanced"])
def test_who_takes_no_part_stays_as_it_is(load: Callable[..., HostLanguageModel], preset: str) -> None:
    model = load(preset)
    cache = model.new_cache(6, 20)
    states = [cache.acquire() for _ in range(6)]
    for slot, length in enumerate((5, 20, 7, 0, 19, 4)):  # one full, one empty, one with a single place left
        if length:
            model.extend(states[slot], embeds(model, length, seed=slot))
    before = [contents(state) for state in states]
    for taking_part in ([0, 5], [5], [2, 5], [0]):
        model.decode([states[slot] for slot in taking_part], embeds(model, len(taking_part), seed=9))
        for slot in taking_part:
            before[slot] = contents(states[slot])
        assert [contents(state) for state in states] == before


# -- joining and leaving -----------------------------------------------------------------------------------------------


@dataclass
class Conversation:
    """A slot, and what was fed to it in pieces."""

    state: DecoderState
    fed: list[np.ndarray] = field(default_factory=list)

    def replay(self, model: HostLanguageModel) -> bytes:
        """Outputs of the same pieces, fed to a state of its own."""
        alone = model.new_state(CAPACITY)
        for piece in self.fed:
            model.extend(alone, piece)
        return bits(alone)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("preset", ["exact", "balanced"])
def test_any_schedule_of_joining_and_leaving(load: Callable[..., HostLanguageModel], preset: str, data: Any) -> None:
    model = load(preset)
    cache, live = model.new_cache(5, CAPACITY), []
    seeds = iter(range(10**6))
    for _ in range(data.draw(st.integers(3, 14), label="steps")):
        kinds = ["join"] * (len(live) < 5) + ["decode", "leave", "extend"] * bool(live)
        kind = data.draw(st.sampled_from(kinds))
        if kind == "join":
            live.append(Conversation(cache.acquire()))
            kind = "extend"
            chosen = live[-1:]
        else:
            chosen = data.draw(st.lists(st.sampled_from(live), min_size=1, unique_by=id))
        if kind == "decode":
            rows = embeds(model, len(chosen), next(seeds))
            model.decode([conversation.state for conversation in chosen], rows)
            for conversation, row in zip(chosen, rows, strict=True):
                conversation.fed.append(row[None])
        elif kind == "extend":
            piece = embeds(model, data.draw(st.integers(1, 5)), next(seeds))
            model.extend(chosen[0].state, piece)
            chosen[0].fed.append(piece)
        else:
            assert bits(chosen[0].state) == chosen[0].replay(model)
            chosen[0].state.release()
            live.remove(chosen[0])
    for conversation in live:
        assert bits(conversation.state) == conversation.replay(model)


def test_a_prefix_moves_to_a_slot_of_another_cache(model: HostLanguageModel) -> None:
    prefix = model.new_state(24)
    model.extend(prefix, embeds(model, 21, seed=1))
    state = model.new_cache(3, CAPACITY).acquire()
    state.copy_prefix(prefix)
    assert contents(state) == contents(prefix)
    for feeding in (state, prefix):
        model.extend(feeding, embeds(model, 2, seed=2))
    assert bits(state) == bits(prefix)


# -- slots and their memory --------------------------------------------------------------------------------------------


def test_the_lowest_free_slot_is_taken_and_no_more_than_there_are(model: HostLanguageModel) -> None:
    cache = model.new_cache(3, 10)
    states = [cache.acquire() for _ in range(3)]
    assert [state.index for state in states] == [0, 1, 2] and cache.free == 0
    with pytest.raises(CapacityError, match="3 slots"):
        cache.acquire()
    states[2].release()
    states[0].release()
    states[0].release()  # a second time does nothing
    assert cache.free == 2
    assert [cache.acquire().index for _ in range(2)] == [0, 2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere pages may keep what they held")
def test_a_released_slot_gives_its_memory_back(model: HostLanguageModel) -> None:
    cache = model.new_cache(3, CAPACITY)
    states = [cache.acquire() for _ in range(3)]
    for slot, state in enumerate(states):
        model.extend(state, embeds(model, CAPACITY, seed=slot))
    kept = contents(states[0]), contents(states[2])
    states[1].release()
    assert not any(array[1].any() for array in cache.caches.values())  # discarded pages read as zeros
    assert (contents(states[0]), contents(states[2])) == kept
    again = cache.acquire()
    model.extend(again, embeds(model, 30, seed=1))
    alone = model.new_state(CAPACITY)
    model.extend(alone, embeds(model, 30, seed=1))
    assert contents(again) == contents(alone)


def test_slots_go_from_thread_to_thread(model: HostLanguageModel) -> None:
    cache, held, problems = model.new_cache(4, 10), set(), []

    def come_and_go() -> None:
        for _ in range(300):
            try:
                state = cache.acquire()
            except CapacityError:
                continue
            if state.index in held:
                problems.append(state.index)
            held.add(state.index)
            held.discard(state.index)
            state.release()

    in_threads(*[come_and_go] * 8)
    assert not problems and cache.free == 4


def test_a_slot_is_given_back_once_however_many_try(model: HostLanguageModel) -> None:
    cache, together = model.new_cache(1, 10), threading.Barrier(4)
    for _ in range(50):
        state = cache.acquire()

        def give_back(state: DecoderState = state) -> None:
            together.wait()
            state.release()

        in_threads(*[give_back] * 4)
        assert cache.free == 1


def test_slots_come_and_go_while_others_decode(model: HostLanguageModel) -> None:
    """What a session thread may do at any time: take a slot, fill it from a prefix, give it back."""
    prefix = model.new_state(CAPACITY)
    model.extend(prefix, embeds(model, 60, seed=1))
    cache = model.new_cache(4, CAPACITY)
    first, between, last = cache.acquire(), cache.acquire(), cache.acquire()
    between.release()
    stop, problems = threading.Event(), []

    def come_and_go() -> None:
        while not stop.is_set():
            state = cache.acquire()
            state.copy_prefix(prefix)
            if contents(state) != contents(prefix):
                problems.append(state.index)
            state.release()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    rows = embeds(model, 80, seed=2)
    for row in rows:
        model.decode([first, last], np.stack([row, row]))
    stop.set()
    thread.join()
    alone = model.new_state(CAPACITY)
    for row in rows:
        model.extend(alone, row[None])
    assert not problems and bits(first) == bits(last) == bits(alone)


# -- what cannot be asked ----------------------------------------------------------------------------------------------


def test_a_full_slot_is_refused_and_no_state_is_fed(model: HostLanguageModel) -> None:
    cache = model.new_cache(2, 12)
    roomy, full = cache.acquire(), cache.acquire()
    model.extend(roomy, embeds(model, 3, seed=1))
    model.extend(full, embeds(model, 11, seed=2))
    model.decode([roomy, full], embeds(model, 2, seed=3))  # the last place
    before = contents(roomy), contents(full)
    with pytest.raises(ContextError, match="13 positions and has 12"):
        model.decode([roomy, full], embeds(model, 2, seed=4))
    with pytest.raises(ContextError, match="14 positions and has 12"):
        model.extend(full, embeds(model, 2, seed=4))
    assert (contents(roomy), contents(full)) == before


def test_states_that_cannot_share_a_call_are_refused(model: HostLanguageModel) -> None:
    cache = model.new_cache(2, 10)
    state, other = cache.acquire(), model.new_state(10)
    for states in ([state, state], [state, other]):
        with pytest.raises(ValueError, match="different slots of one cache"):
            model.decode(states, embeds(model, 2, seed=1))
    state.release()
    for feed in (model.extend, lambda released, rows: model.decode([released], rows)):
        with pytest.raises(ValueError, match="released"):
            feed(state, embeds(model, 1, seed=1))
    assert state.length == other.length == 0


# -- calls -------------------------------------------------------------------------------------------------------------


class CountingGraph:
    """A graph that computes nothing and notes how many rows it was given."""

    def __init__(self, model: HostLanguageModel) -> None:
        real = model._graph
        self.inputs, self.outputs = real.inputs, real.outputs
        self.state, self.results, self.most = real.state, real.results, real.most
        self.rows: list[int] = []
        self.bindings = 0

    def bind(self, state: dict[str, np.ndarray], fixed: dict[str, np.ndarray]) -> Any:
        graph = self
        graph.bindings += 1

        class Bound:
            def run(self, inputs: dict[str, np.ndarray]) -> None:
                graph.rows.append(len(inputs["embeds"]))
                assert {len(cache) for cache in (*state.values(), *fixed.values())} == {graph.rows[-1]}
                assert inputs["mask"].shape[-1] % GRANULE == 0

        return Bound()


def counting(model: HostLanguageModel, even_batches: bool = False) -> tuple[HostLanguageModel, CountingGraph]:
    graph = CountingGraph(model)
    return HostLanguageModel(graph, model.config, model.table, even_batches), graph


def test_calls_span_what_pays(model: HostLanguageModel) -> None:
    counted, graph = counting(model)
    cache = counted.new_cache(DECODE.most_idle + 4, 10)
    states = [cache.acquire() for _ in range(cache.slots)]
    counted.decode([states[DECODE.most_idle + 1], states[0]], embeds(model, 2, seed=1))
    assert graph.rows == [DECODE.most_idle + 2]  # one call over the slots in between
    graph.rows.clear()
    counted.decode([states[DECODE.most_idle + 3], states[0], states[1]], embeds(model, 3, seed=1))
    assert graph.rows == [2, 1]  # two, the gap being one slot too wide
    for _ in range(5):
        counted.decode([states[0], states[1]], embeds(model, 2, seed=1))
    assert graph.bindings == 3  # kept from call to call


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_pairs_make_every_call_even(model: HostLanguageModel, slots: int) -> None:
    counted, graph = counting(model, even_batches=True)
    cache = counted.new_cache(slots, 40)
    states = [cache.acquire() for _ in range(slots)]
    for first in range(slots):
        for count in range(1, slots - first + 1):
            counted.decode(states[first : first + count], embeds(model, count, seed=1))
            assert graph.rows[-1] == count + count % 2
    with pytest.raises(CapacityError):
        cache.acquire()  # the row that pads a single slot to two cannot be had


def test_a_call_makes_little_beside_the_graph(model: HostLanguageModel) -> None:
    """No array of a cache is copied, and none of its size is made."""
    counted, graph = counting(model)
    cache = counted.new_cache(8, 600)
    states = [cache.acquire() for _ in range(8)]
    rows = embeds(model, 8, seed=1)
    counted.decode(states, rows)
    made = []
    for length in (40, 400):
        for state in states:
            state.length = length
        graph.rows.clear()
        tracemalloc.start()
        counted.decode(states, rows)
        made.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert graph.rows == [8]
    assert max(made) < cache.slot_nbytes // 2, made
