"""The encoder over speech and a margin: the whole window's answer where its tail is the window's own, and what it keeps
with another's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine import Engine
from omni2_engine.audio.source import read_audio
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.errors import SettingError
from omni2_engine.model.manifest import EngineDirectory, LoadSettings
from omni2_engine.stages.encoder import SpeechEncoder
from omni2_engine.stages.encoder_tail import CLEAR, MARGIN, EncoderTail, TailedEncoder
from omni2_engine.stages.frontend import Frontend
from omni2_export.build import PRESETS, BuildRequest, build_engine
from omni2_export.build.encoder_tail import plan_tail_stage
from omni2_export.checkpoint import open_checkpoint
from omni2_export.graphs.linear import Precision
from omni2_export.inspection import open_cut
from omni2_export.speaker import read_voice_file
from omni2_export.verify.rows import snr

BACKEND = OnnxRuntimeBackend(1)


@pytest.fixture(scope="module")
def live(
    tiny_checkpoint: CheckpointPaths, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> EngineDirectory:
    """An engine of the preset `live`, but with a float32 encoder."""
    opened = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    path = tmp_path_factory.mktemp("live") / "engine"
    exact = PRESETS["exact"].loaded_with("tail")
    build_engine(BuildRequest(opened, path, [repository / "examples" / "voice.wav"], exact))
    return EngineDirectory(path)


@pytest.fixture(scope="module")
def log_mel(live: EngineDirectory, question: Path) -> np.ndarray:
    config = live.manifest.model.encoder
    waveform = read_audio(question, None, config.samples / 16_000, "error")
    return Frontend(BACKEND.open(live, "log_mel"), config)(waveform)


def window(live: EngineDirectory, log_mel: np.ndarray) -> np.ndarray:
    return SpeechEncoder(BACKEND.open(live, "encoder"))(log_mel)


def tailed(live: EngineDirectory, *tails: EncoderTail) -> TailedEncoder:
    return TailedEncoder(BACKEND.open(live, "encoder_tail"), live.manifest.model.encoder, tails)


def test_the_windows_own_tail_gives_the_windows_answer(live: EngineDirectory, log_mel: np.ndarray) -> None:
    """Every position looks at what it looked at in the window; keys and values have float16's digits."""
    c, whole = live.manifest.model.encoder, window(live, log_mel)
    names = [f"{kind}_{layer}" for layer in range(c.layers) for kind in ("keys", "values")]
    inside = open_cut(BACKEND, live.graph("encoder"), [], names).run({"log_mel": log_mel})
    layers = np.concatenate([inside[name] for name in names]).astype(np.float16)
    own = EncoderTail(layers, np.full_like(whole, np.nan))
    found = tailed(live, own)(log_mel)
    computed = np.isfinite(found).all(axis=1)
    heard = np.flatnonzero((log_mel[0] > log_mel.min()).any(axis=0))[-1] + 1
    assert computed.sum() == -(-(-(-heard // 2) + MARGIN) // c.stack) < c.positions
    assert not computed[computed.sum() :].any()  # the rest is the tail's
    assert snr(found[computed].astype(np.float64), whole[computed].astype(np.float64)) > 60


def test_a_full_window_is_computed_whole(live: EngineDirectory) -> None:
    c = live.manifest.model.encoder
    loud = np.random.default_rng(0).uniform(-1, 1, (1, c.mel_bins, c.frames)).astype(np.float32)
    empty = [replace(tail, layers=np.full_like(tail.layers, np.nan)) for tail in EncoderTail.load(live.path / "tables")]
    assert np.abs(tailed(live, *empty)(loud) - window(live, loud)).max() < 1e-4


def test_other_windows_tails_keep_most_of_the_speech(live: EngineDirectory, log_mel: np.ndarray) -> None:
    """They were made of the voice's recording; with zeros in their place the speech keeps less."""
    whole, tails = window(live, log_mel), EncoderTail.load(live.path / "tables")
    speech = slice(0, int(np.flatnonzero((log_mel[0] > log_mel.min()).any(axis=0))[-1]) // 2 // 5)

    def kept(*given: EncoderTail) -> float:
        return snr(tailed(live, *given)(log_mel)[speech].astype(np.float64), whole[speech].astype(np.float64))

    assert kept(*tails) > 20
    assert kept(*tails) > 3 + kept(*(replace(tail, layers=np.zeros_like(tail.layers)) for tail in tails))


@pytest.mark.parametrize("seconds", [0.0, 0.5, 2.6, 4.0, 7.0, 8.9])
def test_the_tail_of_the_longest_speech_that_is_over(live: EngineDirectory, seconds: float) -> None:
    """Every tail says which it is in what it makes of the rest, and has what is asked of it."""
    c = live.manifest.model.encoder
    tails = [
        replace(tail, speech=np.full_like(tail.speech, tail.kept)) for tail in EncoderTail.load(live.path / "tables")
    ]
    silent = np.full((1, c.mel_bins, c.frames), -0.9, np.float32)
    silent[:, :, : int(100 * seconds)] = 0.5
    found = tailed(live, *tails[::-1])(silent)
    computed = -(-(int(50 * seconds) + MARGIN) // c.stack) * c.stack
    fitting = [tail.kept for tail in tails if tail.kept >= c.context - computed + CLEAR] or [tails[-1].kept]
    assert np.isfinite(found).all() and len(found) == c.positions
    if computed < c.context:
        assert found[-1, 0] == min(fitting) if seconds else max(tail.kept for tail in tails)


def test_an_engine_for_gpus_alone_has_the_same_tails(
    live: EngineDirectory, tiny_checkpoint: CheckpointPaths, repository: Path, tmp_path: Path
) -> None:
    """No stage before makes the encoder's graph, and this one leaves none behind."""
    opened = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    voice, written = read_voice_file(repository / "examples" / "voice.wav"), list[int]()
    stage = plan_tail_stage(tmp_path / "none", opened, Precision.FP32, voice, [])
    stage.write(tmp_path, written.append)
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]
    assert sum(written) == pytest.approx(stage.size, rel=0.1)
    ours, theirs = (EncoderTail.load(folder / "tables") for folder in (tmp_path, live.path))
    assert len(ours) == len(theirs) > 1
    for tail, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(tail.layers, expected.layers)
        np.testing.assert_array_equal(tail.speech, expected.speech)


def test_it_is_loaded_as_it_was_built_unless_told_otherwise(
    live: EngineDirectory, tiny_engine_dir: Path, question: Path
) -> None:
    assert live.manifest.settings == LoadSettings(encoder="tail")
    with Engine.load(live.path, threads=1, warm_up=False) as engine:
        assert isinstance(engine.pipeline.encoder, TailedEncoder)
        chunks = list(engine.stream(question, max_new_tokens=6, max_last_write=20))
        assert sum(len(chunk.pcm) for chunk in chunks) > 0
    with Engine.load(live.path, threads=1, warm_up=False, encoder="window") as engine:
        assert isinstance(engine.pipeline.encoder, SpeechEncoder)
    with pytest.raises(SettingError, match="without tails"):
        Engine.load(tiny_engine_dir, warm_up=False, encoder="tail")
    with pytest.raises(SettingError, match="encoder"):
        Engine.load(live.path, warm_up=False, encoder="half")
