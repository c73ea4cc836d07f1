"""All stages in the order their needs allow, some side by side, each a process of its own at the lowest priority."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from types import FrameType

from rich.console import Console

from omni2_training.quiet import lowest_priority
from omni2_training.workspace import Workspace


@dataclass(frozen=True)
class Stage:
    """A stage of the command line.

    Args:
        command: its name and arguments.
        needs: names of the stages before it.
        minutes: of one core, about, on a current server CPU.
    """

    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    minutes: float = 0.1

    @property
    def name(self) -> str:
        """What others call it, and its marker."""
        return "-".join(self.command)


# The longest way through comes first in the list, so that it starts first.
STAGES = (
    Stage(("corpus",)),
    Stage(("voice",)),
    Stage(("answers",), ("corpus", "voice"), 150),
    Stage(("vocabulary",), ("corpus",)),
    Stage(("llm",), ("vocabulary",), 50),
    Stage(("questions",), ("corpus",), 88),
    Stage(("listen",), ("llm", "questions"), 125),
    Stage(("features",), ("answers",), 1),
    Stage(("tokenizer",), ("features",), 10),
    Stage(("units",), ("tokenizer",), 6),
    Stage(("vocoder",), ("features",), 55),
    Stage(("speech-lm",), ("units", "vocabulary"), 65),
    Stage(("flow",), ("units",), 45),
    Stage(("mels",), ("flow",), 8),
    Stage(("finish",), ("vocoder", "mels"), 80),
    Stage(("join",), ("speech-lm", "listen"), 55),
    Stage(("gates", "teacher"), ("features",), 4),
    Stage(("gates", "copy"), ("finish",), 5),
    Stage(("gates", "units"), ("finish", "flow"), 6),
    Stage(("gates", "text"), ("finish", "flow", "speech-lm"), 8),
    Stage(("set",), ("corpus", "voice"), 6),
    Stage(("export",), ("finish", "flow", "join")),
)
POLL = 0.5  # seconds between two looks at running stages


class Runner:
    """Runs what is not done yet; SIGTERM is handed on, and what was running goes on next time.

    Args:
        workspace: keeps `done/NAME` for every stage that has ended, and `logs/NAME.log`.
        config: name of the settings.
        jobs: stages at a time.
    """

    def __init__(self, workspace: Workspace, config: str, jobs: int, console: Console) -> None:
        self._workspace, self._config, self._jobs, self._console = workspace, config, jobs, console
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped = False

    def run(self, stages: tuple[Stage, ...] = STAGES) -> bool:
        """Run the stages; whether all of them are done."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while True:
            self._reap()
            waiting = [s for s in stages if not self._done(s.name) and s.name not in self._running]
            ready = [s for s in waiting if all(self._done(need) for need in s.needs)]
            while ready and len(self._running) < self._jobs and not self._stopped:
                self._start(ready.pop(0))
            if not self._running:
                return not waiting
            time.sleep(POLL)

    def _done(self, name: str) -> bool:
        return self._workspace.path("done", name).is_file()

    def _start(self, stage: Stage) -> None:
        self._console.print(f"{stage.name}: begins or goes on (about {stage.minutes:.0f} minutes of one core in all)")
        command = [sys.executable, "-m", "omni2_training", *stage.command, "--state", str(self._workspace.root)]
        with self._workspace.path("logs", f"{stage.name}.log").open("ab") as log:
            self._running[stage.name] = subprocess.Popen(
                [*command, "--config", self._config],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                preexec_fn=lowest_priority,
                start_new_session=True,
            )

    def _reap(self) -> None:
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[name]
            if code == 0:
                self._workspace.path("done", name).touch()
                self._console.print(f"{name}: done")
            else:
                self._stopped = True
                self._console.print(f"{name}: stopped ({code}); see {self._workspace.path('logs', f'{name}.log')}")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        for process in self._running.values():
            process.terminate()
