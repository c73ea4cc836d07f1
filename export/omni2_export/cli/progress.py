"""A build's progress on the terminal: one bar per stage with bytes and time left; plain lines where there is no
terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class BuildProgress:
    """See `omni2_export.build.run.Progress`; a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, markup=False, emoji=False)
        self._bars = Progress(
            TextColumn("{task.description:<16}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._sizes: dict[str, int] = {}

    def plan(self, stages: list[tuple[str, int]]) -> None:
        """See `Progress`."""
        self._sizes = dict(stages)

    def begin(self, stage: str) -> None:
        """See `Progress`."""
        self._tasks[stage] = self._bars.add_task(stage, total=max(self._sizes.get(stage, 0), 1))

    def advance(self, stage: str, size: int) -> None:
        """See `Progress`."""
        self._bars.advance(self._tasks[stage], size)

    def end(self, stage: str, reused: bool) -> None:
        """See `Progress`."""
        if reused:
            self._bars.console.print(f"{stage:<16} reused")
            return
        task = self._tasks[stage]
        done = max(self._bars.tasks[task].completed, 1)
        self._bars.update(task, total=done, completed=done)
        if not self._console.is_terminal:
            self._console.print(f"{stage:<16} {done / 2**20:.1f} MiB")

    def say(self, sentence: str) -> None:
        """See `Progress`."""
        self._bars.console.print(sentence, soft_wrap=True)

    def __enter__(self) -> BuildProgress:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()
