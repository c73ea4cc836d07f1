"""Runs `pip install` with a line for every package that is fetched and every file that is compiled.

    python tools/install.py -e '.[bench]'

Takes pip's arguments and needs nothing else. All that pip says is kept in build/install.log; its end is printed if the
installation fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "build" / "install.log"
TAIL = 40  # lines of it that a failure prints
FETCH = re.compile(r"\s*(?:Downloading|Using cached) (\S+?)-(\d[^-]*)-\S*(?: \((.*)\))?")
COMPILE = re.compile(r"\s.*\s-?[-/]c (\S+\.cpp)\b")
LINK = re.compile(r"\s.*\s[-/](?:shared|DLL|bundle)\b.*_core")
INSTALL = re.compile(r"\s*Installing collected packages: (.*)")


def main() -> int:
    """Install; the exit code is pip's."""
    LOG.parent.mkdir(exist_ok=True)
    quiet = ["--disable-pip-version-check", "--progress-bar", "off"]
    command = [sys.executable, "-m", "pip", "install", "--verbose", *quiet, *sys.argv[1:]]
    began = time.monotonic()
    with (
        LOG.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as pip,
    ):
        assert pip.stdout is not None
        for step in steps(kept(pip.stdout, log), sum(1 for _ in (ROOT / "cpp").rglob("*.cpp"))):
            print(f"  {time.monotonic() - began:4.0f} s  {step}", flush=True)
    if pip.returncode:
        print(*LOG.read_text(encoding="utf-8").splitlines()[-TAIL:], sep="\n", file=sys.stderr)
        print(f"error: the installation failed; {LOG.relative_to(ROOT)} has all of it", file=sys.stderr)
    return pip.returncode


def kept(lines: Iterable[str], log: TextIO) -> Iterator[str]:
    """The lines, each written to the log first."""
    for line in lines:
        log.write(line)
        yield line


def steps(lines: Iterable[str], units: int) -> Iterator[str]:
    """What a person wants to know of pip's output.

    Args:
        lines: what `pip install --verbose` says.
        units: files there are to compile.
    """
    compiled = 0
    for line in lines:
        if found := FETCH.match(line):
            name, version, size = found.groups()
            yield f"fetching {name} {version}" + (f" ({size})" if size else "")
        elif found := COMPILE.match(line):
            compiled += 1
            yield f"compiling {found[1]} ({compiled} of {units})"
        elif LINK.match(line):
            yield "linking the C++ extension"
        elif found := INSTALL.match(line):
            packages = len(found[1].split(","))
            yield f"unpacking {packages} package{'s' if packages > 1 else ''}"


if __name__ == "__main__":
    sys.exit(main())
