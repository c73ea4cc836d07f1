"""Decoding on the device, on stand-ins: the same tokens as on the host, in any batch, without the host in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine._core import CudaEvent, CudaStream
from omni2_engine.backends.base.decode_request import DecodeRequest, Tokens
from omni2_engine.backends.base.host_language_model import HostLanguageModel
from omni2_engine.backends.base.kv_cache import DecoderState
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.backends.tensorrt import language_model, prefill
from omni2_engine.backends.tensorrt.decode_loop import visible_sizes
from omni2_engine.backends.tensorrt.graph import TensorRTGraph
from omni2_engine.backends.tensorrt.language_model import DeviceLanguageModel
from omni2_engine.backends.tensorrt.library import MAINLINE, RTX, TensorRt
from omni2_engine.backends.tensorrt.plan import Execution, TensorRTPlan
from omni2_engine.errors import BackendError, ContextError
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.model.tables import EmbeddingTable
from omni2_engine.sampling import Chooser, DrawKey, Sampling, Stream
from omni2_engine.settings.tuning import DECODE
from omni2_export.build.precision import GPU, parse_precision
from omni2_export.checkpoint import open_checkpoint
from omni2_export.tensorrt.plans import plan_specs
from omni2_export.tensorrt.shapes import Sizes

from ...stand_ins.tensorrt import FakeTensorRt, write_plan

SLOTS, CAPACITY = 4, 600
GREEDY, PENALISED = Sampling(temperature=0.0), Sampling(temperature=0.0, repetition_penalty=1.3)
TOP_K, TOP_P = Sampling(temperature=1.0, top_k=50), Sampling(temperature=0.9, top_p=0.8)
SAMPLINGS = (GREEDY, PENALISED, TOP_K, Sampling(temperature=0.7, repetition_penalty=1.1), Sampling(top_k=1))
Open = Callable[..., DeviceLanguageModel]


@pytest.fixture(scope="module")
def plan_file(tiny_checkpoint: CheckpointPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of the tiny speech LM in float32, for four slots."""
    folder = tmp_path_factory.mktemp("decode")
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    sizes = Sizes(sessions=SLOTS, context=CAPACITY, new_tokens=100, last_write=200, left_context=6.0)
    specs = plan_specs(checkpoint.config, checkpoint.modules, parse_precision("exact", GPU), sizes)
    spec = next(spec for spec in specs if spec.stage == "speech_lm")
    graph = spec.graph.write(folder, spec.storage, spec.numerics, spec.space.capacities)
    write_plan(folder / "speech_lm.plan", graph, {name: (*values,) for name, values in spec.space.ranges.items()})
    return folder / "speech_lm.plan"


@pytest.fixture(scope="module")
def host(tiny_engine_dir: Path) -> HostLanguageModel:
    """The same model on the CPU."""
    directory = EngineDirectory(tiny_engine_dir)
    graph = OnnxRuntimeBackend(threads=1).open(directory, "speech_lm")
    return HostLanguageModel(graph, directory.manifest.model.speech_lm, table_of(directory))


def table_of(directory: EngineDirectory) -> EmbeddingTable:
    return EmbeddingTable(directory.path / "tables" / "speech_lm_embed.npy")


