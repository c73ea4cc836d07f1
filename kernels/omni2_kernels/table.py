"""What kernels take and move, as a table: `python -m omni2_kernels.table sm_89`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omni2_kernels.compile import ARCHITECTURES, Usage, compile_kernels
from omni2_kernels.launch import THREADS, Sizes
from omni2_kernels.registry import KERNELS, SIZES


def resources(targets: Sequence[str], cache: Path | None = None) -> dict[str, dict[str, Usage]]:
    """Kernel → architecture → what it takes there.

    Raises:
        CompileError: see `compile_kernels`.
    """
    found: dict[str, dict[str, Usage]] = {name: {} for name in KERNELS}
    for target in targets:
        for module in compile_kernels(target, cache).values():
            for name, usage in module.usage.items():
                found[name][target] = usage
    return found


def markdown(targets: Sequence[str] = ARCHITECTURES, sizes: Sizes = SIZES, cache: Path | None = None) -> str:
    """A row per kernel: blocks, registers of a thread, shared memory of a block, spills, bytes moved, floor.

    Args:
        targets: architectures; numbers that differ among them are given as a range.
        sizes: of the launch.
        cache: as in `compile_kernels`.
    """
    lines = [
        f"| kernel | source | blocks of {THREADS} | registers | shared, bytes | spills | moved, kB | floor, μs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, usages in resources(targets, cache).items():
        kernel = KERNELS[name]
        x, y, z = kernel.grid(sizes)
        cells = [
            f"`{name}`",
            f"`{kernel.source}`",
            str(x * y * z),
            _range([usage.registers for usage in usages.values()]),
            _range([usage.shared for usage in usages.values()]),
            _range([usage.spills for usage in usages.values()]),
            f"{kernel.moved(sizes) / 1e3:.0f}",
            f"{kernel.floor(sizes) * 1e6:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _range(numbers: Sequence[int]) -> str:
    return str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)}–{max(numbers)}"


if __name__ == "__main__":
    print(markdown(sys.argv[1:] or ARCHITECTURES))
