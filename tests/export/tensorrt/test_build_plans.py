"""Plans as parts of an engine: one command for several targets, interrupted, resumed, reused."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine.backends.tensorrt.library import TensorRt
from omni2_engine.cli.app import run as command
from omni2_engine.errors import EngineDirectoryError, Omni2Error
from omni2_engine.model.manifest import EngineDirectory
from omni2_export.build import BuildRequest, build_engine
from omni2_export.build.precision import GPU, parse_precision
from omni2_export.build.run import Silent
from omni2_export.build.workspace import MARK, Workspace
from omni2_export.checkpoint import open_checkpoint
from omni2_export.tensorrt import memory
from omni2_export.tensorrt.plans import plan_specs
from omni2_export.tensorrt.shapes import Sizes

from ...waiting import SOON, eventually

TARGETS = ("sm89", "sm86")


class Watcher(Silent):
    """Notes what is built, reused and said."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.reused: list[str] = []
        self.said: list[str] = []

    def end(self, stage: str, reused: bool) -> None:
        (self.reused if reused else self.built).append(stage)

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture(scope="module")
def voice(repository: Path) -> Path:
    return repository / "examples" / "voice.wav"


@pytest.fixture(scope="module")
def arguments(small_checkpoint: CheckpointPaths, voice: Path) -> list[str]:
    return [str(small_checkpoint.model), "--decoder", str(small_checkpoint.decoder), "--voice", str(voice)]