@pytest.fixture
def open_model(
    plan_file: Path,
    tiny_engine_dir: Path,
    emulated: Any,
    library: TensorRt,
    fake_tensorrt: FakeTensorRt,
    stage_stream: StageStream,
) -> Open:
    """The model on the stand-in device."""

    def opened(
        cuda_graphs: bool = True, table: EmbeddingTable | None = None, flavour: str = MAINLINE
    ) -> DeviceLanguageModel:
        directory = EngineDirectory(tiny_engine_dir)
        runtime = fake_tensorrt.Runtime(library.logger)
        engine = runtime.deserialize_cuda_engine(plan_file.read_bytes())
        plan = TensorRTPlan(replace(library, flavour=flavour), engine, "speech_lm")
        config = directory.manifest.model.speech_lm
        model = DeviceLanguageModel(
            TensorRTGraph(plan, stage_stream, cuda_graphs), config, table or table_of(directory)
        )
        return model

    return opened


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the host asks of the device, by name, in order: launches, waits, copies to the host."""
    made: list[str] = []

    def note(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def noted(*arguments: Any) -> Any:
            made.append(f"{kind.__name__}.{name}")
            return real(*arguments)

        monkeypatch.setattr(kind, name, noted)

    for name in ("launch_graph", "download", "synchronize", "end_capture"):
        note(CudaStream, name)
    note(CudaEvent, "synchronize")
    return made


def prefilled(model: HostLanguageModel, state: DecoderState, seed: int, positions: int | None = None) -> DecoderState:
    """A state that has been fed some positions of a seed."""
    random = np.random.default_rng(seed)
    count = positions or int(random.integers(2, 12))
    model.extend(state, model.embed(random.integers(0, model.config.vocab, count).tolist()))
    return state


def asked(state: DecoderState, seed: int, tokens: int, sampling: Sampling | None = None, **more: Any) -> DecodeRequest:
    settings = sampling or SAMPLINGS[seed % len(SAMPLINGS)]
    chooser = Chooser(settings, DrawKey(seed, Stream.SPEECH, 3), **more)
    return DecodeRequest(state, None, chooser, [], tokens, (), hidden=True)


def going_on(request: DecodeRequest, found: Tokens, tokens: int) -> DecodeRequest:
    found.check()
    return replace(request, feed=found.ids[-1], generated=[*request.generated, *found.ids], tokens=tokens)


def alone(host: HostLanguageModel, seed: int, tokens: int, positions: int | None = None, **more: Any) -> Tokens:
    """What the host's loop gives."""
    state = prefilled(host, host.new_state(CAPACITY), seed, positions)
    (found,) = host.decode_many([asked(state, seed, tokens, **more)])
    return found


def assert_same(found: Tokens, wanted: Tokens) -> None:
    assert found.error is None and found.ids == wanted.ids
    np.testing.assert_allclose(np.stack(found.hidden), np.stack(wanted.hidden), atol=1e-4)


def joined(parts: Sequence[Tokens]) -> Tokens:
    """Several results of one conversation."""
    return Tokens([token for part in parts for token in part.ids], [row for part in parts for row in part.hidden])


# -- the same as on the host -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_the_shortest_prefill_is_one_launch_for_each_slot(
    open_model: Open, calls: list[str], emulated: Any, cuda_graphs: bool
) -> None:
    """What the speech LM reads of a pair of groups; also where other slots and longer prompts come between."""
    model = open_model(cuda_graphs)
    cache = model.new_cache(2, 128)
    model.warm_up(cache, in_groups=True)
    graphs, states = emulated.live()["graphs"], [cache.acquire() for _ in range(2)]
    for count in (3, 9, 2, 4):
        for state in states:
            state.truncate(0)
            calls.clear()
            model.extend(state, model.embed(range(count)))
            assert calls.count("CudaStream.launch_graph") == (cuda_graphs and count <= 4)
    model._stream.cuda.synchronize()  # before the model's memory goes
    assert emulated.live()["graphs"] == graphs


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_every_setting_gives_what_the_host_gives(open_model: Open, host: HostLanguageModel, cuda_graphs: bool) -> None:
    """Rows of different settings and lengths in one call, two calls each."""
    model = open_model(cuda_graphs)
    for first in range(0, len(SAMPLINGS), SLOTS - 1):
        seeds = list(range(first, min(first + SLOTS - 1, len(SAMPLINGS))))
        cache = model.new_cache(SLOTS, CAPACITY)
        requests = [asked(prefilled(model, cache.acquire(), seed), seed, 1 + 3 * seed) for seed in seeds]
        begun = model.decode_many(requests)
        again = [
            going_on(request, found, 9 - seed) for request, found, seed in zip(requests, begun, seeds, strict=True)
        ]
        ended = model.decode_many(again)
        for seed, *parts in zip(seeds, begun, ended, strict=True):
            assert_same(joined(parts), alone(host, seed, 10 + 2 * seed))


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_any_schedule_of_joining_and_leaving(open_model: Open, host: HostLanguageModel, cuda_graphs: bool) -> None:
    """Conversations come, decode a few tokens with some of the others, and go; another gets the slot."""
    random, model = Random(5), open_model(cuda_graphs)
    cache = model.new_cache(SLOTS, CAPACITY)
    live: dict[int, tuple[DecodeRequest, list[Tokens]]] = {}
    seeds, finished = iter(range(100)), 0
    while finished < 8:
        while len(live) < SLOTS and random.random() < 0.6:
            seed = next(seeds)
            live[seed] = asked(prefilled(model, cache.acquire(), seed), seed, random.randint(1, 6)), []
        chosen = random.sample(sorted(live), random.randint(min(1, len(live)), len(live)))
        if not chosen:
            continue
        for seed, found in zip(chosen, model.decode_many([live[seed][0] for seed in chosen]), strict=True):
            request, parts = live[seed]
            parts.append(found)
            live[seed] = going_on(request, found, random.randint(1, 6)), parts
            if len(parts) == 3:
                assert_same(joined(parts), alone(host, seed, sum(len(part.ids) for part in parts)))
                request.state.release()
                del live[seed]
                finished += 1


