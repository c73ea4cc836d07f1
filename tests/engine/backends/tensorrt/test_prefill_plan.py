"""A language model with a plan for prefill and one for decoding, on stand-ins: both work on one cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine import Engine
from omni2_engine._core import CudaDevice
from omni2_engine.backends.base.decode_request import DecodeRequest, Tokens
from omni2_engine.backends.base.host_language_model import HostLanguageModel
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.backends.tensorrt.backend import TensorRTBackend
from omni2_engine.backends.tensorrt.graph import TensorRTGraph
from omni2_engine.backends.tensorrt.language_model import DeviceLanguageModel
from omni2_engine.backends.tensorrt.library import TensorRt
from omni2_engine.backends.tensorrt.plan import TensorRTPlan
from omni2_engine.errors import EngineDirectoryError
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.model.tables import EmbeddingTable
from omni2_engine.sampling import Chooser, DrawKey, Sampling, Stream
from omni2_export.build.precision import GPU, parse_precision
from omni2_export.checkpoint import open_checkpoint
from omni2_export.graphs.builder import FLOAT, Numerics
from omni2_export.tensorrt.plans import PlanSpec, plan_specs
from omni2_export.tensorrt.shapes import Sizes
from omni2_export.verify.rows import snr

from ...stand_ins.plans import add_plans, copy_engine
from ...stand_ins.tensorrt import FakeTensorRt, write_plan

SLOTS, CAPACITY, POSITIONS, TOKENS = 2, 300, 150, 6
DECODE, PREFILL = "llm", "llm_prefill"
SCRIPT = [7, 300, 41, 5, 260, 12]  # ids that are decoded, so that all variants see the same


@pytest.fixture(scope="module")
def specs(tiny_checkpoint: CheckpointPaths) -> dict[str, PlanSpec]:
    """Both plans of the tiny language model, as the preset has them."""
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    sizes = Sizes(sessions=SLOTS, context=CAPACITY)
    found = plan_specs(checkpoint.config, checkpoint.modules, parse_precision("mixed", GPU), sizes)
    return {spec.stage: spec for spec in found if spec.stage in (DECODE, PREFILL)}


@pytest.fixture(scope="module")
def files(specs: dict[str, PlanSpec], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Their graphs, which compute in float32 for want of bfloat16 on the CPU, and plans of these."""
    folder, numerics = tmp_path_factory.mktemp("plans"), Numerics(FLOAT, doubles=False, device=True)
    for stage, spec in specs.items():
        graph = spec.graph.write(folder, spec.storage, numerics, spec.space.capacities)
        write_plan(folder / f"{stage}.plan", graph, {name: (*values,) for name, values in spec.space.ranges.items()})
    return {stage: folder / f"{stage}.onnx" for stage in specs}


@pytest.fixture
def graphs(
    files: Mapping[str, Path], library: TensorRt, fake_tensorrt: FakeTensorRt, stage_stream: StageStream
) -> dict[str, TensorRTGraph]:
    """Both plans on the stand-in device."""
    runtime = fake_tensorrt.Runtime(library.logger)

    def opened(stage: str, file: Path) -> TensorRTGraph:
        engine = runtime.deserialize_cuda_engine(file.with_suffix(".plan").read_bytes())
        return TensorRTGraph(TensorRTPlan(library, engine, stage), stage_stream, cuda_graphs=True)

    return {stage: opened(stage, file) for stage, file in files.items()}


@pytest.fixture
def make_model(
    tiny_engine_dir: Path, graphs: Mapping[str, TensorRTGraph], emulated: Any
) -> Callable[..., DeviceLanguageModel]:
    """The model on the stand-in device, of these plans."""
    directory = EngineDirectory(tiny_engine_dir)

    def make(decode: str = DECODE, prefill: str = PREFILL) -> DeviceLanguageModel:
        return DeviceLanguageModel(graphs[decode], directory.manifest.model.llm, table_of(directory), graphs[prefill])

    return make


@pytest.fixture(scope="module")
def host(tiny_engine_dir: Path, files: Mapping[str, Path]) -> HostLanguageModel:
    """The same two graphs by ONNX Runtime."""
    directory = EngineDirectory(tiny_engine_dir)
    backend = OnnxRuntimeBackend(1)
    opened = {stage: backend.load(file) for stage, file in files.items()}
    config, table = directory.manifest.model.llm, table_of(directory)
    return HostLanguageModel(opened[DECODE], config, table, prefill=opened[PREFILL])


