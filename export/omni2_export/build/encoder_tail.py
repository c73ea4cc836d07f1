"""What `TailedEncoder` reads in place of the silence behind a question: a graph over the encoder's own weights, and the
tails of windows with other speech in them, which the finished encoder makes."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.model.config import WHISPER_HOP, WHISPER_SAMPLE_RATE, EncoderConfig
from omni2_engine.stages.encoder_tail import CLEAR, ENCODER_TAIL, MARGIN, EncoderTail, save_probes
from omni2_engine.stages.frontend import Frontend
from omni2_export.build.graphs import GraphSpec, graph_specs
from omni2_export.build.stages import BuildStage, OnBytes, file_identity, graph_bytes, stage_key
from omni2_export.checkpoint import Checkpoint
from omni2_export.graphs.builder import GraphBuilder
from omni2_export.graphs.encoder_tail import build_encoder_tail
from omni2_export.graphs.linear import Precision
from omni2_export.graphs.weights import WrittenWeights
from omni2_export.inspection import open_cut

Floats = NDArray[np.float32]
SECONDS = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 17.0, 23.0)  # of speech in the windows: a question finds one nearly as long
PROBED = 100  # positions of the window for which there is one probe
FLOOR = -0.7  # log-mel of their silence, amid those of recordings: how loud the speech is hardly matters


def plan_tail_stage(
    built: Path, given: Checkpoint, precision: Precision, speech: Floats, before: Sequence[BuildStage]
) -> BuildStage:
    """The stage that makes the tails, and the graph for a CPU that reads them.

    Args:
        built: the folder of the engine at work, which has the encoder by the time this stage is written if a stage
            before makes it. An engine for GPUs alone has none: then the stage writes one in float32, and removes it.
        given: the checkpoint.
        precision: of the encoder on a CPU.
        speech: (n,) float32 in ±1 at 16 kHz, a recording of speech.
        before: the stages before this one.
    """
    c, tensors = given.config.encoder, given.modules["encoder"]
    specs = graph_specs(given.config, given.modules)
    encoder = next((stage for stage in before if stage.name == "encoder"), None)

    def write(directory: Path, on_bytes: OnBytes) -> None:
        tables = directory / "tables"
        tables.mkdir()
        with tempfile.TemporaryDirectory(prefix="encoder-", dir=directory) as folder:
            if encoder:
                graph = built / "graphs" / "encoder.onnx"
                (directory / "graphs").mkdir()
                g = GraphBuilder(ENCODER_TAIL, WrittenWeights(graph))
                build_encoder_tail(g, c, tensors, precision)
                g.save(directory / "graphs" / f"{ENCODER_TAIL}.onnx")
            else:
                graph = specs["encoder"].write(Path(folder), Precision.FP32, on_bytes=on_bytes)
            for tail in make_tails(graph, c, specs["log_mel"], speech):
                on_bytes(tail.save(tables))
            save_probes(tables, choose_probes(c, EncoderTail.load(tables)))

    after = encoder.key if encoder else [given.config.model_dump(mode="json"), file_identity(given.sources["encoder"])]
    kept = [_kept(c, seconds) for seconds in _lengths(c)]
    size = (4 * c.layers + 2) * c.width * sum(kept) + 4 * c.positions * c.output * len(kept)
    size += 0 if encoder else graph_bytes(tensors, 4)
    heard = hashlib.sha256(speech.tobytes()).hexdigest()
    return BuildStage(ENCODER_TAIL, stage_key(ENCODER_TAIL, after, SECONDS, FLOOR, PROBED, heard), size, write)


def make_tails(encoder: Path, config: EncoderConfig, log_mel: GraphSpec, speech: Floats) -> Iterator[EncoderTail]:
    """Run the encoder on windows that hold `speech`, over and over, for each of `SECONDS` that leaves silence in them.

    Args:
        encoder: the graph of `build_encoder`.
        config: its dimensions.
        log_mel: the spectrogram's graph.
        speech: see `plan_tail_stage`.

    Raises:
        BackendError: ONNX Runtime cannot run it.
    """
    backend = OnnxRuntimeBackend()
    names = [f"{kind}_{layer}" for layer in range(config.layers) for kind in ("keys", "values")]
    graph = open_cut(backend, encoder, [], [*names, "encoder_out", "speech"])
    with tempfile.TemporaryDirectory(prefix="omni2-tails-") as folder:
        frontend = Frontend(backend.load(log_mel.write(Path(folder), Precision.FP32)), config)
    for seconds in _lengths(config):
        said = np.resize(speech, int(seconds * WHISPER_SAMPLE_RATE))
        window = frontend(_at_floor(said, float(frontend(said).min())))
        run, first = graph.run({"log_mel": window}), config.context - _kept(config, seconds)
        keys_and_values = np.concatenate([run[name][:, :, first:].astype(np.float16) for name in names])
        yield EncoderTail(keys_and_values, run["encoder_out"][0, first:].astype(np.float16), run["speech"][0])


def choose_probes(config: EncoderConfig, tails: Sequence[EncoderTail]) -> NDArray[np.int64]:
    """One position in every `PROBED` of the window: the one where other windows differ most as they do around it.

    Real encoders make something of their own of a few positions of silence, the same ones in every window: these show
    nothing of the others.

    Args:
        config: the encoder's dimensions.
        tails: their keys, values and output are compared where several are silent; elsewhere the middle is taken.

    Returns:
        (probes,) int64, ascending.
    """
    chosen, whole = [], config.positions * config.stack
    tails = sorted(tails, key=lambda tail: -tail.kept)
    for first in range(0, whole, PROBED):
        last = min(first + PROBED, whole)
        reference, *others = [
            _rows(tail, first - begin, last - begin)
            for tail in tails
            if (begin := config.context - tail.kept) + CLEAR <= first
        ] or [[]]
        own = np.zeros(last - first)
        for rows, usual in (pair for other in others for pair in zip(other, reference, strict=True)):
            difference = rows - usual
            own += np.square(difference - difference.mean(0)).sum(1) / np.square(usual).sum()
        chosen.append(first + int(own.argmin()) if own.any() else (first + last) // 2)
    return np.array(chosen, np.int64)


def _rows(tail: EncoderTail, first: int, last: int) -> list[Floats]:
    """Keys, values and output of some kept positions, each (positions, width) float32."""
    layers = tail.layers[:, :, first:last].astype(np.float32).swapaxes(1, 2)
    return [*layers.reshape(*layers.shape[:2], -1), tail.encoded[first:last].astype(np.float32)]


def _lengths(c: EncoderConfig) -> list[float]:
    """Those of `SECONDS` behind which a window has as much silence as is ever read from it."""
    return [seconds for seconds in SECONDS if _kept(c, seconds) > MARGIN]


def _kept(c: EncoderConfig, seconds: float) -> int:
    """Positions behind speech of this length."""
    return c.context - int(seconds * WHISPER_SAMPLE_RATE / (2 * WHISPER_HOP))


def _at_floor(speech: Floats, found: float) -> Floats:
    """Speech as loud as gives its silence `FLOOR`: the log-mel is (log10 of the energy + 4) / 4, and its lowest value
    follows the loudest moment (spec §2)."""
    return speech * np.float32(10 ** (2 * (FLOOR - found)))
