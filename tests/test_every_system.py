"""Building, loading and answering on a system that lacks what only Linux, or no Windows, has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from omni2_engine.model.manifest import EngineDirectory

from .waiting import SOON

if TYPE_CHECKING:
    from omni2_bench.random_checkpoint import CheckpointPaths

# A process in which modules and names are gone, as on Windows or macOS. psutil is there first: it has code for each.
PROGRAM = """
import json, mmap, os, signal, sys
from pathlib import Path
import psutil

MODULES = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog")
GONE = {
    os: ["sched_getaffinity", "posix_fallocate", "sysconf", "getloadavg", "fork", "register_at_fork", "nice", "geteuid",
         "getuid", "O_NONBLOCK", "mkfifo", "mkfifoat", "killpg", "getpgid", "setsid", "fchmod", "pread", "sendfile"],
    signal: ["SIGKILL", "SIGHUP", "SIGPIPE", "SIGALRM", "SIGUSR1", "SIGSTOP"],
    mmap: ["MADV_DONTNEED"],
}
for module, names in GONE.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in MODULES:
    sys.modules[name] = None  # importing it fails

checkpoint, decoder, voice, question, folder = map(Path, sys.argv[1:])
import omni2_engine.system.locked_file
import omni2_engine.system.reservation
omni2_engine.system.locked_file.NAME_LAST = False  # before anything has taken it from there
omni2_engine.system.reservation.PRIVATE = {}

from omni2_bench.common import machine, process as worker_processes
from omni2_bench.random_checkpoint import PRESETS, write_checkpoint
from omni2_engine.cli.app import run
from omni2_export.build import BuildRequest, build_engine
from omni2_export.checkpoint import convert, open_checkpoint
from omni2_export.tensorrt import process, worker

write_checkpoint(folder / "checkpoint", PRESETS["tiny"], seed=1)
engine = folder / "engine"
for _ in range(2):  # the second time over the first
    opened = open_checkpoint(checkpoint, decoder=decoder)
    build_engine(BuildRequest(opened, engine, [voice]))
for device in (str(folder / "answer.wav"), os.devnull):
    options = ["--max-new-tokens", "4", "--max-last-write", "8", "--threads", "1", "--no-warm-up"]
    assert run(["stream", str(engine), str(question), "-o", device, *options]) == 0
assert run(["doctor", str(engine)]) == 0
converted = convert(decoder / "flow.safetensors", folder / "copy.safetensors")
print(json.dumps({"machine": machine.describe(1), "memory": worker._highest_memory()}))
"""


def test_without_what_only_linux_has(
    tiny_checkpoint: CheckpointPaths, tiny_engine_dir: Path, repository: Path, question: Path, tmp_path: Path
) -> None:
    arguments = [tiny_checkpoint.model, tiny_checkpoint.decoder, repository / "examples" / "voice.wav", question]
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *map(str, arguments), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 0, done.stdout + done.stderr
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["answer.wav", "checkpoint", "copy.safetensors", "engine"]
    built = EngineDirectory(tmp_path / "engine")
    built.check()
    assert built.manifest.files == EngineDirectory(tiny_engine_dir).manifest.files  # the same bytes as with everything
    assert soundfile.info(tmp_path / "answer.wav").frames > 0
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["machine"]["processors"] >= 1 and told["machine"]["memory_bytes"] > 1 << 26
    assert told["memory"] > 1 << 20
