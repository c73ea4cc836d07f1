"""Whole conversations through the TensorRT backend on stand-ins: the same answers as on the CPU."""

from __future__ import annotations

import json
import logging
from ast import literal_eval
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine import Engine
from omni2_engine._core import CudaDevice
from omni2_engine.backends.base.decode_request import DecodeRequest, Tokens
from omni2_engine.backends.base.host_language_model import HostLanguageModel
from omni2_engine.backends.tensorrt import chain
from omni2_engine.backends.tensorrt.backend import TensorRTBackend
from omni2_engine.backends.tensorrt.chain import Chain, ChainCall
from omni2_engine.backends.tensorrt.decode_loop import DecodeLoop
from omni2_engine.backends.tensorrt.language_model import DeviceLanguageModel
from omni2_engine.backends.tensorrt.library import MAINLINE, RTX, TensorRt, new_logger
from omni2_engine.backends.tensorrt.plan import TensorRTPlan
from omni2_engine.backends.tensorrt.prefill import FEWEST, GRANULE, call_size
from omni2_engine.errors import BackendError, CapacityError, EngineDirectoryError
from omni2_engine.model.manifest import MANIFEST, EngineDirectory
from omni2_engine.sampling import Sampling, Stream
from omni2_engine.settings.tuning import MEMORY
from omni2_engine.stages.flow_first import FEWEST_UNITS
from omni2_export.checkpoint import open_checkpoint
from omni2_export.tensorrt.shapes import Sizes

from ....waiting import SOON, eventually
from ...stand_ins.plans import add_plans, copy_engine
from ...stand_ins.tensorrt import VERSION

LIMITS = {"max_new_tokens": 9, "max_last_write": 24}
SIZES = Sizes(sessions=3, context=512, new_tokens=40, last_write=60, left_context=6.0)


