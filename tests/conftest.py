"""What every test may use: the given material beside the repository. No test reaches for the network."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from omni2_bench.random_checkpoint import CheckpointPaths
    from omni2_engine import Engine

# On a busy machine examples take any time; how many there are bounds a test's length.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is first imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when onnxruntime is first imported

REPOSITORY = Path(__file__).resolve().parent.parent
LOCAL_HOSTS = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test-gpu`, `make test-clients`."""
    parser.addoption("--gpu", action="store_true", help="run tests/gpu on this machine's GPU instead of stand-ins")
    parser.addoption("--clients", action="store_true", help="run tests/clients, with what `make test-clients` installs")
    parser.addoption("--budget", type=float, help="seconds after which --gpu begins nothing more and ends what runs")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The given checkpoints, goldens and audio (`../shared` of the checkout)."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip("given material ../shared is not here; put it beside the checkout to run this test")
    return path


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Any:
    """Name look-ups of other hosts fail at once, so that a test that needs the network fails everywhere alike."""
    look_up = socket.getaddrinfo

    def local_only(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in LOCAL_HOSTS:
            raise socket.gaierror(socket.EAI_NONAME, f"tests use no network, and {host} is asked for")
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", local_only)
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointPaths:
    """A checkpoint of random weights with a window of 10 s, whose answers end by themselves; see `tiny_dimensions`."""
    from omni2_bench.random_checkpoint import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", tiny_dimensions(), seed=1)


@pytest.fixture(scope="session")
def tiny_engine_dir(tiny_checkpoint: CheckpointPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine directory of `tiny_checkpoint` in float32, with one voice; tests must not write to it."""
    from omni2_export.build import BuildRequest, build_engine
    from omni2_export.checkpoint import open_checkpoint

    path = tmp_path_factory.mktemp("tiny") / "engine"
    opened = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    build_engine(BuildRequest(opened, path, [REPOSITORY / "examples" / "voice.wav"]))
    return path


@pytest.fixture(scope="session")
def tiny_engine(tiny_engine_dir: Path) -> Engine:
    """`tiny_engine_dir`, loaded, on one thread."""
    from omni2_engine import Engine

    return Engine.load(tiny_engine_dir, threads=1, warm_up=False)


@pytest.fixture(scope="session")
def demo_engine_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model as `make demo` builds it; tests must not write to it."""
    from omni2_bench.demo.__main__ import PRECISION, VOICE
    from omni2_bench.random_checkpoint import CheckpointPaths
    from omni2_export.build import BuildRequest, build_engine
    from omni2_export.build.precision import PRESETS
    from omni2_export.checkpoint import open_checkpoint

    examples, path = REPOSITORY / "examples", tmp_path_factory.mktemp("demo") / "engine"
    paths = CheckpointPaths.below(examples / "model")
    opened = open_checkpoint(paths.model, decoder=paths.decoder)
    build_engine(BuildRequest(opened, path, [examples / VOICE], PRESETS[PRECISION]))
    return path


@pytest.fixture(scope="session")
def question() -> Path:
    """A spoken question of four seconds, 22.05 kHz."""
    return REPOSITORY / "examples" / "question.wav"


def tiny_dimensions() -> Any:
    """Dimensions of `tiny_checkpoint`: the demo's, with less in every module."""
    from omni2_bench.random_checkpoint import PRESETS

    return PRESETS["tiny"].changed(
        encoder={"context": 500, "layers": 1},
        llm={"layers": 2},
        speech_lm={"layers": 2},
        flow_encoder={"blocks": 1},
        estimator={"width": 32, "mid_blocks": 1},
        vocoder={"base": 64},
        text_tokens=20,
        last_units=16,
    )
