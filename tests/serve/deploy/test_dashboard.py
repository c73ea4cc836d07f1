"""Grafana's panels: Prometheus itself has a value for every query of theirs while clients talk."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from urllib.parse import quote

from ...ports import free_port
from ..running import RunningServer
from .test_programs import fetch, program

ROUNDS = 2000  # of a conversation and a look at what is missing
EVERY, INTERVAL = "1s", "30s"  # between looks of Prometheus, and what rates are taken over


def test_every_panel_shows_a_value_under_load(server: RunningServer, repository: Path, tmp_path: Path) -> None:
    deploy, log = repository / "serve" / "deploy", tmp_path / "log"
    dashboard = json.loads((deploy / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    missing = {
        target["expr"]: panel["title"] for panel in dashboard["panels"] for target in panel["targets"]
    }  # query → panel
    job = {"job_name": "omni2", "static_configs": [{"targets": [server.address]}]}
    config = {"global": {"scrape_interval": EVERY}, "scrape_configs": [job]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # which is YAML, too
    address = f"127.0.0.1:{free_port()}"
    files = (f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'samples'}")

    async def talk() -> None:
        async with server.client() as client:
            assert (await client.ask("one", max_output_tokens=4))["status"] != "failed"

    def shows(query: str) -> bool:
        asked = quote(query.replace("$__rate_interval", INTERVAL))
        found = json.loads(fetch(f"http://{address}/api/v1/query?query={asked}", log))["data"]["result"]
        return any(math.isfinite(float(series["value"][1])) for series in found)

    with program("prometheus", *files, f"--web.listen-address={address}", log=log):
        for _ in range(ROUNDS):
            asyncio.run(talk())
            missing = {query: panel for query, panel in missing.items() if not shows(query)}
            if not missing:
                break
    assert missing == {}
