"""Prometheus, nginx and Caddy themselves, with the files they are given, before a server."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from omni2_serve.access import Access

from ...ports import free_port
from ...waiting import SOON
from ..client import check
from ..running import RunningServer

KEY = "a key of the test's own"


@pytest.fixture
def guarded(new_server: Any) -> RunningServer:
    """A server that wants a key."""
    return new_server(access=Access([KEY]))


@contextmanager
def program(*command: object, log: Path) -> Iterator[None]:
    """A program that runs meanwhile."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    with log.open("w") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            process.wait(SOON)


def fetch(url: str, log: Path, context: ssl.SSLContext | None = None) -> bytes:
    """What an address says once it can be reached."""
    end = time.monotonic() + SOON
    while time.monotonic() < end:
        try:
            with urlopen(Request(url), timeout=SOON, context=context) as answer:
                content: bytes = answer.read()
                return content
        except (URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_prometheus_reads_the_server(guarded: RunningServer, repository: Path, tmp_path: Path) -> None:
    deploy, log = repository / "serve" / "deploy", tmp_path / "log"
    (tmp_path / "key").write_text(KEY)
    config = (deploy / "prometheus.yml").read_text(encoding="utf-8").replace("/prometheus/key", str(tmp_path / "key"))
    (tmp_path / "prometheus.yml").write_text(config.replace("server:8000", guarded.address).replace("5s", "1s"))
    shutil.copy(deploy / "alerts.yml", tmp_path)
    address = f"127.0.0.1:{free_port()}"
    files = (f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'samples'}")
    with program("prometheus", *files, f"--web.listen-address={address}", log=log):

        def value(query: str) -> float | None:
            found = json.loads(fetch(f"http://{address}/api/v1/query?query={quote(query)}", log))["data"]["result"]
            return float(found[0]["value"][1]) if found else None

        while value('up{job="omni2"}') != 1:
            time.sleep(0.1)
        for name in ("omni2_sessions", "omni2_waiting_turns", "omni2_memory_bytes", "omni2_first_sound_seconds_count"):
            while value(name) is None:
                time.sleep(0.1)
        rules = json.loads(fetch(f"http://{address}/api/v1/rules", log))["data"]["groups"][0]["rules"]
        assert len(rules) == 4 and all(rule["health"] != "err" for rule in rules)


async def converse(address: str, context: ssl.SSLContext | None = None) -> None:
    """A session and an event through a proxy, and a refusal without a key."""
    url, name = f"{'wss' if context else 'ws'}://{address}/v1/realtime?model=x", "talk.example.com"
    options: dict[str, Any] = {"open_timeout": SOON, "ping_interval": None}
    options |= {"ssl": context, "server_hostname": name} if context else {}
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, **options)
    assert refused.value.response.status_code == 401
    async with connect(url, additional_headers={"Authorization": f"Bearer {KEY}"}, **options) as client:
        created = json.loads(await client.recv())
        assert created["type"] == "session.created"
        check(created)
        await client.send("rubbish")
        assert json.loads(await client.recv())["type"] == "error"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of talk.example.com, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "certificate.pem", folder / "key.pem"
    subject = ("-subj", "/CN=talk.example.com", "-addext", "subjectAltName=DNS:talk.example.com")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    return made, key


def test_nginx_passes_conversations(
    guarded: RunningServer, repository: Path, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    made, key = certificate
    port, log = free_port(), tmp_path / "log"
    site = (repository / "serve" / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    site = site.replace("127.0.0.1:8000", guarded.address).replace("listen 8443 ssl", f"listen 127.0.0.1:{port} ssl")
    site = re.sub(r"(ssl_certificate) +\S+;", rf"\1 {made};", site)
    site = re.sub(r"(ssl_certificate_key) +\S+;", rf"\1 {key};", site)
    places = " ".join(f"{kind}_temp_path {tmp_path};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    main = (
        f"daemon off; pid {tmp_path / 'pid'}; error_log stderr; events {{}} http {{ access_log off; {places} {site} }}"
    )
    (tmp_path / "nginx.conf").write_text(main)
    context = ssl.create_default_context(cafile=str(made))
    with program("nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf", log=log):
        plain = ssl.create_default_context()
        plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
        assert json.loads(fetch(f"https://127.0.0.1:{port}/healthz", log, plain))["status"] == "ok"
        asyncio.run(converse(f"127.0.0.1:{port}", context))


def test_caddy_passes_conversations(guarded: RunningServer, repository: Path, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    site = (repository / "serve" / "deploy" / "Caddyfile").read_text(encoding="utf-8")
    site = site.replace("talk.example.com {", f"http://127.0.0.1:{port} {{").replace("127.0.0.1:8000", guarded.address)
    (tmp_path / "Caddyfile").write_text("{\n\tadmin off\n}\n" + site)
    with program("caddy", "run", "--adapter", "caddyfile", "--config", tmp_path / "Caddyfile", log=log):
        assert json.loads(fetch(f"http://127.0.0.1:{port}/healthz", log))["status"] == "ok"
        asyncio.run(converse(f"127.0.0.1:{port}"))
