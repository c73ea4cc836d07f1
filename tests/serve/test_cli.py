"""`omni2-engine serve` as a process: who is let in, and how it starts and stops."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .client import connect

KEY = "0123456789abcdef"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "omni2_engine", "serve", *map(str, arguments)]


@contextmanager
def running(*arguments: str | Path, key: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address."""
    environment = os.environ | {"OMNI2_API_KEY": key}
    process = subprocess.Popen(
        command(*arguments, "--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        found = re.search(r"http://(\S+?),", process.stdout.readline())
        assert found is not None, process.stderr.read()
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def refused(*arguments: str | Path) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name != "OMNI2_API_KEY"}
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=environment)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_it_answers_and_stops_when_it_is_told(tiny_engine_dir: Path) -> None:
    async def ask(address: str) -> None:
        async with connect(address) as client:
            assert (await client.ask("one", max_output_tokens=2))["status"] != "failed"

    with running(tiny_engine_dir, "--threads", "1", "--typed-turns") as (process, address):
        asyncio.run(ask(address))
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
        assert process.returncode == 0
    assert "one" not in said.replace("done", "") and "session sess_" in said  # what was said is not logged


def test_beyond_this_machine_a_key_is_wanted(tiny_engine_dir: Path) -> None:
    code, said = refused(tiny_engine_dir, "--host", "0.0.0.0", "--port", "0")
    assert code == 2 and "OMNI2_API_KEY" in said and "--no-auth" in said

    async def ask(address: str) -> None:
        async with connect(address.replace("0.0.0.0", "127.0.0.1"), key=KEY):
            pass

    with running(tiny_engine_dir, "--threads", "1", "--host", "0.0.0.0", key=KEY) as (_, address):
        asyncio.run(ask(address))


def test_what_cannot_be_is_said_before_the_model_is_loaded(tiny_engine_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("short\n")
    for option, problem in (
        (("--api-key-file", tmp_path / "keys"), "too short"),
        (("--certificate", tmp_path / "keys"), "comes with its key"),
        (("--order", "fifo"), "order is 'fifo'"),
        (("--ray", "--order", "arrival"), "does not go with --ray"),
    ):
        code, said = refused(tiny_engine_dir, "--port", "0", *option)
        assert code == 2 and problem in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = refused(tmp_path / "no engine", "--port", str(taken.getsockname()[1]))
        assert code == 2 and "cannot be used" in said
    code, said = refused(tmp_path / "no engine", "--port", "0", "--smart-turn", tmp_path / "keys")
    assert code == 1 and "keys cannot be run" in said
    assert refused(tmp_path / "no engine", "--port", "0")[0] == 1


@pytest.mark.parametrize("line", ["", "  \n\n"])
def test_a_file_without_a_key_is_refused(tiny_engine_dir: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "keys").write_text(line)
    code, said = refused(tiny_engine_dir, "--port", "0", "--api-key-file", tmp_path / "keys")
    assert code == 2 and "holds no key" in said