def test_a_second_reading_goes_on_from_there(open_model: Open, host: HostLanguageModel) -> None:
    """As every write of the speech LM does: several positions are fed behind what was written, the last token first."""
    answers = []
    for model in (open_model(), host):
        state = prefilled(model, model.new_state(CAPACITY), 2)
        request = asked(state, 2, 10)
        (first,) = model.decode_many([request])
        model.extend(state, model.embed([first.ids[-1], 17, 4]))
        again = replace(going_on(request, first, 7), feed=None)
        (second,) = model.decode_many([again])
        answers.append(joined([first, second]))
        assert len(second.ids) == 7
    assert_same(*answers)


@pytest.mark.parametrize("place", [0, 2, 5])
def test_an_end_id_ends_the_request_of_its_own_row(open_model: Open, host: HostLanguageModel, place: int) -> None:
    wanted = [alone(host, seed, 8, sampling=TOP_K) for seed in (0, 1)]
    place = wanted[0].ids.index(wanted[0].ids[place])
    model = open_model()
    cache = model.new_cache(2, CAPACITY)
    requests = [asked(prefilled(model, cache.acquire(), seed), seed, 8, TOP_K) for seed in (0, 1)]
    lengths = [request.state.length for request in requests]
    ended, other = model.decode_many([replace(requests[0], ends=(-7, wanted[0].ids[place])), requests[1]])
    assert_same(ended, Tokens(wanted[0].ids[: place + 1], wanted[0].hidden[: place + 1]))
    assert_same(other, wanted[1])
    assert [request.state.length for request in requests] == [lengths[0] + place, lengths[1] + 7]
    (rest,) = model.decode_many([going_on(requests[0], ended, 8 - len(ended.ids))]) if place < 7 else (Tokens(),)
    assert joined([ended, rest]).ids == wanted[0].ids  # nothing of what came behind the end has stayed


def test_forced_ids_are_gone_on_with(open_model: Open, host: HostLanguageModel) -> None:
    script = [5, 9, 5, 700, 2]
    wanted = alone(host, 2, 9, forced=script)
    assert wanted.ids[:5] == script
    model = open_model()
    request = asked(prefilled(model, model.new_state(CAPACITY), 2), 2, 3, forced=script)
    (first,) = model.decode_many([request])
    (second,) = model.decode_many([going_on(request, first, 6)])
    assert_same(joined([first, second]), wanted)


def test_the_host_chooses_what_the_device_cannot(open_model: Open, host: HostLanguageModel) -> None:
    """Under top-p, or with `steer`; beside a row that the device chooses for, and from one request to the next."""
    model = open_model()
    cache = model.new_cache(3, CAPACITY)
    assert [model.longest(asked(None, 0, 1, sampling).choose) for sampling in (TOP_P, GREEDY)] == [1, DECODE.token_ring]

    def steer(generated: list[int], token: int) -> int:
        return 11 if len(generated) % 2 else token

    requests = [
        asked(prefilled(model, cache.acquire(), 0), 0, 4, TOP_P),
        asked(prefilled(model, cache.acquire(), 1), 1, 4, TOP_K),
        asked(prefilled(model, cache.acquire(), 2), 2, 4, PENALISED, steer=steer),
    ]
    begun = model.decode_many(requests)
    ended = model.decode_many([going_on(request, found, 3) for request, found in zip(requests, begun, strict=True)])
    for seed, sampling, more in ((0, TOP_P, {}), (1, TOP_K, {}), (2, PENALISED, {"steer": steer})):
        wanted = alone(host, seed, 7, sampling=sampling, **more)
        assert_same(joined([begun[seed], ended[seed]]), wanted)


