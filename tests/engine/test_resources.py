"""Memory and processors that a process may use: control groups of both versions, made up below a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.system import cgroups
from omni2_engine.system.resources import available_memory, processors, total_memory

GIB = 1 << 30
UNLIMITED = 9_223_372_036_854_771_712  # as version 1 writes it
SECOND = "31 23 0:28 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
FIRST = "35 31 0:32 {top} /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}"


class Machine:
    """A file system whose /proc and /sys say what a test wants."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def process(self, groups: list[str], mounts: list[str]) -> None:
        """What the process is told of itself."""
        folder = self.root / "proc" / "self"
        folder.mkdir(parents=True)
        (folder / "cgroup").write_text("".join(f"{line}\n" for line in groups))
        other = "23 1 8:1 / / rw,relatime - ext4 /dev/root rw"
        (folder / "mountinfo").write_text("".join(f"{line}\n" for line in (other, *mounts)))

    def group(self, name: str, **files: object) -> None:
        """Files of a group, `__` in their names for a dot."""
        folder = self.root / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / file.replace("__", ".")).write_text(f"{content}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A large machine: 64 processors, 100 GiB free of 128."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    (tmp_path / "proc").mkdir()
    memory = f"MemTotal: {128 << 20} kB\nMemAvailable:  {100 << 20} kB\nHugePages: 0\n"
    (tmp_path / "proc" / "meminfo").write_text(memory)
    return Machine(tmp_path)


def test_a_machine_without_groups(machine: Machine) -> None:
    root = machine.root
    assert (available_memory(root), total_memory(root), processors(root)) == (100 * GIB, 128 * GIB, 64)
    machine.process(["0::/user.slice"], [SECOND.format(top="/")])  # a group that has no files
    assert (available_memory(root), total_memory(root), processors(root)) == (100 * GIB, 128 * GIB, 64)


def test_version_2(machine: Machine) -> None:
    machine.process(["0::/app"], [SECOND.format(top="/")])
    used = {"memory__current": 3 * GIB, "memory__stat": f"anon 5\ninactive_file {GIB}\nactive_file 7"}
    machine.group("app", memory__max=8 * GIB, cpu__max="250000 100000", **used)
    assert total_memory(machine.root) == 8 * GIB
    assert available_memory(machine.root) == 6 * GIB  # files read and no longer needed are dropped first
    assert processors(machine.root) == 3 and cgroups.cpu_quotas(machine.root) == [2.5]


def test_max_is_no_limit(machine: Machine) -> None:
    machine.process(["0::/app"], [SECOND.format(top="/")])
    machine.group("app", memory__max="max", memory__current=GIB, cpu__max="max 100000")
    assert (available_memory(machine.root), processors(machine.root)) == (100 * GIB, 64)
    assert cgroups.memory_limits(machine.root) == cgroups.cpu_quotas(machine.root) == []


def test_every_group_above_has_a_say(machine: Machine) -> None:
    machine.process(["0::/pod/app/worker"], [SECOND.format(top="/")])
    machine.group("pod/app/worker", memory__max="max", memory__current=GIB, cpu__max="max 100000")
    machine.group("pod/app", memory__max=6 * GIB, memory__current=GIB, cpu__max="400000 100000")
    machine.group("pod", memory__max=20 * GIB, memory__current=18 * GIB, cpu__max="30000 20000")
    machine.group("other", memory__max=1, memory__current=0, cpu__max="1000 100000")
    assert total_memory(machine.root) == 6 * GIB
    assert available_memory(machine.root) == 2 * GIB  # the pod's other members use the rest
    assert processors(machine.root) == 2


def test_version_1(machine: Machine) -> None:
    mounts = [FIRST.format(top="/", name=name) for name in ("memory", "cpu,cpuacct", "cpuset")]
    machine.process(["9:name=systemd:/", "4:memory:/box/inner", "1:cpu,cpuacct:/box"], mounts)
    machine.group("memory", memory__limit_in_bytes=UNLIMITED, memory__usage_in_bytes=90 * GIB)
    machine.group("memory/box", memory__limit_in_bytes=4 * GIB, memory__usage_in_bytes=3 * GIB)
    machine.group("memory/box/inner", memory__limit_in_bytes=UNLIMITED, memory__usage_in_bytes=GIB)
    machine.group("memory/box", memory__stat=f"inactive_file 1\ntotal_inactive_file {GIB // 2}")
    machine.group("cpu,cpuacct/box", cpu__cfs_quota_us=50_000, cpu__cfs_period_us=100_000)
    machine.group("cpu,cpuacct", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100_000)
    assert total_memory(machine.root) == 4 * GIB
    assert available_memory(machine.root) == 3 * GIB // 2
    assert processors(machine.root) == 1


@pytest.mark.parametrize(
    ("top", "name"),
    [("/", "/"), ("/docker/abc", "/docker/abc"), ("/docker/abc", "/"), ("/", "/../../host"), ("/docker", "/dockers")],
    ids=["namespace", "no namespace", "mount of another", "outside", "alike"],
)
def test_in_a_container_the_mount_is_the_group(machine: Machine, top: str, name: str) -> None:
    machine.process([f"0::{name}"], [SECOND.format(top=top)])
    machine.group("", memory__max=GIB, memory__current=0, cpu__max="100000 100000")
    assert (available_memory(machine.root), processors(machine.root)) == (GIB, 1)


def test_a_group_that_is_over_its_limit_has_nothing_free(machine: Machine) -> None:
    machine.process(["0::/app"], [SECOND.format(top="/")])
    machine.group("app", memory__max=GIB, memory__current=2 * GIB)
    assert available_memory(machine.root) == 0


def test_blanks_in_a_mount_point(machine: Machine) -> None:
    machine.process(["0::/"], [SECOND.format(top="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/a\\040b")])
    machine.group("a b", memory__max=GIB, memory__current=0)
    assert available_memory(machine.root) == GIB


def test_affinity_and_quota_both_hold(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.process(["0::/app"], [SECOND.format(top="/")])
    machine.group("app", cpu__max="400000 100000")
    assert processors(machine.root) == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5})
    assert processors(machine.root) == 2
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS, Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert processors(machine.root) == 3


def test_the_engine_takes_what_it_may_use(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.process(["0::/app"], [SECOND.format(top="/")])
    machine.group("app", memory__max=8 * GIB, memory__current=GIB, cpu__max="600000 100000")
    for function in (available_memory, processors):
        monkeypatch.setattr(function, "__defaults__", (machine.root,))
    backend = OnnxRuntimeBackend()
    assert (backend.threads, backend.width, backend.free_memory()) == (6, 2, 7 * GIB)


def test_a_system_that_is_not_linux(machine: Machine) -> None:
    (machine.root / "proc" / "meminfo").unlink()
    psutil = pytest.importorskip("psutil")
    assert total_memory(machine.root) == psutil.virtual_memory().total
    assert 0 < available_memory(machine.root) < total_memory(machine.root)


def test_on_this_machine() -> None:
    assert 1 << 26 < available_memory() <= total_memory() < 1 << 50
    assert 1 <= processors() <= (os.cpu_count() or 1)
