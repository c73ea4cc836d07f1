"""`tools/install_clients.py`: when it installs again, and what it takes for a lack of network."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

# as pip 23.2 and npm 10 say it
PIP_RETRIES = (
    "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken "
    "by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPConnection object at 0x7f5222974d50>: Failed to "
    "establish a new connection: [Errno 111] Connection refused')': /simple/openai/\n"
)
PIP_UNREACHED = (
    "ERROR: Could not find a version that satisfies the requirement openai (from versions: none)\n"
    "ERROR: No matching distribution found for openai\n"
)
PIP_TOO_OLD = (
    "ERROR: Could not find a version that satisfies the requirement openai>=9 (from versions: 2.0.0, 2.1.0)\n"
    "ERROR: No matching distribution found for openai>=9\n"
)
PIP_DOWNLOAD = (
    "ERROR: Could not install packages due to an OSError: HTTPSConnectionPool(host='files.pythonhosted.org', port=443)"
    ": Max retries exceeded with url: /packages/x (Caused by NewConnectionError('<…>: Failed to establish a new "
    "connection: [Errno 111] Connection refused'))\n"
)
PIP_COMPILE = "  error: subprocess-exited-with-error\n  gcc: fatal error\nERROR: Failed building wheel for av\n"
NPM_UNREACHED = (
    "npm notice PING http://127.0.0.1:9/\nnpm error code ECONNREFUSED\nnpm error syscall connect\n"
    "npm error FetchError: request to http://127.0.0.1:9/-/ping failed, reason: connect ECONNREFUSED 127.0.0.1:9\n"
)
NPM_CONFLICT = (
    "npm warn network request to https://registry.npmjs.org/zod failed, reason: getaddrinfo EAI_AGAIN, trying again\n"
    "npm error code ERESOLVE\nnpm error ERESOLVE unable to resolve dependency tree\n"
)


@pytest.fixture(scope="module")
def tool(repository: Path) -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("install_clients", repository / "tools" / "install_clients.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def failing(said: str) -> list[str]:
    return [sys.executable, "-c", "import sys; sys.stdout.reconfigure(encoding='utf-8'); sys.exit(sys.argv[1])", said]


@pytest.mark.parametrize(
    "said", [PIP_RETRIES + PIP_UNREACHED, PIP_DOWNLOAD, NPM_UNREACHED], ids=["pip's index", "pip's file", "npm"]
)
def test_a_registry_that_is_not_reached(tool: Any, said: str) -> None:
    with pytest.raises(tool.Unreached):
        tool.run(failing(said))


@pytest.mark.parametrize(
    "said",
    [PIP_UNREACHED, PIP_RETRIES + PIP_TOO_OLD, PIP_RETRIES + PIP_COMPILE, NPM_CONFLICT],
    ids=["no such package", "no such version", "a compiler", "a conflict"],
)
def test_a_failure_after_an_attempt_that_was_repeated(tool: Any, said: str) -> None:
    with pytest.raises(RuntimeError, match=said.splitlines()[-1].split()[-1]):
        tool.run(failing(said))


def test_what_drives_browsers_is_installed_into_each_environment(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and anew where the environment was made anew."""
    installed: list[list[str]] = []
    monkeypatch.setattr(tool, "run", installed.append)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(sys, "prefix", str(tmp_path / name))
        assert tool.drivers().ensure() == "page is installed"
        assert tool.drivers().ensure() == ""
    assert len(installed) == 2
