"""`omni2-engine verify`: all goldens pass, of any dimensions; every kind of damage is found, and named."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni2_bench.random_checkpoint import PRESETS as SIZES
from omni2_bench.random_checkpoint import CheckpointPaths, write_checkpoint
from omni2_engine import Engine
from omni2_engine.cli.app import run
from omni2_export.build import BuildRequest, build_engine, parse_precision
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.reference.goldens import GoldenPlan, write_goldens
from omni2_export.verify import ALL_CONTEXT, GoldenError, verify_engine
from omni2_export.verify.goldens import read_goldens
from omni2_export.verify.rows import Measure

Arrays = dict[str, np.ndarray]


def build(checkpoint: Checkpoint, path: Path, voice: Path, precision: str = "exact") -> Path:
    build_engine(BuildRequest(checkpoint, path, [voice], parse_precision(precision)))
    return path


def load(path: Path) -> Engine:
    return Engine.load(
        path, threads=1, warm_up=False, left_context=ALL_CONTEXT, encoder="window", flow_steps=10, flow_solver="euler"
    )


@pytest.fixture(scope="module")
def given_checkpoint(shared: Path) -> Checkpoint:
    tiny = shared / "checkpoints" / "tiny"
    return open_checkpoint(
        tiny / "omni2_tiny", decoder=tiny / "cosy2_decoder", speech_encoder=tiny / "speech_encoder" / "large-v3.pt"
    )


@pytest.fixture(scope="module")
def voice(shared: Path) -> Path:
    return shared / "audio" / "prompt_en.wav"


@pytest.fixture(scope="module")
def engine_dir(given_checkpoint: Checkpoint, voice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(given_checkpoint, tmp_path_factory.mktemp("given") / "engine", voice)


@pytest.fixture(scope="module")
def engine(engine_dir: Path) -> Engine:
    return load(engine_dir)


def read(path: Path) -> Arrays:
    with np.load(path) as file:
        return dict(file)


def change(array: np.ndarray) -> np.ndarray:
    """The array with its last item off by more than any tolerance."""
    if array.dtype.kind == "U":
        return np.array(str(array)[:-1] + "#")
    changed = array.copy()
    changed.reshape(-1)[-1] += 1 if array.dtype.kind == "i" else 0.02 + 0.02 * array.std()
    return changed


def copy_with(shared: Path, target: Path, name: str, changed: set[str]) -> Path:
    """`name.npz` with some arrays changed, and the file of noise beside it."""
    target.mkdir(exist_ok=True)
    arrays = read(shared / "goldens" / f"{name}.npz")
    np.savez(target / f"{name}.npz", **{key: change(a) if key in changed else a for key, a in arrays.items()})
    if name.startswith(("stream", "offline")):
        noise = read(shared / "goldens" / "decoder_units.npz")
        np.savez(target / "decoder_units.npz", **{key: noise[key] for key in ("rand_noise", "spks")})
    return target


# -- what must pass ----------------------------------------------------------------------------------------------------


def test_all_given_goldens_pass(
    engine_dir: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.json"
    assert run(["verify", str(engine_dir), "--goldens", str(shared / "goldens"), "--json", str(table)]) == 0
    printed = capsys.readouterr().out
    assert "comparisons pass" in printed and "MISS" not in printed
    content = json.loads(table.read_text())
    assert content["passed"] and len(content["rows"]) > 150 and all(row["passed"] for row in content["rows"])
    assert content["not_compared"] == {"stream_A": ["c0_phase", "c1_phase"]}  # no noise to go with them
    compared = {(row["file"], row["array"]) for row in content["rows"]}
    inputs = (
        "audio16k_i16", "rand_noise", "prompt_16k", "_x", "_mu", "_t", "_spks", "_tok", "hift_mel", "hift_s", "units",
        "schedule", "source", "phase", "sine_noise", "g_top8_ids", "f_tts_tokens", "embedding",
    )  # fmt: skip
    for path in (shared / "goldens").glob("*.npz"):
        for array in read(path):
            assert (path.stem, array) in compared or array.endswith(inputs), (path.stem, array)


PLAN = GoldenPlan(
    max_text=12,
    last_write=14,
    schedules={"long": (11, 3, 1, 26, 2), "one": (9,)},
    encoder_calls=(7, 21, 43),
    estimator_calls=(5, 44, 81),
    vocoder_frames=17,
    noise_frames=120,
    answer="Yes, it is.\nAnd 12 more.",
)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> tuple[Path, Path]:
    """Engine and goldens of a checkpoint that shares no dimension with the released ones."""
    torch.set_num_threads(1)
    path, random = tmp_path_factory.mktemp("other"), np.random.default_rng(0)
    size = SIZES["tiny"].changed(
        read=4, write=6,
        encoder={"mel_bins": 80, "context": 301, "width": 48, "heads": 3, "ffn": 100, "layers": 1, "stack": 4},
        llm={"hidden": 96, "heads": 6, "kv_heads": 3, "layers": 2},
        speech_lm={"hidden": 64, "heads": 4, "kv_heads": 1, "layers": 1},
        flow_encoder={"width": 48, "heads": 3, "ffn": 72, "up_ffn": 72, "blocks": 1, "up_blocks": 2, "mel": 60,
                      "unit_rate": 10, "lookahead": 2},
        estimator={"width": 32, "heads": 2, "head_dim": 8, "mid_blocks": 1, "transformers": 2, "speaker": 64},
        vocoder={"upsample_rates": (4, 5), "upsample_kernels": (8, 11), "sample_rate": 2000, "base": 64,
                 "harmonics": 4, "fft": 20, "fft_hop": 5, "resblock_kernels": (3, 5),
                 "resblock_dilations": ((1, 3), (1, 2)), "source_kernels": (7, 11),
                 "source_dilations": ((1, 3), (1, 3)), "f0_width": 32},
    )  # fmt: skip
    paths = write_checkpoint(path / "checkpoint", size)
    checkpoint = open_checkpoint(paths.model, decoder=paths.decoder)
    audio = {n: (2000 * random.standard_normal(50_000)).astype(np.int16) for n in (3, 12)}
    write_goldens(checkpoint, audio, np.float32(0.1 * random.standard_normal(16_000)), path / "goldens", PLAN)
    return build(checkpoint, path / "engine", repository / "examples" / "voice.wav"), path / "goldens"


def test_goldens_of_other_dimensions_pass(other: tuple[Path, Path]) -> None:
    report = verify_engine(load(other[0]), other[1], threads=1)
    assert report.misses == [] and report.skipped == {}
    sources = {row.source for row in report.judged}
    assert sources == {
        "decoder_units", "stream_long", "offline_long", "stream_one", "offline_one", "llm_3", "llm_12",
        "llm_multiturn_3_12", "llm_eos_3",
    }  # fmt: skip
    ends = {row.array for row in report.judged if row.source == "llm_eos_3"}
    assert {"left1_ctx_len", "mult4_tts_tokens"} <= ends
    turns = {row.array for row in report.judged if row.source == "llm_multiturn_3_12"}
    assert {"prompt_text", "prompt_ids", "n_embeds", "inputs_embeds", "prefill_last_logits"} <= turns


def test_an_int8_flow_keeps_the_sound(other: tuple[Path, Path], repository: Path, tmp_path: Path) -> None:
    paths = CheckpointPaths.below(other[1].parent / "checkpoint")
    checkpoint = open_checkpoint(paths.model, decoder=paths.decoder)
    fast = build(checkpoint, tmp_path / "fast", repository / "examples" / "voice.wav", "fast")
    report = verify_engine(load(fast), other[1], threads=1)
    sound = [row for row in report.rows if row.array == "wav" and row.measure is Measure.SNR]
    assert sound and all(row.limit == 30.0 for row in sound)
    assert report.misses == []


@pytest.mark.parametrize("name", ["llm_multiturn_3_12", "llm_eos_3"])
def test_changed_conversations_miss(name: str, other: tuple[Path, Path], tmp_path: Path) -> None:
    for path in other[1].glob("llm_*.npz"):
        if path.stem == name:
            arrays = {key: change(a) if key.endswith(("logits", "write_len")) else a for key, a in read(path).items()}
            if name == "llm_eos_3":
                arrays["left1_tts_tokens"] = np.append(arrays["left1_tts_tokens"], 0)
                arrays["mult4_tts_tokens"] = np.append(arrays["mult4_tts_tokens"], 0)
            np.savez(tmp_path / path.name, **arrays)
        else:
            shutil.copy(path, tmp_path)
    missed = {(row.source, row.array) for row in verify_engine(load(other[0]), tmp_path, threads=1).misses}
    if name == "llm_eos_3":
        assert {(name, "left1_tts_tokens"), (name, "mult4_tts_tokens")} <= missed
    else:
        assert missed == {(name, "prefill_last_logits")}


def test_conversations_need_their_questions(other: tuple[Path, Path], tmp_path: Path) -> None:
    engine = load(other[0])
    shutil.copy(other[1] / "llm_multiturn_3_12.npz", tmp_path)
    with pytest.raises(GoldenError, match=r"llm_3\.npz"):
        verify_engine(engine, tmp_path, threads=1)
    (tmp_path / "llm_multiturn_3_12.npz").unlink()
    shutil.copy(other[1] / "llm_eos_3.npz", tmp_path)
    with pytest.raises(GoldenError, match="llm_<n>"):
        verify_engine(engine, tmp_path, threads=1)


@pytest.mark.parametrize("preset", ["balanced", "fast", "live"])
def test_quantised_engines_are_judged_by_snr(
    preset: str, given_checkpoint: Checkpoint, voice: Path, shared: Path, tmp_path: Path
) -> None:
    engine = load(build(given_checkpoint, tmp_path / "engine", voice, preset))
    goldens = tmp_path / "goldens"
    goldens.mkdir()
    for name in ("llm_4", "stream_C", "decoder_units"):
        shutil.copy(shared / "goldens" / f"{name}.npz", goldens)
    report = verify_engine(engine, goldens, threads=1)
    assert report.misses == []
    measures = {(row.source, row.array): row.measure for row in report.rows}
    assert measures["llm_4", "encoder_out"] is measures["llm_4", "llm_logits"] is Measure.SNR
    assert measures["llm_4", "g_text_ids"] is Measure.MATCH
    assert measures["llm_4", "f_units_string"] is Measure.DIFFERENT  # forced tokens: nothing to excuse
    assert measures["llm_4", "fused"] is Measure.RELATIVE
    assert measures["stream_C", "c1_mel_full"] is (Measure.RELATIVE if preset == "balanced" else Measure.SNR)
    arrays = read(goldens / "llm_4.npz")
    arrays["llm_logits"] += np.random.default_rng(0).standard_normal(arrays["llm_logits"].shape).astype(np.float32) * 50
    np.savez(goldens / "llm_4.npz", **arrays)
    assert [row.array for row in verify_engine(engine, goldens, threads=1).misses] == ["llm_logits"]


def test_settings_that_spare_work_are_left_out(
    given_checkpoint: Checkpoint, voice: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = build(given_checkpoint, tmp_path / "engine", voice, "live")
    goldens = copy_with(shared, tmp_path / "goldens", "stream_C", set())
    assert run(["verify", str(engine), "--goldens", str(goldens)]) == 0
    assert "the whole window and all Euler steps" in capsys.readouterr().out


# -- what must miss ----------------------------------------------------------------------------------------------------

CHANGES = {
    "decoder_units": {
        "fbank_meannorm", "t_span", "est14_out", "est230_out", "enc10_mu", "enc57_embed", "enc57_posemb",
        "enc57_layers", "enc113_out", "hift_f0", "hift_stft_imag", "hift_wav",
    },
    "llm_4": {
        "encoder_out", "projector_out", "input_proj_out", "fused", "prefill_last_logits", "prefill_last_hidden",
        "llm_logits", "f_tts_logits", "g_units_string", "rp1_text_ids", "g_top8_vals",
    },
    "stream_C": {"c0_hift_mel_in", "c1_mel_full", "c1_f0", "c1_wav_raw", "c2_wav", "c2_token_offset_after", "wav"},
    "offline_C": {"mel_full", "f0", "wav"},
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_changed_arrays_miss(name: str, engine: Engine, shared: Path, tmp_path: Path) -> None:
    report = verify_engine(engine, copy_with(shared, tmp_path / "goldens", name, CHANGES[name]), threads=1)
    missed = {row.array.partition(" ")[0] for row in report.misses}
    # what is fed a changed array may miss as well
    follows = (
        {"c0_f0", "c0_wav_raw", "c1_source"} if name == "stream_C" else {"g_top8_ids"} if name == "llm_4" else set()
    )
    assert CHANGES[name] <= missed <= CHANGES[name] | follows
    assert {row.source for row in report.misses} == {name}


def test_a_miss_is_printed_and_ends_with_1(
    engine_dir: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    goldens, table = copy_with(shared, tmp_path / "goldens", "offline_C", {"wav"}), tmp_path / "table.json"
    assert run(["verify", str(engine_dir), "--goldens", str(goldens), "--json", str(table)]) == 1
    printed = capsys.readouterr().out
    assert "offline_C wav" in printed and "MISS" in printed
    content = json.loads(table.read_text())
    assert not content["passed"] and [row["array"] for row in content["rows"] if not row["passed"]] == ["wav"]


def test_a_spoilt_engine_misses(engine_dir: Path, shared: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "engine"
    shutil.copytree(engine_dir, spoilt, copy_function=os.link)
    path = spoilt / "graphs" / "vocoder.weights"
    content = bytearray(path.read_bytes())
    path.unlink()  # a link so far
    weights = np.frombuffer(content, np.float32)
    weights[: len(weights) // 3] *= 1.01
    path.write_bytes(content)
    report = verify_engine(load(spoilt), copy_with(shared, tmp_path / "goldens", "stream_C", set()), threads=1)
    assert {row.stage for row in report.misses} == {"vocoder", "session"}


def test_arrays_of_another_length_miss(engine: Engine, shared: Path, tmp_path: Path) -> None:
    goldens = copy_with(shared, tmp_path / "goldens", "offline_C", set())
    arrays = read(goldens / "offline_C.npz")
    arrays["mel_full"], arrays["f0"] = arrays["mel_full"][:, :, :-1], arrays["f0"][:, :-1]
    arrays["wav"], arrays["source"] = arrays["wav"][:, :-480], arrays["source"][:, :, :-480]
    np.savez(goldens / "offline_C.npz", **arrays)
    assert [row.array for row in verify_engine(engine, goldens, threads=1).misses] == ["mel_full", "f0"]


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_nothing_to_compare_ends_with_1(engine_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("no goldens")
    assert run(["verify", str(engine_dir), "--goldens", str(tmp_path)]) == 1
    assert "nothing was compared" in capsys.readouterr().out
    assert run(["verify", str(engine_dir), "--goldens", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is not a directory" in capsys.readouterr().err


def refusal(engine_dir: Path, goldens: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["verify", str(engine_dir), "--goldens", str(goldens)]) == 1
    return capsys.readouterr().err


def test_damaged_and_unknown_files_are_named(
    engine_dir: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "llm_1.npz"
    path.write_bytes((shared / "goldens" / "llm_1.npz").read_bytes()[:5000])
    assert "llm_1.npz is not a readable .npz file" in refusal(engine_dir, tmp_path, capsys)
    path.rename(tmp_path / "lm_1.npz")
    assert run(["verify", str(engine_dir), "--goldens", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "not compared in lm_1: the whole file" in told and "nothing was compared" in told


@pytest.mark.parametrize(
    ("name", "array", "value", "said"),
    [
        ("llm_1", "log_mel", np.zeros((3000, 80), np.float32), "shape (3000, 80)"),
        ("llm_1", "llm_logits", np.zeros((3, 448), np.float32), "shape (3, 448)"),
        ("llm_1", "text_ids", np.full(24, 10**6), "outside 0 … 447"),
        ("llm_1", "text_ids", np.zeros(24), "float64, not integers"),
        ("llm_1", "fused", np.full((24, 48), np.nan, np.float32), "not finite"),
        ("llm_1", "f_group_unit_len", np.full(8, 10), "add up"),
        ("stream_C", "schedule", np.array([10, 10, 5]), "add up"),
        ("stream_C", "schedule", np.array([4, 10, 10]), "too few units"),
        ("stream_C", "c1_source", np.zeros((1, 1, 9), np.float32), "c1_source has 9 samples"),
        ("stream_C", "units", np.zeros(0, np.int64), "units is empty"),
        ("decoder_units", "est14_x", np.zeros((2, 80, 13), np.float32), "est14_mu has shape (2, 80, 14)"),
        ("decoder_units", "hift_s", np.zeros((1, 1, 14_399), np.float32), "hift_wav has shape (1, 14400)"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_named(
    name: str, array: str, value: np.ndarray, said: str, engine: Engine, shared: Path, tmp_path: Path
) -> None:
    goldens = copy_with(shared, tmp_path / "goldens", name, set())
    arrays = read(goldens / f"{name}.npz")
    if array == "c1_source":
        arrays = {
            key: a for key, a in arrays.items() if not key.startswith("c1_") or key in ("c1_hift_mel_in", "c1_source")
        }
    np.savez(goldens / f"{name}.npz", **arrays | {array: value})
    with pytest.raises(GoldenError) as caught:
        verify_engine(engine, goldens, threads=1)
    assert said in caught.value.problem and f"{name}.npz" in caught.value.problem


def test_unknown_arrays_are_told(engine: Engine, shared: Path, tmp_path: Path) -> None:
    goldens = copy_with(shared, tmp_path / "goldens", "offline_C", set())
    np.savez(goldens / "offline_C.npz", **read(goldens / "offline_C.npz"), mystery=np.zeros(3))
    report = verify_engine(engine, goldens, threads=1)
    assert report.passed and report.skipped["offline_C"] == ["mystery"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cut=st.floats(0, 1), place=st.floats(0, 1), value=st.integers(0, 255), truncate=st.booleans())
def test_damaged_bytes_never_surprise(
    cut: float, place: float, value: int, truncate: bool, engine: Engine, shared: Path, tmp_path: Path
) -> None:
    content = bytearray((shared / "goldens" / "offline_C.npz").read_bytes())
    content[int(place * (len(content) - 1))] = value
    path = tmp_path / "offline_C.npz"
    path.write_bytes(content[: int(cut * len(content))] if truncate else content)
    try:
        [golden], _ = read_goldens(tmp_path, engine.config)
    except GoldenError as error:
        assert "offline_C.npz" in error.problem
    else:
        assert golden.name == "offline_C"


def test_objects_in_a_file_are_not_unpickled(engine: Engine, tmp_path: Path) -> None:
    array = io.BytesIO()
    np.lib.format.write_array(array, np.array([{"a": 1}], object))
    with zipfile.ZipFile(tmp_path / "llm_1.npz", "w") as file:
        file.writestr("text_ids.npy", array.getvalue())
    with pytest.raises(GoldenError, match="allow_pickle"):
        read_goldens(tmp_path, engine.config)
