"""The golden set in `tests/goldens`: an engine of its checkpoint passes, the command makes it, changes are found."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine import Engine
from omni2_engine.cli.app import run
from omni2_export.build import BuildRequest, build_engine
from omni2_export.checkpoint import open_checkpoint
from omni2_export.verify import ALL_CONTEXT, GoldenError, VerifyReport, verify_engine

SAMPLING = {
    "processors": [],
    "warpers": [["TopKLogitsWarper", {"top_k": 50}]],
    "gc": {
        "do_sample": True, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.0,
        "max_new_tokens": 1024,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def goldens(repository: Path) -> Path:
    return repository / "tests" / "goldens"


@pytest.fixture(scope="module")
def engine(goldens: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    paths, target = CheckpointPaths.below(goldens / "checkpoint"), tmp_path_factory.mktemp("small") / "engine"
    checkpoint = open_checkpoint(paths.model, decoder=paths.decoder)
    build_engine(BuildRequest(checkpoint, target, [repository / "examples" / "voice.wav"]))
    return Engine.load(target, threads=1, warm_up=False, left_context=ALL_CONTEXT)


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def rows(report: VerifyReport) -> set[tuple[str, str]]:
    return {(row.source, row.array) for row in report.judged}


def test_everything_passes(engine: Engine, goldens: Path) -> None:
    report = verify_engine(engine, goldens / "arrays", threads=1)
    assert report.misses == [] and report.skipped == {}
    assert {source for source, _ in rows(report)} == {path.stem for path in (goldens / "arrays").glob("*.npz")}
    for schedule in ("inline", "threaded"):  # what a user runs
        assert {("llm_1", f"g_text_ids ({schedule})"), ("llm_2", f"g_tts_tokens ({schedule})")} <= rows(report)
        assert {("stream_A", f"c5_wav ({schedule})"), ("stream_C", f"calls ({schedule})")} <= rows(report)
    assert ("offline_A", "source_float64") in rows(report)


def test_the_set_is_small_and_its_long_call_is_long(engine: Engine, goldens: Path) -> None:
    assert sum(path.stat().st_size for path in goldens.rglob("*") if path.is_file()) < 1_550_000
    f0 = read(goldens / "arrays" / "offline_A.npz")["f0"]
    turns = f0.sum() * engine.config.vocoder.hop / engine.config.vocoder.sample_rate
    assert f0.shape[1] > 100 and turns > 1000  # of the fundamental: the phase has room to drift


def test_the_command_makes_the_arrays_again(goldens: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    assert runpy.run_path(str(goldens / "make.py"))["make_arrays"](goldens / "checkpoint", tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (goldens / "arrays").iterdir()}
    for path in (goldens / "arrays").iterdir():
        kept, made_again = read(path), read(tmp_path / path.name)
        assert kept.keys() == made_again.keys()
        for name, array in kept.items():
            if name.startswith("fbank"):  # logarithms: a quiet bin has the rounding of the frame's loudest one
                energies = [np.exp(values - array.max(axis=1, keepdims=True)) for values in (made_again[name], array)]
                np.testing.assert_allclose(*energies, atol=1e-4, err_msg=name)
            elif array.dtype.kind == "f":
                np.testing.assert_allclose(made_again[name], array, atol=1e-3, err_msg=name)
            else:
                np.testing.assert_array_equal(made_again[name], array, err_msg=name)


# -- what must miss ----------------------------------------------------------------------------------------------------


def missed(engine: Engine, goldens: Path, folder: Path, name: str, **changed: np.ndarray) -> set[str]:
    """Arrays that miss when some of one file's are replaced; the file of the noise lies beside it."""
    shutil.copy(goldens / "arrays" / "decoder_units.npz", folder)
    np.savez(folder / f"{name}.npz", **read(goldens / "arrays" / f"{name}.npz") | changed)
    report = verify_engine(engine, folder, threads=1)
    return {row.array for row in report.misses if row.source == name}


def test_a_drifting_phase_is_found(engine: Engine, goldens: Path, tmp_path: Path) -> None:
    """F0 a hair higher: nothing in a frame, but a share of a turn at the end of a long call."""
    arrays = read(goldens / "arrays" / "offline_A.npz")
    assert missed(engine, goldens, tmp_path, "offline_A", f0=arrays["f0"] + np.float32(9e-4)) == {"source_float64"}


def test_another_text_than_the_models_is_found(engine: Engine, goldens: Path, tmp_path: Path) -> None:
    ids = read(goldens / "arrays" / "llm_1.npz")["f_text_ids"].copy()
    ids[-1] = ids[-1] - 1
    assert "f_text_ids" in missed(engine, goldens, tmp_path, "llm_1", f_text_ids=ids)


def test_the_originals_sampling_is_compared(engine: Engine, tmp_path: Path) -> None:
    def arrays_missed(**changes: object) -> set[str]:
        content = SAMPLING | {"gc": SAMPLING["gc"] | {"eos_token_id": engine.config.tokens.speech_eos} | changes}
        (tmp_path / "tts_sampling_observed.json").write_text(json.dumps(content))
        report = verify_engine(engine, tmp_path, threads=1)
        assert len(report.judged) == 7
        return {row.array for row in report.misses}

    assert arrays_missed() == set()
    assert arrays_missed(top_k=40, eos_token_id=3) == {"top_k", "eos_token_id"}
    assert arrays_missed(do_sample=False) == {"temperature"}
    for text in ("{", "{}", json.dumps(SAMPLING | {"warpers": 3}), json.dumps(SAMPLING | {"gc": {"top_k": "many"}})):
        (tmp_path / "tts_sampling_observed.json").write_text(text)
        with pytest.raises(GoldenError, match="tts_sampling_observed"):
            verify_engine(engine, tmp_path, threads=1)


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--goldens or --write-goldens"),
        (["--goldens=there", "--write-goldens=there"], "--goldens or --write-goldens"),
        (["--write-goldens=there"], "--decoder, --voice and --audio"),
        (["--write-goldens=there", "--decoder=decoder", "--voice=v.wav"], "--decoder, --voice and --audio"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "somewhere", *options]) != 0
    assert said in capsys.readouterr().err


def test_goldens_cannot_be_made_without_torch(
    goldens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni2_engine.cli.require.find_spec", lambda name: None if name == "torch" else object())
    voice = f"--voice={goldens / 'none.wav'}"
    options = [f"--write-goldens={tmp_path / 'out'}", "--decoder=d", voice, "--audio=a.wav"]
    assert run(["verify", str(goldens / "checkpoint" / "omni2"), *options]) != 0
    assert "omni2-engine[torch]" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_unreadable_audio_is_refused_before_anything_is_written(
    goldens: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    paths, target = CheckpointPaths.below(goldens / "checkpoint"), tmp_path / "out"
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    options = [f"--decoder={paths.decoder}", f"--voice={repository / 'examples' / 'sum.wav'}"]
    arguments = ["verify", str(paths.model), *options, f"--write-goldens={target}"]
    assert run([*arguments, f"--audio={tmp_path / 'broken.wav'}"]) != 0
    assert "broken.wav" in capsys.readouterr().err and not target.exists()
