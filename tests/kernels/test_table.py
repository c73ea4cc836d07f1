"""The table of docs/kernels.md: its bytes and floors are the registry's, and it can be made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni2_kernels.registry import KERNELS, SIZES
from omni2_kernels.table import markdown, resources


def rows(text: str) -> dict[str, list[str]]:
    """Kernel → cells."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if cells[0] in KERNELS:
            found[cells[0]] = cells
    return found


def test_the_documents_figures_are_the_registrys(repository: Path) -> None:
    documented = rows((repository / "docs" / "kernels.md").read_text(encoding="utf-8"))
    assert list(documented) == list(KERNELS)
    for name, (_, source, blocks, _, _, _, moved, floor) in documented.items():
        kernel = KERNELS[name]
        x, y, z = kernel.grid(SIZES)
        assert (source, int(blocks)) == (kernel.source, x * y * z)
        assert moved == f"{kernel.moved(SIZES) / 1e3:.0f}"
        assert floor == f"{kernel.floor(SIZES) * 1e6:.2f}"


def test_a_table_of_one_architecture(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="needs NVRTC; pip install '.[tensorrt]' to run this test")
    made = rows(markdown(["sm_89"], {**SIZES, "rows": 1}, tmp_path))
    assert list(made) == list(KERNELS)
    usage = resources(["sm_89"], tmp_path)["rank_logits"]["sm_89"]
    assert made["rank_logits"][3:6] == [str(usage.registers), str(usage.shared), "0"]
    assert made["resume"][2] == "1"
