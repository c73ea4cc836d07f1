"""Installs what `make test-clients` runs, into `build/clients`: clients from PyPI and npm, and what drives a browser.

    python tools/install_clients.py PYTHON

`PYTHON` makes the environments, one for each client from PyPI. What is installed already is left as it is until its
requirements change. What cannot be had here, for lack of npm or of the network, is left out in one line, and its tests
are skipped; any other failure is one.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "clients"
TESTS = ROOT / "tests"
PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
NPM = ["npm", "install", "--loglevel=error", "--no-audit", "--no-fund"]
NPM_PING = ["npm", "ping", "--fetch-retries=0"]  # without network `npm install` itself takes very long to give up
# What pip and npm say where a registry is not reached
NO_NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeoutError|NameResolutionError|EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ETIMEDOUT"
)
FAILURE = re.compile(r"\s*(?:ERROR:|npm error|npm ERR!)")  # how they begin to say why they fail
FOUND_NOTHING = "(from versions: none)"  # pip's failure at an index that it has not reached; the line before says why
TAIL = 15  # lines that a failure prints


class Unreached(Exception):
    """A registry is not reached from here."""


@dataclass(frozen=True)
class Part:
    """One thing to install.

    Args:
        name: of its stamp, which says that it is there.
        requirements: the file that says what it is.
        install: does it; raises `Unreached`, or a `RuntimeError` with what was said.
        folder: of its stamp, removed no later than what is installed.
    """

    name: str
    requirements: Path
    install: Callable[[], None]
    folder: Path = HOME

    @property
    def stamp(self) -> Path:
        return self.folder / f"{self.name}.stamp"

    def ensure(self) -> str:
        """Install it unless it is there; returns what there is to say."""
        wanted = self.requirements.read_text(encoding="utf-8")
        if self.stamp.exists() and self.stamp.read_text(encoding="utf-8") == wanted:
            return ""
        self.stamp.unlink(missing_ok=True)
        try:
            self.install()
        except Unreached as unreached:
            return f"{self.name} is left out, its tests are skipped: {unreached}"
        self.stamp.write_text(wanted, encoding="utf-8")
        return f"{self.name} is installed"


def from_pypi(name: str, python: str) -> Part:
    """A client in an environment of its own."""
    requirements, home = TESTS / "clients" / f"{name}.txt", HOME / name

    def install() -> None:
        shutil.rmtree(home, ignore_errors=True)
        run([python, "-m", "venv", str(home)])
        run([str(home / "bin" / "python"), *PIP, "-r", str(requirements)])

    return Part(name, requirements, install)


def from_npm() -> Part:
    """The packages of tests/clients/package.json."""
    requirements, home = TESTS / "clients" / "package.json", HOME / "agents"

    def install() -> None:
        if shutil.which("npm") is None:
            raise Unreached("npm is not installed")
        with contextlib.suppress(RuntimeError):  # not every registry answers it
            run(NPM_PING)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        shutil.copy(requirements, home)
        run(NPM, home)

    return Part("agents", requirements, install)


def drivers() -> Part:
    """What drives the browsers that are installed; into the environment that runs the tests."""
    requirements = TESTS / "page" / "requirements.txt"
    install = [sys.executable, *PIP, "-r", str(requirements)]
    return Part("page", requirements, lambda: run(install), Path(sys.prefix))


def run(command: list[str], folder: Path = ROOT) -> None:
    """Run a command.

    Raises:
        Unreached: it failed as it does without network.
        RuntimeError: it failed otherwise.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode == 0:
        return
    if is_unreached(done.stdout):
        raise Unreached("its registry is not reached from here")
    raise RuntimeError("\n".join([" ".join(command), *done.stdout.splitlines()[-TAIL:]]))


def is_unreached(said: str) -> bool:
    """Whether what failed is the way to the registry; an attempt that was repeated is no failure.

    Args:
        said: all that pip or npm printed.
    """
    lines = said.splitlines()
    if any(NO_NETWORK.search(line) for line in lines if FAILURE.match(line)):
        return True
    return any(FOUND_NOTHING in line and NO_NETWORK.search(before) for before, line in pairwise(lines))


def main() -> int:
    """Install all; the exit code is 1 where something failed that is not the network."""
    HOME.mkdir(parents=True, exist_ok=True)
    (python,) = sys.argv[1:]
    parts = [*(from_pypi(name, python) for name in ("openai", "pipecat", "livekit")), from_npm(), drivers()]
    failed = 0
    with ThreadPoolExecutor() as pool:
        for part, installing in [(part, pool.submit(part.ensure)) for part in parts]:
            try:
                said = installing.result()
            except RuntimeError as error:
                said, failed = f"error: {part.name} could not be installed\n{error}", 1
            if said:
                print(f"  {said}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