def table_of(directory: EngineDirectory) -> EmbeddingTable:
    return EmbeddingTable(directory.path / "tables" / "llm_embed.npy")


def answer(model: HostLanguageModel, seed: int = 0) -> Tokens:
    """Tokens of a script behind a prompt, with hidden states."""
    state = model.new_state(CAPACITY)
    ids = np.random.default_rng(seed).integers(model.config.vocab, size=POSITIONS).tolist()
    model.extend(state, model.embed(ids))
    chooser = Chooser(Sampling(temperature=0.0), DrawKey(seed, Stream.TEXT, 0), forced=SCRIPT)
    (found,) = model.decode_many([DecodeRequest(state, None, chooser, [], TOKENS, (), hidden=True)])
    assert found.error is None and found.ids == SCRIPT
    return found


def hidden(tokens: Tokens) -> NDArray[np.float64]:
    return np.stack(tokens.hidden).astype(np.float64)


def test_both_work_on_one_cache_as_the_host_computes_it(
    make_model: Callable[..., DeviceLanguageModel], host: HostLanguageModel, fake_tensorrt: FakeTensorRt
) -> None:
    """The prompt by one plan, tokens by the other."""
    model = make_model()
    np.testing.assert_allclose(hidden(answer(model)), hidden(answer(host)), atol=1e-4)
    called = [stage for stage, _ in fake_tensorrt.calls]
    assert called[0] == PREFILL and set(called[1:]) == {DECODE}  # a step is recorded, and then launched


@pytest.mark.parametrize("stage", [DECODE, PREFILL])
def test_one_plan_alone_says_something_else(
    make_model: Callable[..., DeviceLanguageModel], host: HostLanguageModel, stage: str
) -> None:
    """So that the test above cannot pass by one of them."""
    found, wanted = (hidden(answer(model))[1:] for model in (make_model(stage, stage), host))
    assert 5 < snr(found, wanted) < 25


def test_what_the_host_decodes_is_decoded_by_the_same_plan(
    make_model: Callable[..., DeviceLanguageModel], host: HostLanguageModel, fake_tensorrt: FakeTensorRt
) -> None:
    model = make_model()  # kept: its table is still on its way to the device
    np.testing.assert_allclose(hidden(answer(model.on_host())), hidden(answer(host)), atol=1e-4)
    assert [stage for stage, _ in fake_tensorrt.calls] == [PREFILL, *[DECODE] * (TOKENS - 1)]


def test_plans_with_different_caches_are_refused(
    make_model: Callable[..., DeviceLanguageModel], graphs: dict[str, TensorRTGraph]
) -> None:
    """Of one built for longer conversations, or in another type."""
    for shape, kind in (((None, 2, 64, 32), np.float32), (graphs[PREFILL].inputs["keys_values_0"], np.float16)):
        other = graphs[PREFILL]
        other.inputs = {**other.inputs, "keys_values_0": shape}
        other.dtypes = {**other.dtypes, "keys_values_0": np.dtype(kind)}
        with pytest.raises(EngineDirectoryError, match="different KV caches"):
            make_model()


def test_an_engine_answers_with_both(
    tiny_engine_dir: Path,
    tiny_checkpoint: CheckpointPaths,
    emulated: Any,
    library: TensorRt,
    fake_tensorrt: FakeTensorRt,
    utterance: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    """Whole turns; the memory of both plans is counted."""
    (tmp_path / "graphs").mkdir()
    path = copy_engine(tiny_engine_dir, tmp_path / "engine")
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    sizes = Sizes(sessions=1, context=512, new_tokens=40, last_write=60, left_context=6.0)
    add_plans(path, checkpoint, library, "sm89", sizes, tmp_path / "graphs", "exact,llm=fp16+fp8+mixed")
    backend = TensorRTBackend(CudaDevice(emulated.path), library)
    engine = Engine.load(path, backend=backend, max_context=400, left_context=6.0, warm_up=False)
    with engine.session(max_new_tokens=5, max_last_write=12) as session:
        for seed in (1, 2):
            assert list(session.stream(utterance(seed), sample_rate=16_000))
    called = [stage for stage, _ in fake_tensorrt.calls if stage.startswith("llm")]
    assert called[0] == PREFILL and set(called) == {PREFILL, DECODE}
    memory = backend.device_memory()
    assert memory is not None and memory.holds["weights"] == 12 << 20  # what the stand-in takes for each plan


@pytest.fixture(autouse=True)
def nothing_raised(emulated: Any) -> Iterator[None]:
    """No stand-in had to complain."""
    yield
    assert emulated.raised == []