def test_a_long_prompt_is_fed_in_pieces(open_model: Open, host: HostLanguageModel) -> None:
    model = open_model()
    assert model._prefill.most < 560 <= CAPACITY
    request = asked(prefilled(model, model.new_state(CAPACITY), 1, 560), 1, 5)
    assert request.state.length == 560
    assert_same(model.decode_many([request])[0], alone(host, 1, 5, positions=560))


def test_a_row_without_a_usable_logit_fails_alone(
    open_model: Open, host: HostLanguageModel, tiny_engine_dir: Path, tmp_path: Path
) -> None:
    rows = np.array(np.load(tiny_engine_dir / "tables" / "speech_lm_embed.npy"))
    rows[7] = 0x7FC0 if rows.dtype == np.uint16 else np.nan
    np.save(tmp_path / "table.npy", rows)
    model = open_model(table=EmbeddingTable(tmp_path / "table.npy"))
    cache = model.new_cache(2, CAPACITY)
    requests = [
        asked(prefilled(model, cache.acquire(), 0), 0, 6, forced=[3, 7]),
        asked(prefilled(model, cache.acquire(), 2), 2, 6),
    ]
    failed, fine = model.decode_many(requests)
    assert failed.ids == [3, 7]
    with pytest.raises(BackendError, match=r"no usable number at step 2 .* — build the engine again"):
        failed.check()
    assert_same(fine, alone(host, 2, 6))


# -- without the host in between ---------------------------------------------------------------------------------------


def test_a_write_is_launched_at_once_and_read_at_its_end(
    open_model: Open, calls: list[str], fake_tensorrt: FakeTensorRt
) -> None:
    """Ten tokens of four conversations: a graph each, one wait, and nothing copied to the host."""
    model = open_model()
    cache = model.new_cache(SLOTS, CAPACITY)
    requests = [asked(prefilled(model, cache.acquire(), seed), seed, 10) for seed in range(SLOTS)]
    begun = model.decode_many(requests)
    fake_tensorrt.calls.clear()
    calls.clear()
    model.decode_many([going_on(request, found, 10) for request, found in zip(requests, begun, strict=True)])
    assert calls == ["CudaStream.launch_graph"] * 10 + ["CudaEvent.synchronize"]
    assert fake_tensorrt.calls == []  # TensorRT itself is not asked any more


def test_reading_and_writing_wait_once(open_model: Open, calls: list[str]) -> None:
    """Feeding a group, choosing the first token and writing the rest: no wait before the write is over."""
    model = open_model()
    cache = model.new_cache(2, CAPACITY)
    (found,) = model.decode_many([request := asked(prefilled(model, cache.acquire(), 2), 2, 10)])
    calls.clear()
    state = request.state
    model.extend(state, model.embed([found.ids[-1], 17, 4]))
    model.decode_many([replace(going_on(request, found, 10), feed=None)])
    graphs = ["CudaStream.launch_graph"] * 9
    assert calls == ["CudaEvent.synchronize", *graphs, "CudaEvent.synchronize"]  # the first: of what was fed long ago


def test_a_step_is_recorded_once_for_so_many_positions(
    open_model: Open, host: HostLanguageModel, calls: list[str], fake_tensorrt: FakeTensorRt
) -> None:
    model = open_model()
    request = asked(prefilled(model, model.new_state(CAPACITY), 1, DECODE.least_visible - 15), 1, 5)
    parts: list[Tokens] = []
    for _ in range(6):  # from below to above the least number
        parts += model.decode_many([request])
        request = going_on(request, parts[-1], 5)
    assert calls.count("CudaStream.end_capture") == 2
    assert [recorded for _, recorded in fake_tensorrt.calls] == [False, False, True, False, True]  # a prompt, twice two
    assert_same(joined(parts), alone(host, 1, 30, positions=DECODE.least_visible - 15))


