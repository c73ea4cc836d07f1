"""One build from beginning to end: plan, disk check, stages, voices, manifest."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnxruntime as ort

from omni2_engine.backends.tensorrt.library import TensorRt
from omni2_engine.errors import CheckpointError, Omni2Error, SettingError
from omni2_engine.model.manifest import (
    PLANS,
    RUNTIME_CACHE,
    SCHEMA_VERSION,
    TIMING_CACHE,
    LoadSettings,
    Manifest,
    PlanEntry,
)
from omni2_export.build.encoder_tail import plan_tail_stage
from omni2_export.build.graphs import LONGEST_CONTEXT
from omni2_export.build.precision import GPU_PRESETS, PRESETS, Precisions
from omni2_export.build.stages import (
    BuildStage,
    OnBytes,
    file_identity,
    plan_graph_stages,
    plan_shared_stages,
    stage_key,
)
from omni2_export.build.workspace import Workspace
from omni2_export.checkpoint import Checkpoint
from omni2_export.speaker import read_voice_file, speaker_vector
from omni2_export.tensorrt.memory import check_memory
from omni2_export.tensorrt.scratch import GraphScratch
from omni2_export.tensorrt.shapes import Sizes
from omni2_export.tensorrt.targets import CPU, check_buildable, parse_targets

if TYPE_CHECKING:
    from omni2_export.tensorrt.stages import PlanStage

TOOLS = ("omni2-engine", "onnx", "onnx-ir", "numpy")
SCRATCH_GRAPHS = "graphs-of-plans"  # below the workspace
SPARE = 64 << 20  # bytes left free beside what is written


class Progress(Protocol):
    """Takes the progress of a build."""

    def plan(self, stages: list[tuple[str, int]]) -> None:
        """What will be built: names and bytes."""

    def begin(self, stage: str) -> None:
        """A stage begins."""

    def advance(self, stage: str, size: int) -> None:
        """This number of further bytes is written."""

    def end(self, stage: str, reused: bool) -> None:
        """A stage is done, or was there already."""

    def say(self, sentence: str) -> None:
        """Something the user should know."""


class Silent:
    """Ignores all progress."""

    def plan(self, stages: list[tuple[str, int]]) -> None:
        """See `Progress`."""

    def begin(self, stage: str) -> None:
        """See `Progress`."""

    def advance(self, stage: str, size: int) -> None:
        """See `Progress`."""

    def end(self, stage: str, reused: bool) -> None:
        """See `Progress`."""

    def say(self, sentence: str) -> None:
        """See `Progress`."""


@dataclass
class BuildRequest:
    """What to build.

    Args:
        checkpoint: the opened checkpoint.
        output: the engine directory to make.
        voices: voice prompts, each named after its file; the first is the default.
        precisions: storage per stage, for ONNX Runtime.
        target: devices the engine is for, see `parse_targets`.
        formats: what stages compute in and store, for TensorRT: `Precisions` of a GPU.
        sizes: what TensorRT's plans are to hold.
        force: build plans even if this machine seems to lack the memory.
    """

    checkpoint: Checkpoint
    output: Path
    voices: list[Path]
    precisions: Precisions = field(default_factory=lambda: PRESETS["exact"])
    target: str = CPU
    formats: Precisions = field(default_factory=lambda: GPU_PRESETS["exact"])
    sizes: Sizes = field(default_factory=Sizes)
    force: bool = False

    def __post_init__(self) -> None:
        self.targets = parse_targets(self.target)
        if not self.voices:
            raise SettingError("there is no voice", "give a recording of the voice with --voice FILE.wav")
        names = [path.stem for path in self.voices]
        if len(set(names)) < len(names):
            raise SettingError("two voices have the same file name", "rename one: a voice is called after its file")

    @property
    def settings(self) -> LoadSettings:
        """How the engine is loaded unless told otherwise: as its plans are meant to be, if it has some."""
        return self.formats.settings if self.targets.gpus else self.precisions.settings


def build_engine(request: BuildRequest, progress: Progress | None = None) -> Manifest:
    """Build an engine directory.

    Finished stages are kept in `OUTPUT.partial` if the build is interrupted and reused by the next; stages that an
    engine of this name already has from the same inputs are linked from there. The directory appears whole or not at
    all.

    Raises:
        CheckpointError: the checkpoint lacks something.
        AudioError: a voice prompt cannot be used.
        BackendError: TensorRT cannot build for a target on this machine.
        Omni2Error: the disk is full, the memory too small, or the output cannot be written.
    """
    progress = progress or Silent()
    library = check_buildable(request.targets.gpus) if request.targets.gpus else None
    campplus = request.checkpoint.campplus
    if campplus is None:
        raise CheckpointError("the decoder directory has no campplus.onnx", "download it with the rest of the decoder")
    prompts = {path: read_voice_file(path) for path in request.voices}  # refused before any stage is built
    with Workspace(request.output) as workspace, GraphScratch(workspace.path / SCRATCH_GRAPHS) as scratch:
        voices = [_voice_stage(path, prompt, campplus) for path, prompt in prompts.items()]
        stages = [*voices, *plan_shared_stages(request.checkpoint)]
        if request.targets.cpu:
            stages += plan_graph_stages(request.checkpoint, request.precisions)
        if request.settings.encoder == "tail":
            voice = prompts[request.voices[0]]
            precision = request.precisions.of("encoder")
            stages.append(plan_tail_stage(workspace.path, request.checkpoint, precision, voice, stages))
        plans = _plan_stages(request, library, scratch, workspace) if library else []
        stages += plans
        missing = [stage for stage in stages if not workspace.has(stage.name, stage.key)]
        progress.plan([(stage.name, stage.size) for stage in missing])
        unbuilt = [plan for plan in plans if plan in missing]
        graph = max((plan.size for plan in unbuilt), default=0)  # lies beside its plan
        _check_disk(workspace.path, sum(stage.size for stage in missing) + graph)
        check_memory({plan.name: (plan.memory, plan.size) for plan in unbuilt}, request.force, progress.say)
        for stage in stages:
            if stage in missing:
                _build_stage(workspace, stage, progress)
            else:
                progress.end(stage.name, reused=True)
        scratch.remove()
        workspace.keep_only({stage.name for stage in stages})
        for target in request.targets.gpus:
            workspace.carry_over(f"{PLANS}/{target}/{RUNTIME_CACHE}")
        manifest = _manifest(request, workspace, [plan.entry for plan in plans])
        workspace.finish(manifest)
    return manifest


def _plan_stages(
    request: BuildRequest, library: TensorRt, scratch: GraphScratch, workspace: Workspace
) -> list[PlanStage]:
    from omni2_export.tensorrt.plans import plan_specs  # these need this package
    from omni2_export.tensorrt.stages import make_plan_stages

    def timing_cache(target: str) -> Path:
        return workspace.carry_over(f"{PLANS}/{target}/{TIMING_CACHE}")

    given, targets = request.checkpoint, request.targets.gpus
    specs = plan_specs(given.config, given.modules, request.formats, request.sizes)
    return make_plan_stages(given.config, given.sources, specs, targets, library, scratch, timing_cache)


def _build_stage(workspace: Workspace, stage: BuildStage, progress: Progress) -> None:
    def on_bytes(size: int) -> None:
        progress.advance(stage.name, size)

    progress.begin(stage.name)
    try:
        workspace.build(stage.name, stage.key, lambda directory: stage.write(directory, on_bytes))
    except OSError as error:
        raise Omni2Error(
            f"cannot write stage {stage.name}: {error}", "free disk space and run the same build again"
        ) from error
    progress.end(stage.name, reused=False)


def _voice_stage(path: Path, prompt: np.ndarray, campplus: Path) -> BuildStage:
    def write(directory: Path, on_bytes: OnBytes) -> None:
        (directory / "voices").mkdir()
        np.save(directory / "voices" / f"{path.stem}.npy", speaker_vector(campplus, prompt))

    name = f"voice {path.stem}"
    return BuildStage(name, stage_key(name, file_identity([path, campplus])), 0, write)


def _check_disk(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path).free
    if needed + SPARE > free:
        raise Omni2Error(
            f"the engine needs about {(needed + SPARE) / 2**20:,.0f} MiB but {path.parent} has {free / 2**20:,.0f}",
            "free some space or choose another place with -o",
        )


def _manifest(request: BuildRequest, workspace: Workspace, plans: Iterable[PlanEntry]) -> Manifest:
    targets, config = request.targets, request.checkpoint.config
    presets = [
        *([request.precisions.preset] if targets.cpu else []),
        *([request.formats.preset] if targets.gpus else []),
    ]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=config,
        preset=presets[0] if len(set(presets)) == 1 else "custom",
        precision=request.precisions.stages if targets.cpu else {},
        targets=targets.names,
        positions=LONGEST_CONTEXT if targets.cpu else request.sizes.rotary_positions(config),
        default_voice=request.voices[0].stem,
        settings=request.settings,
        # ONNX Runtime is installed as "onnxruntime" or as "onnxruntime-gpu", and says its version itself
        tools={
            "python": platform.python_version(),
            "onnxruntime": ort.__version__,
            **{tool: version(tool) for tool in TOOLS},
        },
        stages=workspace.stages(),
        files=workspace.entries(),
        plans=tuple(plans),
    )
