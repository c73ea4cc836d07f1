"""Limits of this process's control groups, version 1 and 2: memory and processor time. Nothing outside Linux.

A group's limit holds for all groups below it, so every directory from the process's own up to the root of the mounted
hierarchy has a say. In a container that root is often the container's own group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def memory_limits(root: Path = ROOT) -> list[int]:
    """Bytes that each group with a limit may hold.

    Args:
        root: where `proc` and `sys` are.
    """
    return [limit for limit, _ in _memory(root)]


def free_memory(root: Path = ROOT) -> list[int]:
    """Bytes that each group with a limit can still get. Files it has read and no longer needs do not count as used:
    the system drops them first. `root` as in `memory_limits`."""
    return [max(limit - used, 0) for limit, used in _memory(root)]


def cpu_quotas(root: Path = ROOT) -> list[float]:
    """Processors' worth of time of each group with a quota. `root` as in `memory_limits`."""
    quotas = []
    for group in _groups(root, "cpu"):
        if (group / "cpu.max").is_file():  # version 2: "200000 100000", or "max 100000"
            quota, period = _words(group / "cpu.max")
        else:
            quota, period = (" ".join(_words(group / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:  # -1, max: no quota
            quotas.append(int(quota) / int(period))
    return quotas


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) of every group with a limit, bytes."""
    for group in _groups(root, "memory"):
        second = (group / "memory.max").is_file()
        limit, used, dropped = (
            ("memory.max", "memory.current", "inactive_file")
            if second
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        bound = "".join(_words(group / limit))
        if bound.isdecimal():  # else max, or no such file: the root has none
            statistics = _words(group / "memory.stat")
            files = dict(zip(statistics[::2], statistics[1::2], strict=False)).get(dropped, "0")
            yield int(bound), max(_number(group / used) - int(files), 0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Directories of the groups this process is in, its own first, in every hierarchy that may have a controller."""
    memberships = {}  # controller, "" for version 2 → the group's name
    for line in _lines(root / "proc/self/cgroup"):  # "4:memory:/name", "1:cpu,cpuacct:/name", "0::/name"
        _, controllers, name = line.split(":", 2)
        memberships.update(dict.fromkeys(controllers.split(","), name))
    for line in _lines(root / "proc/self/mountinfo"):  # see proc_pid_mountinfo(5)
        before, _, after = line.partition(" - ")
        top, mount = map(_unescaped, before.split()[3:5])
        kind, _, options = after.split(maxsplit=2)
        key = {"cgroup2": "", "cgroup": controller}.get(kind)
        if key in memberships and (kind == "cgroup2" or controller in options.split(",")):
            yield from _upwards(root / mount.lstrip("/"), top, memberships[key])


def _upwards(mount: Path, top: str, name: str) -> Iterator[Path]:
    """A group's directory and those above it, up to where its hierarchy is mounted.

    Args:
        mount: where that is.
        top: name of the group that is mounted there.
        name: of the group; from another namespace (a container's) it need not lie below `top`.
    """
    path = PurePosixPath(name)
    below = path.relative_to(top) if path.is_relative_to(top) else PurePosixPath()
    if ".." in below.parts:
        below = PurePosixPath()
    for part in (below, *below.parents):
        yield mount / part


def _unescaped(field: str) -> str:
    """A path of mountinfo, where blanks are written as octal numbers."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _number(path: Path) -> int:
    word = "".join(_words(path))
    return int(word) if word.isdecimal() else 0