@pytest.fixture(scope="module")
def engine(library: TensorRt, arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All plans for two targets from one command, which was interrupted once and given again."""
    if not library.builds_for_other_gpus:
        pytest.skip("mainline TensorRT builds for the GPU present alone")
    output = tmp_path_factory.mktemp("plans") / "engine"
    partial = output.with_name("engine.partial")
    # fmt: off
    build = [sys.executable, "-m", "omni2_engine.cli.app", "build", *arguments, "-o", str(output),
             "--target", ",".join(TARGETS), "--precision", "balanced", "--sessions", "3", "--max-context", "500"]
    # fmt: on
    with subprocess.Popen(build, stderr=subprocess.PIPE, text=True) as first:
        at_work = partial / "graphs-of-plans" / "llm.onnx"  # TensorRT, once this is there
        eventually(lambda: at_work.exists() or first.poll() is not None)
        assert first.poll() is None, first.stderr and first.stderr.read()
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=SOON) == 130
    left = {path.relative_to(partial).parts[0] for path in partial.rglob("*") if path.is_file()}
    assert left <= {"graphs", "plans", "speech", "stages.json", "tables", "text", MARK, "voices"}  # no scratch
    second = subprocess.run(build, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    reused = {line.rpartition(" ")[0].strip() for line in second.stderr.splitlines() if line.endswith("reused")}
    assert {"text", "llm_table", "encoder sm89", "encoder sm86"} <= reused and "vocoder sm86" not in reused
    assert "GB of memory, you have" in second.stderr
    return output


def test_every_plan_is_there(engine: Path, small_checkpoint: CheckpointPaths, library: TensorRt) -> None:
    directory = EngineDirectory(engine)
    directory.check()
    manifest = directory.manifest
    specs = plan_specs(
        manifest.model, open_checkpoint(small_checkpoint.model, decoder=small_checkpoint.decoder).modules,
        parse_precision("balanced", GPU), Sizes(3, 500),
    )  # fmt: skip
    assert {(plan.stage, plan.target) for plan in manifest.plans} == {(s.stage, t) for s in specs for t in TARGETS}
    assert manifest.targets == TARGETS and manifest.preset == "balanced"
    assert manifest.positions == Sizes(3, 500).rotary_positions(manifest.model) < 32_768
    for spec in specs:
        for target in TARGETS:
            plan = directory.plan(spec.stage, target, library.flavour, library.version)
            assert manifest.files[plan.file].size > spec.size / 2 and plan.precision == spec.precision
    assert directory.plan("llm", "sm89", library.flavour, library.version).dimensions["B"] == (1, 3, 3)
    with pytest.raises(EngineDirectoryError, match="sm80"):
        directory.plan("llm", "sm80", library.flavour, library.version)


def test_graphs_for_the_cpu_are_not_there(engine: Path) -> None:
    assert not (engine / "graphs").exists()
    assert {path.name for path in (engine / "tables").iterdir()} == {
        "llm_embed.npy", "speech_lm_embed.npy", "noise.npy"
    }  # fmt: skip
    assert EngineDirectory(engine).manifest.precision == {}


def test_what_has_not_changed_is_reused(
    engine: Path, small_checkpoint: CheckpointPaths, voice: Path, tmp_path: Path
) -> None:
    """One target fewer, the CPU more, one plan in another precision; and kernels compiled meanwhile are kept."""
    EngineDirectory(engine).runtime_cache("sm89").write_bytes(b"kernels")
    link = tmp_path / "engine"
    link.symlink_to(engine)
    opened = open_checkpoint(small_checkpoint.model, decoder=small_checkpoint.decoder)
    watcher = Watcher()
    formats = parse_precision("balanced,fusion=fp32", GPU)
    request = BuildRequest(opened, link, [voice], target="cpu,sm89", sizes=Sizes(3, 500), formats=formats)
    manifest = build_engine(request, watcher)
    assert {stage for stage in watcher.built if stage.endswith("sm89")} == {"fusion sm89"} and "llm" in watcher.built
    assert {"llm sm89", "vocoder sm89"} <= set(watcher.reused)
    assert manifest.preset == "custom" and manifest.positions == 32_768
    assert manifest.targets == ("cpu", "sm89") and {plan.target for plan in manifest.plans} == {"sm89"}
    directory = EngineDirectory(link)
    directory.check()
    assert directory.runtime_cache("sm89").read_bytes() == b"kernels" and not (engine / "plans" / "sm86").exists()
    assert len(watcher.said) == 1 and watcher.said[0].startswith("building fusion sm89 needs about ")


def test_a_second_plan_for_prefill_is_built_beside_the_first(
    engine: Path, small_checkpoint: CheckpointPaths, library: TensorRt, voice: Path, tmp_path: Path
) -> None:
    link = tmp_path / "engine"
    link.symlink_to(engine)
    opened = open_checkpoint(small_checkpoint.model, decoder=small_checkpoint.decoder)
    formats, watcher = parse_precision("balanced,llm=fp8+mixed", GPU), Watcher()
    request = BuildRequest(opened, link, [voice], target="sm89", sizes=Sizes(3, 500), formats=formats)
    manifest = build_engine(request, watcher)
    assert {"llm sm89", "llm_prefill sm89"} <= set(watcher.built) and "vocoder sm89" in watcher.reused
    directory = EngineDirectory(link)
    directory.check()
    decode, prefill = (
        directory.plan(stage, "sm89", library.flavour, library.version) for stage in ("llm", "llm_prefill")
    )
    assert (decode.precision, prefill.precision) == ("bf16+mixed", "bf16+fp8")
    assert decode.dimensions["capacity"] == prefill.dimensions["capacity"]
    assert manifest.preset == "custom" and {decode.file, prefill.file} <= set(manifest.files)


def test_too_little_memory_ends_it_before_it_begins(
    library: TensorRt, small_checkpoint: CheckpointPaths, voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10**6)
    opened = open_checkpoint(small_checkpoint.model, decoder=small_checkpoint.decoder)
    watcher = Watcher()
    with pytest.raises(Omni2Error, match="GB of memory, you have"):
        build_engine(BuildRequest(opened, tmp_path / "engine", [voice], target="sm89"), watcher)
    assert watcher.built == [] and list(tmp_path.iterdir()) == []


def test_wrong_usage_is_named(
    library: TensorRt, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = ["build", *arguments, "-o", str(tmp_path / "engine")]
    cases: list[tuple[list[str], int, str]] = [
        (["--target", "toaster"], 2, "toaster"),
        (["--target", "sm89", "--precision", "balanced,flow=bf16"], 2, "flow"),
        (["--target", "sm89", "--sessions", "0"], 2, "sessions"),
        (["--target", "sm89", "--check"], 2, "--check"),
    ]
    if library.builds_for_other_gpus:
        cases.append((["--target", "sm90"], 1, "no plans for sm90"))
    for extra, code, word in cases:
        assert command([*build, *extra]) == code
        assert word in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_carried_file_outlives_an_engine(tmp_path: Path) -> None:
    old = tmp_path / "engine" / "plans" / "sm89" / "timing.cache"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"timings")
    (tmp_path / "engine" / "manifest.json").write_text('{"schema_version": 0, "files": {}}')
    with Workspace(tmp_path / "engine") as workspace:
        place = workspace.carry_over("plans/sm89/timing.cache")
        assert place.read_bytes() == b"timings" and place != old
        place.write_bytes(b"more timings")
    with Workspace(tmp_path / "engine") as workspace:  # it was interrupted, and goes on
        assert workspace.carry_over("plans/sm89/timing.cache").read_bytes() == b"more timings"
        assert not workspace.carry_over("plans/sm89/runtime.cache").exists()