@pytest.fixture(scope="module")
def planned(tiny_engine_dir: Path, tiny_checkpoint: CheckpointPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny engine with plans of the stand-in TensorRT for sm89."""
    folder = tmp_path_factory.mktemp("plans")
    graphs = folder / "graphs"
    graphs.mkdir()
    engine = copy_engine(tiny_engine_dir, folder / "engine")
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    add_plans(engine, checkpoint, TensorRt(None, MAINLINE, VERSION, None), "sm89", SIZES, graphs)
    return engine


@pytest.fixture(scope="module")
def planned_for_rtx(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same plans, said to be of TensorRT-RTX."""
    engine = copy_engine(planned, tmp_path_factory.mktemp("rtx") / "engine")
    manifest = json.loads((engine / MANIFEST).read_text())
    for plan in manifest["plans"]:
        plan["flavour"] = RTX
    (engine / MANIFEST).write_text(json.dumps(manifest))
    return engine


@pytest.fixture
def rtx(fake_tensorrt: Any) -> TensorRt:
    return TensorRt(fake_tensorrt, RTX, VERSION, new_logger(fake_tensorrt))


@pytest.fixture
def load(planned: Path, emulated: Any, library: TensorRt) -> Callable[..., Engine]:
    def loaded(**settings: Any) -> Engine:
        backend = TensorRTBackend(CudaDevice(emulated.path), library, settings.pop("cuda_graphs", True))
        given = {"max_context": 400, "left_context": 6.0, "warm_up": False} | settings
        return Engine.load(planned, backend=backend, **given)

    return loaded


def answer(engine: Engine, sound: np.ndarray, **options: Any) -> tuple[str, np.ndarray]:
    chunks = list(engine.stream(sound, sample_rate=16_000, seed=3, **LIMITS, **options))
    return "".join(chunk.text for chunk in chunks), np.concatenate([chunk.pcm for chunk in chunks])


def test_a_turn_is_answered_as_on_the_cpu(
    load: Callable[..., Engine], tiny_engine: Engine, utterance: Callable[..., np.ndarray]
) -> None:
    text, sound = answer(load(), utterance(1))
    expected, reference = answer(tiny_engine, utterance(1))
    assert text == expected and text
    assert sound.shape == reference.shape
    np.testing.assert_allclose(sound, reference, atol=1e-3)


def test_a_conversation_goes_on_from_its_cache(
    load: Callable[..., Engine], tiny_engine: Engine, utterance: Callable[..., np.ndarray]
) -> None:
    answers = []
    for engine in (load(), tiny_engine):
        with engine.session(seed=5, **LIMITS) as session:
            turns = [list(session.stream(utterance(turn), sample_rate=16_000)) for turn in (1, 2)]
            turns.append(list(session.stream(text="and then")))
            assert session.metrics is not None and session.metrics.reused_positions > 0
        answers.append([("".join(c.text for c in t), np.concatenate([c.pcm for c in t])) for t in turns])
    for (text, sound), (expected, reference) in zip(*answers, strict=True):
        assert text == expected
        np.testing.assert_allclose(sound, reference, atol=1e-3)


def test_sessions_that_share_calls_are_answered_alike(
    load: Callable[..., Engine],
    fake_tensorrt: Any,
    utterance: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = load(sessions=3)
    sharing: list[int] = []  # sessions of each call of the speech language model
    crowd: list[int] = []  # sessions that have to be there before the first call
    decode_many = DecodeLoop.decode_many

    def counted(loop: DecodeLoop, requests: list[DecodeRequest], *more: Any) -> list[Tokens]:
        def others_wait() -> bool:
            sessions, queued, running = engine.scheduler.counts()
            return running == len(requests) and queued >= sessions - running and sessions >= max(crowd, default=0)

        if loop._plan.stage == "speech_lm":
            eventually(others_wait)  # no call begins before each other session waits at this stage for the next one
            crowd.clear()
            sharing.append(len(requests))
        return decode_many(loop, requests, *more)

    monkeypatch.setattr(DecodeLoop, "decode_many", counted)
    alone = [answer(engine, utterance(seed)) for seed in range(3)]
    assert set(sharing) == {1}
    crowd.append(3)
    with ThreadPoolExecutor(3) as pool:
        together = [*pool.map(lambda seed: answer(engine, utterance(seed)), range(3))]
    assert max(sharing) > 1
    assert {rows for stage, rows in fake_tensorrt.rows if stage == "speech_lm"} == {1, 3}  # of reading, and of steps
    for (text, sound), (expected, reference) in zip(together, alone, strict=True):
        assert text == expected
        np.testing.assert_allclose(sound, reference, atol=1e-4)


def test_tokens_are_read_by_groups_and_by_writes(
    load: Callable[..., Engine], utterance: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that is alone: whole groups of R and writes of W, and one wait for each."""
    engine, asked = load(), {"llm": [], "speech_lm": []}
    decode_many = DecodeLoop.decode_many

    def noted(loop: DecodeLoop, requests: list[DecodeRequest], *more: Any) -> list[Tokens]:
        (one,) = requests
        asked[loop._plan.stage].append(one.tokens)
        return decode_many(loop, requests, *more)

    monkeypatch.setattr(DecodeLoop, "decode_many", noted)
    script = {Stream.TEXT: [5, 6, 7] * 3, Stream.SPEECH: [300] * 60}
    with engine.session(max_new_tokens=7, max_last_write=24) as session:
        list(session.stream(utterance(1), sample_rate=16_000, forced=script))
        assert session.metrics is not None and session.metrics.speech_tokens == 2 * 10 + 24
    read, write = engine.config.read, engine.config.write
    assert (read, write) == (3, 10)
    assert asked == {"llm": [3, 3, 1], "speech_lm": [10, 10, 10, 10, 4]}


@pytest.mark.parametrize("way", ["top-p", "steered"])
def test_what_the_host_must_choose_is_answered_as_on_the_cpu(
    load: Callable[..., Engine], tiny_engine: Engine, utterance: Callable[..., np.ndarray], way: str
) -> None:
    def steer(stream: Stream, generated: list[int], chosen: int) -> int:
        return 7 if len(generated) == 2 and stream is Stream.TEXT else chosen

    options = {"steer": steer} if way == "steered" else {"text_sampling": Sampling(temperature=0.9, top_p=0.8)}
    text, sound = answer(load(), utterance(1), **options)
    expected, reference = answer(tiny_engine, utterance(1), **options)
    assert text == expected and text
    np.testing.assert_allclose(sound, reference, atol=1e-3)


def test_a_prompt_longer_than_a_plan_takes_is_fed_in_pieces(
    load: Callable[..., Engine],
) -> None:
    engine = load()
    llm = engine.pipeline.llm
    at_once = HostLanguageModel(llm._graph, llm.config, llm.table)
    short = HostLanguageModel(_Shorter(llm._graph, 7), llm.config, llm.table)
    embeds = llm.embed([*range(5, 36)])
    whole, pieces = at_once.new_state(100), short.new_state(100)
    at_once.extend(whole, embeds)
    short.extend(pieces, embeds)
    np.testing.assert_allclose(pieces.logits, whole.logits, atol=1e-4)


class _Shorter:
    """A graph that takes fewer positions in a call."""

    def __init__(self, graph: Any, longest: int) -> None:
        self._graph, self._longest = graph, longest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._graph, name)

    def most(self, name: str, axis: int) -> int | None:
        return self._longest if (name, axis) == ("embeds", 1) else self._graph.most(name, axis)


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_the_encoder_is_recorded_unless_graphs_are_off(
    load: Callable[..., Engine],
    fake_cuda: Any,
    fake_tensorrt: Any,
    utterance: Callable[..., np.ndarray],
    cuda_graphs: bool,
) -> None:
    engine = load(cuda_graphs=cuda_graphs)
    sounds = [answer(engine, utterance(1))[1] for _ in range(3)]
    np.testing.assert_array_equal(sounds[0], sounds[2])
    encoder = [recorded for stage, recorded in fake_tensorrt.calls if stage == "encoder"]
    assert encoder == ([False, True] if cuda_graphs else [False] * 3)
    # log-mel, encoder, fusion, steps of language models, a short read, the flow of first units, first and later sound
    assert fake_cuda.live()["graphs"] == (9 if cuda_graphs else 0)


def test_every_stage_has_a_stream_of_its_own(
    load: Callable[..., Engine], fake_cuda: Any, utterance: Callable[..., np.ndarray]
) -> None:
    engine = load()
    assert fake_cuda.live()["streams"] == 5
    fake_cuda.log_begin()
    answer(engine, utterance(1))
    assert len({line.split()[0] for line in fake_cuda.log()}) == 5


def test_what_an_engine_takes_is_said_before_it_is_taken(
    load: Callable[..., Engine], fake_cuda: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "omni2_engine.engine"):
        engine = load(sessions=3)
    plan = engine.memory_plan
    assert plan is not None and str(plan) in caplog.messages
    assert "3 sessions, 6 s flow context: weights" in str(plan)
    assert plan.parts["weights"] == 11 << 20  # what the stand-in takes for each of eleven plans
    taken = plan.parts["text caches"] + plan.parts["speech caches"]
    held = sum(plan.parts[name] for name in ("weights", "working memory", "embeddings"))
    assert held + taken <= fake_cuda.live()["bytes"] <= 1.02 * (held + taken)
    turn = plan.parts["flow caches"] // 3
    fake_cuda.set_memory(held + int((taken + turn) / MEMORY.share))  # room for the same again with one turn
    said = r"sessions, 6 s flow context: .* GiB too much — load with sessions=1, with admission"
    with pytest.raises(CapacityError, match=said):
        load(sessions=3)


def test_what_does_not_fit_at_once_fits_as_the_error_says(
    load: Callable[..., Engine], fake_cuda: Any, utterance: Callable[..., np.ndarray]
) -> None:
    """Room for the caches of three sessions and for one turn: with fewer sessions, or with turns that wait."""
    plan = load(sessions=3).memory_plan
    assert plan is not None
    held, sessions, turns = (
        sum(plan.parts[name] for name in names)
        for names in (("weights", "working memory", "embeddings"), ("text caches", "speech caches"), ("flow caches",))
    )
    room = held + int((sessions + 1.9 * turns / 3) / MEMORY.share)
    fake_cuda.set_memory(room)
    with pytest.raises(CapacityError, match=r"GiB too much — load with sessions=(\d), with admission") as refused:
        load(sessions=3)
    fitting = int(refused.value.remedy.split("sessions=")[1][0])
    assert 1 <= fitting < 3
    fake_cuda.set_memory(room)
    load(sessions=fitting).close()
    fake_cuda.set_memory(room)
    engine = load(sessions=3, admission="wait")
    assert engine.memory_plan is not None and "3 sessions, 1 answered at once" in str(engine.memory_plan)
    alone = answer(engine, utterance(1))
    with ThreadPoolExecutor(3) as pool:
        for text, sound in pool.map(lambda _: answer(engine, utterance(1)), range(3)):
            assert text == alone[0] and sound.shape == alone[1].shape


def test_as_many_turns_as_the_plan_says_are_answered_at_once(
    load: Callable[..., Engine], fake_cuda: Any, utterance: Callable[..., np.ndarray]
) -> None:
    """The plan and the budget share memory out alike: room for the caches of three sessions does not serve three, as
    calls need some of it."""
    plan = load(sessions=3).memory_plan
    assert plan is not None
    fake_cuda.set_memory(int(1.02 * plan.needed))
    with pytest.raises(CapacityError, match=r"load with sessions=(\d), with admission") as refused:
        load(sessions=3, admission="refuse")
    fitting = int(refused.value.remedy.split("sessions=")[1][0])
    fake_cuda.set_memory(int(1.02 * plan.needed))
    engine, all_answered = load(sessions=fitting, admission="refuse"), Barrier(fitting)

    def ask(seed: int) -> float:
        with engine.session(seed=seed, max_new_tokens=40, max_last_write=60) as session:
            chunks = session.stream(utterance(seed), sample_rate=16_000)
            first = next(chunks)
            all_answered.wait(SOON)  # until then no turn gives its memory back
            return first.duration + sum(chunk.duration for chunk in chunks)

    with ThreadPoolExecutor(fitting) as pool:
        assert fitting > 1 and all(pool.map(ask, range(fitting)))


def test_a_turn_without_room_is_refused_and_the_next_one_answered(
    load: Callable[..., Engine], fake_cuda: Any, utterance: Callable[..., np.ndarray]
) -> None:
    engine = load(memory=1 << 40)
    fake_cuda.set_memory(1 << 10)
    with pytest.raises(CapacityError, match="left in one piece"):
        answer(engine, utterance(1))
    fake_cuda.set_memory(1 << 30)
    assert answer(engine, utterance(1))[0]


def test_a_device_that_is_lost_ends_turns_with_its_error(
    load: Callable[..., Engine], fake_cuda: Any, utterance: Callable[..., np.ndarray]
) -> None:
    engine = load()
    with engine.session(**LIMITS) as session:
        chunks = session.stream(utterance(1), sample_rate=16_000)
        next(chunks)
        fake_cuda.lose()
        with pytest.raises(BackendError, match=r"cudaErrorIllegalAddress .* — start the process again"):
            for _ in chunks:
                pass
    with pytest.raises(BackendError, match="cudaErrorIllegalAddress"):
        answer(engine, utterance(1))


def test_a_turn_that_is_cancelled_leaves_the_engine_as_it_was(
    load: Callable[..., Engine], utterance: Callable[..., np.ndarray], is_free: Callable[[Engine], bool]
) -> None:
    engine = load()
    expected = answer(engine, utterance(1))
    with engine.session(**LIMITS) as session:
        next(session.stream(utterance(2), sample_rate=16_000))
        session.cancel()
    assert is_free(engine)
    again = answer(engine, utterance(1))
    assert again[0] == expected[0]
    np.testing.assert_allclose(again[1], expected[1], atol=1e-4)


def test_kernels_compiled_for_plans_are_kept_for_the_next_start(
    planned_for_rtx: Path,
    emulated: Any,
    rtx: TensorRt,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    utterance: Callable[..., np.ndarray],
) -> None:
    path = copy_engine(planned_for_rtx, tmp_path / "engine")
    cache = EngineDirectory(path).runtime_cache("sm89")

    def compiled() -> int:
        engine = Engine.load(path, backend=TensorRTBackend(CudaDevice(emulated.path), rtx), max_context=400)
        return sum(plan._runtime_cache.compiled for plan in engine.backend._plans)

    first, kept = compiled(), cache.stat().st_mtime_ns
    assert first > 9
    assert compiled() == 0 and cache.stat().st_mtime_ns == kept  # nothing new, nothing written
    cache.write_bytes(b"damaged")
    with caplog.at_level(logging.INFO, "omni2_engine.backends"):
        assert compiled() == first
    assert any("cannot be read" in message for message in caplog.messages)
    assert compiled() == 0
    cache.unlink()
    backend = TensorRTBackend(CudaDevice(emulated.path), rtx)
    with Engine.load(path, backend=backend, max_context=400, warm_up=False) as engine:
        answer(engine, utterance(1))
        assert not cache.exists()
    assert cache.exists()  # what the turn compiled, kept on closing


def test_only_kernels_for_prompts_are_compiled_within_turns(
    planned_for_rtx: Path,
    emulated: Any,
    fake_tensorrt: Any,
    rtx: TensorRt,
    tmp_path: Path,
    utterance: Callable[..., np.ndarray],
) -> None:
    """However long the conversation becomes, and also for one that finds no slot of the shared caches. What every turn
    calls in one shape is recorded, too."""
    backend = TensorRTBackend(CudaDevice(emulated.path), rtx)
    engine = Engine.load(
        copy_engine(planned_for_rtx, tmp_path / "engine"),
        backend=backend,
        max_context=500,
        left_context=6.0,
        sessions=2,
    )
    compiled = {plan.stage: plan._runtime_cache.kernels.copy() for plan in backend._plans}
    fake_tensorrt.calls.clear()
    fake_tensorrt.rows.clear()
    with engine.session(max_new_tokens=15, max_last_write=60) as session, engine.session(**LIMITS) as second:
        for seed in range(3):
            list(session.stream(utterance(seed, 2.0 + seed), sample_rate=16_000))
            list(second.stream(utterance(seed), sample_rate=16_000))
        assert engine.states._conversations.free == 0
        answer(engine, utterance(4))
    found = {plan.stage: plan._runtime_cache.kernels - compiled[plan.stage] for plan in backend._plans}
    prompts = found.pop("llm")
    assert not any(found.values())
    embeds = list(next(plan for plan in backend._plans if plan.stage == "llm").inputs).index("embeds")
    assert all(literal_eval(kernel)[embeds][1] > 1 for kernel in prompts)
    assert not {"log_mel", "encoder"} & {stage for stage, _ in fake_tensorrt.calls}
    assert ("fusion", engine.config.read) not in fake_tensorrt.rows


def test_every_sessions_calls_of_the_solver_are_kept(
    load: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each turn would push out what another has recorded, and have it recorded anew."""
    monkeypatch.setattr(chain, "MOST_CALLS", 1)
    made: list[str] = []
    execution = TensorRTPlan.execution

    def noted(plan: TensorRTPlan, *more: Any, **named: Any) -> Any:
        made.append(plan.stage)
        return execution(plan, *more, **named)

    engine = load(sessions=3)
    flow = engine.pipeline.decoder.flow
    turns = [flow.new_state(engine.voice_features()) for _ in range(3)]
    monkeypatch.setattr(TensorRTPlan, "execution", noted)
    for again in range(2):
        for at in range(0, 180, 60):
            for turn in turns:
                flow.step(turn, [7] * 60, final=at == 120)
        assert not made if again else made.count("flow_step") > len(turns)
        made.clear()
        for turn in turns:
            flow.reset(turn)


def test_plans_of_half_types_keep_their_state_in_them(
    tiny_engine_dir: Path,
    tiny_checkpoint: CheckpointPaths,
    emulated: Any,
    library: TensorRt,
    tiny_engine: Engine,
    tmp_path: Path,
) -> None:
    path, graphs = copy_engine(tiny_engine_dir, tmp_path / "engine"), tmp_path / "graphs"
    graphs.mkdir()
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    add_plans(path, checkpoint, library, "sm89", SIZES, graphs, "exact,llm=fp16,flow=fp16")
    backend = TensorRTBackend(CudaDevice(emulated.path), library)
    engine = Engine.load(path, backend=backend, max_context=400, warm_up=False)
    units = np.random.default_rng(0).integers(0, engine.config.flow_encoder.units, 120).tolist()
    embeds = engine.pipeline.llm.embed([*range(5, 25)])
    found, expected = [], []
    for made, results in ((engine, found), (tiny_engine, expected)):
        decoder, llm = made.pipeline.decoder, made.pipeline.llm
        state, turn = llm.new_state(64), decoder.new_state(made.voice_features())
        llm.extend(state, embeds)
        if isinstance(llm, DeviceLanguageModel):
            llm._fetch([state])
        results.append(state.logits.copy())
        mel = [decoder.run_flow(turn, units[at : at + 30], final=at == 90) for at in range(0, 120, 30)]
        results.append(np.concatenate(mel))
        types = {array.dtype for part in turn.flow.steps for array in (*part.caches.values(), *part.contexts.values())}
        types |= {array.dtype for array in state.cache.caches.values()}
        assert types == {np.dtype(np.float16 if made is engine else np.float32)}
    for half, single in zip(found, expected, strict=True):
        assert 10 * np.log10(np.var(single) / np.var(half - single)) > 40  # dB


def test_a_flow_looks_back_no_further_than_its_plan(
    load: Callable[..., Engine], tiny_engine: Engine, utterance: Callable[..., np.ndarray]
) -> None:
    engine = load(left_context=30.0)
    flow, reference = (made.pipeline.decoder.flow for made in (engine, tiny_engine))
    assert flow.left_context == 6.0 and "6 s flow context" in str(engine.memory_plan)
    units = np.random.default_rng(0).integers(0, engine.config.flow_encoder.units, 100).tolist()
    voice = engine.voice_features()
    turn, other = flow.new_state(voice), reference.new_state(voice, left_context=6.0)
    for at in range(0, 100, 20):
        more, final = units[at : at + 20], at == 80
        ours, theirs = flow.step(turn, more, final).new_mel, reference.step(other, more, final).new_mel
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_more_sessions_than_plans_take_are_refused(load: Callable[..., Engine]) -> None:
    with pytest.raises(CapacityError, match=r"4 conversations are to share calls, and the plan takes 3 — "):
        load(sessions=4)


def test_a_gpu_without_plans_is_told_which_there_are(load: Callable[..., Engine], fake_cuda: Any) -> None:
    fake_cuda.set_capability(9, 0)
    with pytest.raises(EngineDirectoryError, match=r"no plan of .* for sm90.*sm89.*--target sm90"):
        load()


def test_a_plan_that_tensorrt_does_not_take_is_built_again(
    planned: Path, load: Callable[..., Engine], tmp_path: Path, fake_cuda: Any, library: TensorRt
) -> None:
    engine = copy_engine(planned, tmp_path / "engine")
    plan = engine / "plans" / "sm89" / "fusion.plan"
    size = plan.stat().st_size
    plan.unlink()
    plan.write_bytes(b"x" * size)
    with pytest.raises(BackendError, match="cannot load the plan of fusion: the plan is of another version — build"):
        Engine.load(engine, backend=TensorRTBackend(CudaDevice(fake_cuda.path), library), warm_up=False)


def test_the_solver_is_called_in_few_shapes(
    load: Callable[..., Engine], fake_cuda: Any, utterance: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of an answer has its own number of frames and of visible positions; plans see those that were warmed.
    Flow and vocoder record nothing in the midst of a turn; stages that were not warmed here do, once."""
    shapes: set[tuple[int, ...]] = set()
    recorded: list[str] = []  # stages
    run, record = Chain.run, ChainCall._record

    def noted_record(call: ChainCall, *more: Any) -> Any:
        recorded.append(call._plan.stage)
        return record(call, *more)

    def noted(chain: Chain, states: Any, inputs: Any, *more: Any) -> Any:
        if "mask" in inputs:
            shapes.add(inputs["mask"].shape)
        return run(chain, states, inputs, *more)

    monkeypatch.setattr(Chain, "run", noted)
    monkeypatch.setattr(ChainCall, "_record", noted_record)
    engine = load()
    flow = engine.pipeline.decoder.flow
    engine.pipeline.decoder.warm_up()
    warmed, lengths = shapes.copy(), {flow._rows(frames) for frames in range(1, 200)}
    lengths |= {flow.units_config.ratio * units for units in (FEWEST_UNITS, flow.units_config.block_units + 3)}
    assert len([stage for stage in recorded if stage == "flow_step"]) == len(flow._padded_shapes())
    shapes.clear()
    recorded.clear()
    graphs = fake_cuda.live()["graphs"]
    for seed in (1, 2):
        answer(engine, utterance(seed))
    assert shapes and shapes <= warmed and {shape[2] for shape in shapes} <= lengths
    assert set(recorded) <= {"fusion"}
    # log-mel, encoder and fusion, steps of the language models, short prefills over few positions and many
    assert fake_cuda.live()["graphs"] - graphs <= 8


def test_a_turns_first_units_are_one_recorded_graph_for_all_sessions(
    load: Callable[..., Engine], fake_cuda: Any
) -> None:
    """Encoder and all steps: one copy there, one launch, one copy back, and nothing of the session's own."""
    engine = load()
    flow = engine.pipeline.decoder.flow
    flow.warm_up()
    graphs = fake_cuda.live()["graphs"]
    for count in (7, 10):
        state = flow.new_state(engine.voice_features())
        state.steps[0]._memory._stream.cuda.synchronize()
        fake_cuda.log_begin()
        assert flow.step(state, list(range(count)), False).new == 2 * (count - engine.config.flow_encoder.lookahead)
        log = [line.split(" ", 1)[1] for line in fake_cuda.log()]
        assert [line for line in log if "copy" not in line and line != "host function"] == ["graph"]
        assert log.count("host function") == 1 + flow.solver.steps
        assert [line.rpartition(" ")[0] for line in log if "copy" in line] == [
            "copy host to device",
            "copy device to host",
        ]
    assert fake_cuda.live()["graphs"] == graphs


@given(st.integers(1, 512), st.integers(0, 4000))
def test_prefill_is_padded_within_its_cache(count: int, start: int) -> None:
    most, capacity = 512, 4160
    assume(start + count <= capacity)
    fed, visible = call_size(count, start, most, capacity)
    assert count <= fed <= most and start + fed <= visible <= capacity
    assert fed == count or fed in FEWEST or fed - count < GRANULE
    assert visible == capacity or visible < 2 * max(start + fed, 256)


def test_what_is_prepared_and_taken_back_leaves_the_devices_cache_as_it_was(
    load: Callable[..., Engine], utterance: Callable[..., np.ndarray]
) -> None:
    """Also positions behind what was heard, which a prompt overwrites and which are copied before."""
    engine, answers = load(sessions=2), []
    for ahead in (False, True):
        with engine.session(seed=5, **LIMITS) as session:
            list(session.stream(utterance(1), sample_rate=16_000))
            session.interrupt(0.1)
            if ahead:
                for number in range(3):
                    turn = session.prepare(utterance(10 + number), sample_rate=16_000)
                    eventually(lambda turn=turn: turn.rests)
                    turn.take_back()
                turn = session.prepare(utterance(2), sample_rate=16_000)
                eventually(lambda turn=turn: turn.rests)
                chunks = list(turn.commit())
            else:
                chunks = list(session.stream(utterance(2), sample_rate=16_000))
            assert session.metrics is not None and session._state.held.conversation is not None
            fed = list(session._state.history.fed)
            answers.append(([c.pcm.tobytes() for c in chunks], fed, session.metrics.reused_positions))
    assert answers[0] == answers[1] and len(answers[0][0]) > 1
