"""The encoder over speech and a margin: the whole window's answer where its tail is the window's own, and what it keeps
with another's."""

from __future__ import annotations

from collections.abc import Sequence
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
from omni2_engine.stages.encoder_tail import (
    CLEAR,
    MARGIN,
    EncoderTail,
    TailedEncoder,
    interpolation,
    load_probes,
)
from omni2_engine.stages.frontend import Frontend
from omni2_export.build import PRESETS, BuildRequest, build_engine
from omni2_export.build.encoder_tail import PROBED, choose_probes, plan_tail_stage
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


def tailed(live: EngineDirectory, *tails: EncoderTail, probes: Sequence[int] = ()) -> TailedEncoder:
    places = np.array(probes, np.int64)
    return TailedEncoder(BACKEND.open(live, "encoder_tail"), live.manifest.model.encoder, tails, places)


def own_tail(live: EngineDirectory, log_mel: np.ndarray) -> EncoderTail:
    """What the window itself has at all of its positions; keys, values and output have float16's digits."""
    layers = range(live.manifest.model.encoder.layers)
    names = [f"{kind}_{layer}" for layer in layers for kind in ("keys", "values")]
    inside = open_cut(BACKEND, live.graph("encoder"), [], [*names, "encoder_out", "speech"]).run({"log_mel": log_mel})
    kept = np.concatenate([inside[name] for name in names]).astype(np.float16)
    return EncoderTail(kept, inside["encoder_out"][0].astype(np.float16), inside["speech"][0])


@pytest.mark.parametrize("probes", [(), (399,), (200, 204, 330, 398)])
def test_the_windows_own_tail_gives_the_windows_answer(
    live: EngineDirectory, log_mel: np.ndarray, probes: tuple[int, ...]
) -> None:
    """Every position looks at what it looked at in the window, and no probe finds a difference."""
    whole = window(live, log_mel)
    found = tailed(live, own_tail(live, log_mel), probes=probes)(log_mel)
    assert found.shape == whole.shape
    assert snr(found.astype(np.float64), whole.astype(np.float64)) > 55


def test_only_the_speech_and_a_margin_are_computed(live: EngineDirectory, log_mel: np.ndarray) -> None:
    c, whole = live.manifest.model.encoder, window(live, log_mel)
    own = own_tail(live, log_mel)
    found = tailed(live, replace(own, encoded=np.full_like(own.encoded, np.nan)))(log_mel)
    computed = np.isfinite(found).all(axis=1)
    heard = np.flatnonzero((log_mel[0] > log_mel.min()).any(axis=0))[-1] + 1
    assert computed.sum() == -(-(-(-heard // 2) + MARGIN) // c.stack) < c.positions
    assert not computed[computed.sum() :].any()  # the rest is the tail's
    assert snr(found[computed].astype(np.float64), whole[computed].astype(np.float64)) > 60


@pytest.mark.parametrize("shifted", ["layers", "encoded"])
def test_a_difference_that_all_of_the_silence_has_is_found_by_a_single_probe(
    live: EngineDirectory, log_mel: np.ndarray, shifted: str
) -> None:
    """The window's own tail with something added at every position is the window's own again."""
    own, whole = own_tail(live, log_mel), window(live, log_mel)
    change = np.random.default_rng(0).normal(0, 0.5, getattr(own, shifted).shape[-1])
    other = replace(own, **{shifted: (getattr(own, shifted) + change).astype(np.float16)})
    without, single = (
        snr(tailed(live, other, probes=probes)(log_mel).astype(np.float64), whole.astype(np.float64))
        for probes in ((), (300,))
    )
    assert single > 45 > 25 > without


def test_values_between_probes_are_interpolated() -> None:
    weights = interpolation(np.array([1, 4]), 7)
    np.testing.assert_allclose(weights @ [[10.0], [40.0]], [[10], [10], [20], [30], [40], [40], [40]], rtol=1e-6)
    assert interpolation(np.array([], np.int64), 7).shape == (7, 0)


def test_probes_are_where_windows_differ_as_they_do_around(live: EngineDirectory) -> None:
    """Never at a position that one window has for itself; in the middle where a single window is silent."""
    c, random = live.manifest.model.encoder, np.random.default_rng(0)
    usual = [230, 350, 470]  # where two windows are silent, or three
    odd = random.normal(0, 9, (c.context, c.width)) * ~np.isin(np.arange(c.context), usual)[:, None]

    def shifted(kept: int, share: float, part: str) -> EncoderTail:
        """Silence that differs from others' by the same everywhere, and by something of its own in one part of it."""
        rows = {"encoded": np.ones((kept, c.width)) + random.normal(0, 1, c.width)}
        rows["layers"] = np.ones((2 * c.layers, kept, c.width)) + random.normal(0, 1, (2 * c.layers, 1, c.width))
        rows[part] += share * odd[-kept:]
        layers = rows["layers"].reshape(2 * c.layers, kept, c.heads, -1).swapaxes(1, 2)
        return EncoderTail(layers.astype(np.float16), rows["encoded"].astype(np.float16), np.zeros(0))

    for part in ("layers", "encoded"):
        windows = [shifted(300, 0.5, part), shifted(450, 0, part), shifted(400, 1, part)]
        assert choose_probes(c, windows).tolist() == [50, 150, *usual]


def test_probes_lift_what_other_windows_tails_keep(live: EngineDirectory, log_mel: np.ndarray) -> None:
    """Of the speech and of the rest."""
    tables, whole = live.path / "tables", window(live, log_mel).astype(np.float64)
    tails, places = EncoderTail.load(tables), load_probes(tables).tolist()
    without, corrected = (tailed(live, *tails, probes=given)(log_mel).astype(np.float64) for given in ((), places))
    heard = int(np.flatnonzero((log_mel[0] > log_mel.min()).any(axis=0))[-1]) // 2 // 5
    for part, lift in ((slice(0, heard), 5), (slice(heard, None), 2)):
        assert snr(corrected[part], whole[part]) > lift + snr(without[part], whole[part])


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
    """As if there were no other; each has another output, and what is asked of it."""
    c = live.manifest.model.encoder
    tails = [
        replace(tail, encoded=np.full_like(tail.encoded, tail.kept / 100))
        for tail in EncoderTail.load(live.path / "tables")
    ]
    silent = np.full((1, c.mel_bins, c.frames), -0.9, np.float32)
    silent[:, :, : int(100 * seconds)] = 0.5
    found = tailed(live, *tails[::-1])(silent)
    computed = -(-(int(50 * seconds) + MARGIN) // c.stack) * c.stack
    alone = {tail.kept: tailed(live, tail)(silent) for tail in tails if tail.kept >= c.context - computed}
    fitting = [kept for kept in alone if kept >= c.context - computed + CLEAR] or [max(alone)]
    assert np.isfinite(found).all() and len(found) == c.positions
    same = [kept for kept, answer in alone.items() if np.array_equal(answer, found)]
    assert same == ([min(fitting)] if computed < c.context else list(alone))


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
        np.testing.assert_array_equal(tail.encoded, expected.encoded)
        np.testing.assert_array_equal(tail.speech, expected.speech)
    probes = load_probes(live.path / "tables")
    np.testing.assert_array_equal(load_probes(tmp_path / "tables"), probes)
    whole = live.manifest.model.encoder.context
    assert [place // PROBED for place in probes] == list(range(-(-whole // PROBED)))


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