@pytest.mark.parametrize("in_groups", [False, True])
def test_warming_up_records_what_most_need(
    open_model: Open, host: HostLanguageModel, calls: list[str], in_groups: bool
) -> None:
    """Every step, and what feeds a group to every slot."""
    model = open_model()
    cache = model.new_cache(SLOTS, CAPACITY)
    model.warm_up(cache, in_groups)
    assert calls.count("CudaStream.end_capture") == len(visible_sizes(cache.positions)) * (1 + SLOTS * in_groups)
    calls.clear()
    request = asked(prefilled(model, cache.acquire(), 1), 1, 12)
    assert_same(model.decode_many([request])[0], alone(host, 1, 12))
    assert "CudaStream.end_capture" not in calls


@pytest.mark.parametrize("most", [5, 64])
def test_a_turn_fed_in_groups_compiles_and_records_nothing(
    open_model: Open, calls: list[str], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """However long it becomes; also where not every slot's groups are recorded."""
    for module in (prefill, language_model):
        monkeypatch.setattr(module, "MOST_RECORDED", most)
    model = open_model(flavour=RTX)
    cache = model.new_cache(SLOTS, CAPACITY)
    model.warm_up(cache, in_groups=True)
    kernels = model._plan.kernels
    states = [cache.acquire() for _ in range(SLOTS)]
    calls.clear()
    for length in range(0, CAPACITY - 16, 145):
        for state, count in zip(states, (3, 4, 4, 5), strict=True):
            state.length = length
            model.extend(state, model.embed([7] * count))
        model.decode_many([asked(state, seed, 2) for seed, state in enumerate(states)])
    assert model._plan.kernels == kernels and "CudaStream.end_capture" not in calls


def test_more_groups_than_are_recorded_share_a_context(
    open_model: Open, host: HostLanguageModel, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill, "MOST_RECORDED", SLOTS // 2)
    made: list[TensorRTPlan] = []
    execution = TensorRTPlan.execution

    def noted(plan: TensorRTPlan, *more: Any, **named: Any) -> Execution:
        made.append(plan)
        return execution(plan, *more, **named)

    model = open_model()
    cache = model.new_cache(SLOTS, CAPACITY)
    ids = [np.random.default_rng(seed).integers(0, model.config.vocab, 9).tolist() for seed in range(SLOTS)]
    states = [cache.acquire() for _ in ids]
    monkeypatch.setattr(TensorRTPlan, "execution", noted)
    for begin in (0, 3, 6):
        for state, own in zip(states, ids, strict=True):
            model.extend(state, model.embed(own[begin : begin + 3]))
    assert len(made) == calls.count("CudaStream.end_capture") == SLOTS // 2
    for seed, tokens in enumerate(model.decode_many([asked(state, seed, 6) for seed, state in enumerate(states)])):
        assert_same(tokens, alone(host, seed, 6, positions=9))


def test_without_graphs_every_step_is_enqueued(open_model: Open, calls: list[str], fake_tensorrt: FakeTensorRt) -> None:
    model = open_model(cuda_graphs=False)
    request = asked(prefilled(model, model.new_state(CAPACITY), 1), 1, 6)
    model.decode_many([request])
    assert calls == ["CudaEvent.synchronize"] * 2  # the prompt's place is free, the request is over
    assert [recorded for _, recorded in fake_tensorrt.calls] == [False] * 6


def test_a_more_urgent_task_ends_a_request(open_model: Open, host: HostLanguageModel, calls: list[str]) -> None:
    """The device is never left without a step while the answer is waited for."""
    model = open_model()
    cache = model.new_cache(2, CAPACITY)
    requests = [asked(prefilled(model, cache.acquire(), seed), seed, 9) for seed in (0, 1)]
    model.warm_up(cache)
    calls.clear()
    questions: list[int] = []

    def enough() -> bool:
        questions.append(calls.count("CudaStream.launch_graph"))
        return len(questions) == 3

    found = model.decode_many(requests, enough)
    assert questions == [1, 2, 3]
    assert [len(tokens.ids) for tokens in found] == [4, 4]  # one of the prompt, three of steps
    rest = model.decode_many(
        [going_on(request, tokens, 5) for request, tokens in zip(requests, found, strict=True)], lambda: False
    )
    for seed in (0, 1):
        assert_same(joined([found[seed], rest[seed]]), alone(host, seed, 9))


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["cudaStreamBeginCapture", "cudaGraphInstantiate"])
def test_a_step_that_cannot_be_recorded_names_the_switch(
    open_model: Open, host: HostLanguageModel, emulated: Any, function: str
) -> None:
    model = open_model()
    cache = model.new_cache(2, CAPACITY)
    requests = [asked(prefilled(model, cache.acquire(), seed), seed, 6) for seed in (0, 1)]
    emulated.refuse(function, 900)
    with pytest.raises(BackendError, match=r"a decoding step of speech_lm over 256 positions .* cuda_graphs=False"):
        model.decode_many(requests)
    for seed, tokens in enumerate(model.decode_many(requests)):  # which leaves everything as it was
        assert_same(tokens, alone(host, seed, 6))


def test_a_plan_that_cannot_be_recorded_names_the_switch(
    open_model: Open, host: HostLanguageModel, fake_tensorrt: FakeTensorRt
) -> None:
    fake_tensorrt.capturable = False
    model = open_model(flavour=RTX)
    request = asked(prefilled(model, model.new_state(CAPACITY), 0), 0, 6)
    with pytest.raises(BackendError, match=r"its plan of speech_lm cannot be recorded — .* cuda_graphs=False"):
        model.decode_many([request])
    model = open_model(cuda_graphs=False, flavour=RTX)
    request = asked(prefilled(model, model.new_state(CAPACITY), 0), 0, 6)
    assert_same(model.decode_many([request])[0], alone(host, 0, 6))


def test_a_plan_that_refuses_is_told(open_model: Open, fake_tensorrt: FakeTensorRt) -> None:
    model = open_model()
    request = asked(prefilled(model, model.new_state(CAPACITY), 0), 0, 6)
    fake_tensorrt.fail_next = "there is no such kernel"
    with pytest.raises(BackendError, match="TensorRT cannot run speech_lm: there is no such kernel"):
        model.decode_many([request])


def test_a_conversation_that_goes_while_it_is_fed_keeps_its_memory_until_then(
    open_model: Open, fake_tensorrt: FakeTensorRt, stage_stream: StageStream, emulated: Any
) -> None:
    model = open_model()
    fake_tensorrt.slow = True
    state = prefilled(model, model.new_state(CAPACITY), 0)
    before = emulated.live()["pinned"]
    del state
    assert emulated.live()["pinned"] < before
    stage_stream.cuda.synchronize()  # raises if the call had not found its memory any more


def test_a_lost_device_is_told(open_model: Open, emulated: Any) -> None:
    model = open_model()
    request = asked(prefilled(model, model.new_state(CAPACITY), 0), 0, 6)
    emulated.lose()
    with pytest.raises(BackendError, match="compute-sanitizer"):
        model.decode_many([request])


def test_a_full_context_is_told(open_model: Open) -> None:
    model = open_model()
    state = prefilled(model, model.new_state(30), 0, 25)
    with pytest.raises(ContextError, match="31 positions and has 30"):
        model.decode_many([asked(state, 0, 7)])
    with pytest.raises(ContextError, match="31 positions and has 30"):
        model.extend(state, model.embed(range(6)))
    assert len(model.decode_many([asked(state, 0, 6)])[0].ids) == 6


@pytest.fixture(autouse=True)
def nothing_raised(emulated: Any) -> Iterator[None]:
    """No stand-in had to complain."""
    yield
    assert emulated.raised == []


def test_no_step_is_made_in_the_midst_of_a_turn(open_model: Open, calls: list[str]) -> None:
    """After warming up, a conversation that fills its cache finds every step that it needs recorded."""
    model = open_model()
    cache = model.new_cache(1, CAPACITY)
    model.warm_up(cache)
    calls.clear()
    request = asked(prefilled(model, cache.acquire(), 1, CAPACITY - 70), 1, 30)
    for _ in range(2):
        (found,) = model.decode_many([request])
        request = going_on(request, found, 30)
    assert request.state.length > CAPACITY - 20 > DECODE.least_visible
    assert "CudaStream.end_capture" not in calls and "CudaStream.launch_graph" in calls
