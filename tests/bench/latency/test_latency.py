"""`bench latency` on a very small model: all files, their schema, going on after an interruption, wrong settings."""

from __future__ import annotations

import json
import math
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from omni2_bench.common.process import run_worker
from omni2_bench.latency import rounds
from omni2_bench.latency.record import GROUPS
from omni2_engine.backends.cuda.streams import STAGES
from omni2_engine.cli.app import run

RATIOS = ("first_chunk", "after_prefill", "answer_6s", "chunk_15", "growth", "growth_4s")
EVEN = ["reference", "exact", "live", "exact, 4 s", "live, 4 s"]  # chunks of one size
DIMENSIONS = {
    "base": "tiny",
    "encoder": {"context": 500, "layers": 1},
    "llm": {"layers": 2},
    "speech_lm": {"layers": 2},
    "flow_encoder": {"blocks": 1},
    "estimator": {"width": 32, "mid_blocks": 1},
    "vocoder": {"base": 64},
}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory, question: Path) -> list[str]:
    folder = tmp_path_factory.mktemp("latency")
    (folder / "dimensions.json").write_text(json.dumps(DIMENSIONS))
    options = {"size": "custom", "dimensions": folder / "dimensions.json", "audio": question, "out": folder / "out"}
    options |= {"cache": folder / "cache", "rounds": 1, "threads": 1, "chunks": 15, "precision": "exact,live"}
    return ["bench", "latency", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]


@dataclass(frozen=True)
class Resumed:
    """A benchmark that was interrupted before its fourth turn, and went on when it was asked for again.

    Args:
        out: its directory.
        kept: name → content of what was there of its turns in between.
        said: by the second run.
    """

    out: Path
    kept: dict[str, bytes]
    said: str


@pytest.fixture(scope="module")
def resumed(arguments: list[str]) -> Resumed:
    out, left = Path(arguments[arguments.index("--out") + 1]), iter(range(3))

    def run_some(*work: Any) -> dict[str, Any]:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return run_worker(*work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "run_worker", run_some)
        assert run(arguments) == 130
    kept = {path.name: path.read_bytes() for path in (out / "rounds").iterdir()}
    with redirect_stdout(StringIO()) as said:
        assert run(arguments) == 0
    return Resumed(out, kept, said.getvalue())


@pytest.fixture(scope="module")
def out(resumed: Resumed) -> Path:
    return resumed.out


@pytest.fixture(scope="module")
def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "latency.json").read_text())


def test_ratios_are_numbers(record: dict[str, Any]) -> None:
    assert set(record["ratios"]) == {"exact", "live", "live, growing chunks"}
    for name, found in record["ratios"].items():
        assert set(found) == set(RATIOS[:3] if "growing" in name else RATIOS)
        assert all(isinstance(value, float) and math.isfinite(value) and value > 0 for value in found.values())


def test_every_variant_has_done_the_same_work(record: dict[str, Any], out: Path) -> None:
    assert list(record["variants"]) == [*EVEN, "live, growing chunks"]
    for name, variant in record["variants"].items():
        assert len(variant.get("chunk_seconds", [])) == (15 if name in EVEN else 0), name
        assert variant["memory"]["RssAnon"] <= variant["memory"]["VmHWM"]
        parts = [variant["first_chunk"][row]["median"] for row in ("LLM", "TTS", "FM+Voc")]
        assert 0 < sum(parts) <= variant["first_chunk"]["total"]["median"]
        assert variant["core_seconds_per_second"]["median"] > 0
        assert variant["rtf"]["median"] > 0 and 0 <= variant["continuity"] <= 1
        assert variant["underrun_worst"]["median"] <= variant["underrun_total"]["median"]
        pcm = np.load(out / "rounds" / f"1-{name.replace(', ', '-').replace(' ', '-')}.npy")
        assert len(pcm) == 150 * 960 and np.isfinite(pcm).all()
    agreement = record["variants"]["exact"]["agreement"]
    assert agreement["text"] == 1.0
    assert agreement["sound_db"] > 50 and agreement["mel_db"] < 0.1
    assert record["variants"]["live"]["agreement"]["mel_db"] < 5
    assert record["variants"]["exact, 4 s"]["agreement"]["mel_db"] < 5  # its last two seconds no longer see the first


def test_the_reference_has_a_row_for_every_step(record: dict[str, Any]) -> None:
    rows = record["reference_rows"]
    assert {"encoder", "prefill", "text token", "write 1", "write 12", "flow 1", "flow 12", "vocoder"} <= set(rows)
    assert rows["encoder"]["of_encoder"] == 1
    assert "original" not in rows["prefill"]  # known for another size alone
    assert {f"flow {chunk}" for chunk in (1, 12, 15)} <= set(rows)
    assert all(row["seconds"] > 0 for row in rows.values())


def test_page_and_machine(record: dict[str, Any], out: Path) -> None:
    assert {"processor", "flags", "threads", "versions", "load"} <= set(record["machine"])
    page = (out / "latency.md").read_text()
    for heading in ("First chunk", "Ratios", "The whole answer", "The reference"):
        assert f"## {heading}" in page
    assert "exact, 4 s" in page and "growing" in page


@pytest.mark.parametrize("name", ["first_chunk", "chunk_cost", "timeline"])
def test_plots_show_something(name: str, record: dict[str, Any], out: Path) -> None:
    pixels = image.imread(out / f"{name}.png")
    assert pixels.shape[0] > 250 and pixels.shape[1] > 1000
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 30


def test_a_rerun_goes_on(resumed: Resumed) -> None:
    assert {name for name in resumed.kept if name.endswith(".json")} == {
        "1-reference.json", "1-exact.json", "1-live.json"
    }  # fmt: skip
    assert resumed.said.count("done before") == 3
    assert {name: (resumed.out / "rounds" / name).read_bytes() for name in resumed.kept} == resumed.kept


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(arguments) == 2
    return capsys.readouterr().err


def test_other_settings_need_another_directory(
    record: dict[str, Any], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds a benchmark with other settings" in refused([*arguments, "--chunks", "20"], capsys)


def test_wrong_settings(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = {
        "too few to tell growth": ["--chunks", "14"],
        "unknown precision": ["--precision", "exact,quick"],
        "unknown size": ["--size", "6B"],
        "gives no dimensions": ["--dimensions", str(tmp_path / "none.json")],
        "one thing to measure": ["--checkpoint", str(tmp_path)],
    }
    for problem, options in changed.items():
        assert problem in refused([*arguments, *options, "--out", str(tmp_path / "out")], capsys)


def test_every_graph_of_a_device_is_timed_in_a_group() -> None:
    timed = [graph for graphs, _ in GROUPS.values() for graph in graphs]
    assert sorted(timed) == sorted(graph for graphs in STAGES for graph in graphs)
