"""`omni2-engine bench kernels`."""

from __future__ import annotations

from typing import Annotated

import typer


def register(bench: typer.Typer) -> None:
    """Add the command to `omni2-engine bench`."""

    @bench.command()
    def kernels(
        size: Annotated[str, typer.Option(help="of random weights, such as 0.5B")] = "0.5B",
        precision: Annotated[str, typer.Option(help="as of `omni2-engine build` for a GPU")] = "balanced",
        target: Annotated[str, typer.Option(help="an architecture")] = "sm89",
        plan: Annotated[str, typer.Option(help="only these plans, separated by commas")] = "",
        sessions: Annotated[int, typer.Option(help="conversations decoded in one call")] = 8,
    ) -> None:
        """The kernels that every plan launches, as TensorRT's builder lists them: needs TensorRT-RTX and no GPU."""
        from omni2_engine.cli.require import require

        require("export", "onnx", "onnx_ir", "ml_dtypes", "yaml")
        from omni2_bench.lab.kernels import PLANS, count_kernels, report

        plans = [name.strip() for name in plan.split(",") if name.strip()] or PLANS
        typer.echo(report(list(count_kernels(size, precision, target, sessions, plans))))
