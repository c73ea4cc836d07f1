"""The checks for a GPU. Without `--gpu` they run on stand-ins, so that they are known to work when there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_export.checkpoint import Checkpoint, open_checkpoint

# fixtures of the stand-in device
from ..engine.conftest import emulated, fake_cuda, fake_cudart, kernel_cache, utterance  # noqa: F401
from .budget import Budget
from .rig import Rig, find_gpu, gpu_rig, presets, stand_in_rig


def pytest_configure(config: pytest.Config) -> None:
    """Say in one line that there is nothing to run on."""
    if config.getoption("--gpu") and isinstance(reason := find_gpu(), str):
        pytest.exit(f"skipped: {reason}", returncode=0)
    if config.getoption("--gpu"):
        config.pluginmanager.register(Budget(config.getoption("--budget"), config.rootpath / "build"), "gpu-budget")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every plan's numerics in every preset that the GPU has."""
    if "preset" in metafunc.fixturenames:
        found = find_gpu() if metafunc.config.getoption("--gpu") else None
        metafunc.parametrize("preset", presets(None if isinstance(found, str) else found))


@pytest.fixture(scope="session")
def found_gpu(request: pytest.FixtureRequest) -> tuple[str, str] | None:
    """What `find_gpu` found; None where the stand-ins are asked for."""
    if not request.config.getoption("--gpu"):
        return None
    found = find_gpu()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def random_checkpoint(tiny_checkpoint: CheckpointPaths) -> Checkpoint:
    """Of random weights."""
    return open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)


@pytest.fixture(scope="session")
def given_checkpoint(shared: Path) -> Checkpoint:
    """The tiny one that goldens are of."""
    tiny = shared / "checkpoints" / "tiny"
    encoder = tiny / "speech_encoder" / "large-v3.pt"
    return open_checkpoint(tiny / "omni2_tiny", decoder=tiny / "cosy2_decoder", speech_encoder=encoder)


MakeRig = Callable[[Checkpoint, str], Rig]


@pytest.fixture(scope="session")
def rigs(
    found_gpu: tuple[str, str] | None,
    request: pytest.FixtureRequest,
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeRig:
    """Rigs by checkpoint and preset, each built once."""
    made: dict[tuple[str, str], Rig] = {}

    def rig(checkpoint: Checkpoint, preset: str) -> Rig:
        key = (checkpoint.config.name, preset)
        if key not in made:
            folder, voice = tmp_path_factory.mktemp("gpu"), repository / "examples" / "voice.wav"
            if found_gpu is None:
                made[key] = stand_in_rig(checkpoint, voice, folder, request.getfixturevalue("fake_cudart"))
            else:
                made[key] = gpu_rig(checkpoint, voice, preset, folder, found_gpu)
        return made[key]

    return rig


@pytest.fixture
def on_device(found_gpu: tuple[str, str] | None, request: pytest.FixtureRequest) -> Iterator[None]:
    """The device, as new where it is the stand-in."""
    if found_gpu is None:
        request.getfixturevalue("emulated")
    yield


@pytest.fixture
def rig(rigs: MakeRig, random_checkpoint: Checkpoint, on_device: None) -> Rig:
    """The exact engine of random weights."""
    return rigs(random_checkpoint, "exact")


@pytest.fixture(scope="session")
def audio(utterance: Callable[..., Any]) -> np.ndarray:  # noqa: F811
    """What numerics are asked with, 16 kHz."""
    return utterance(1, 3.0)
