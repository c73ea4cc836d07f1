"""The files that run a server: valid by the tools and schemas of the programs that read them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from omni2_engine.errors import SettingError
from omni2_serve.access import Access, split_keys

METRIC = re.compile(r"\b(omni2|process)_[a-z0-9_]+")
SUFFIXES = ("_bucket", "_count", "_sum")


@pytest.fixture(scope="module")
def deploy(repository: Path) -> Path:
    return repository / "serve" / "deploy"


def tool(name: str, *places: str) -> str:
    """A program, or a skip that says where to get it."""
    if (found := shutil.which(name, path=":".join((str(Path(sys.executable).parent), *places)) or None)) is None:
        found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def succeeds(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def queries(deploy: Path) -> Iterator[str]:
    """Every expression of the dashboard and of the alerts."""
    dashboard = json.loads((deploy / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for group in yaml.safe_load((deploy / "alerts.yml").read_text(encoding="utf-8"))["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def test_the_queries_name_metrics_that_the_server_has(deploy: Path) -> None:
    from omni2_serve.metrics import Metrics

    metrics = Metrics()
    offered = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    families = {family.name for family in metrics.registry.collect()}
    for query in queries(deploy):
        names = [match[0] for match in METRIC.finditer(query)]
        assert names, query
        for name in names:
            stem = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
            known = name in offered or stem in families or name.removesuffix("_total") in families
            assert known or not name.startswith("omni2"), f"{name} of {query}"


def test_the_dashboard_covers_what_is_to_be_watched(deploy: Path) -> None:
    text = "\n".join(queries(deploy))
    for name in ("first_sound", "gap", "sessions", "speculative", "memory", "waiting", "refused"):
        assert f"omni2_{name}" in text
    dashboard = json.loads((deploy / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    source = yaml.safe_load((deploy / "grafana" / "datasource.yaml").read_text(encoding="utf-8"))["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}


def test_prometheus_reads_its_files(deploy: Path, tmp_path: Path) -> None:
    promtool = tool("promtool")
    succeeds(promtool, "check", "rules", deploy / "alerts.yml")
    config = (deploy / "prometheus.yml").read_text(encoding="utf-8").replace("/prometheus/key", str(tmp_path / "key"))
    (tmp_path / "key").write_text("secret")
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(deploy / "alerts.yml", tmp_path)
    succeeds(promtool, "check", "config", tmp_path / "prometheus.yml")
    rules = {f"q{n}": query.replace("$__rate_interval", "1m") for n, query in enumerate(queries(deploy))}
    written = {"groups": [{"name": "q", "rules": [{"record": name, "expr": query} for name, query in rules.items()]}]}
    (tmp_path / "queries.yml").write_text(yaml.safe_dump(written))
    succeeds(promtool, "check", "rules", tmp_path / "queries.yml")


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_follow_their_schema(deploy: Path, name: str) -> None:
    succeeds(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", deploy / name)


def test_compose_names_files_that_are_there(deploy: Path) -> None:
    services: dict[str, Any] = yaml.safe_load((deploy / "compose.yaml").read_text(encoding="utf-8"))["services"]
    mounts = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    local = [mount for mount in mounts if mount.startswith("./")]
    assert len(local) == 5 and all((deploy / mount).is_file() for mount in local)


def test_kubernetes_objects_follow_their_schemas(deploy: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    objects = list(yaml.safe_load_all((deploy / "kubernetes.yaml").read_text(encoding="utf-8")))
    assert [found["kind"] for found in objects] == ["Deployment", "Service", "HorizontalPodAutoscaler"]
    for found in objects:
        validate.validate(found, validate.latest_version(), strict=True)
    pod = objects[0]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 60 + 10  # the server's draining and preStop


def test_the_file_for_ray_does_not_run_with_the_key_that_it_comes_with(deploy: Path) -> None:
    (application,) = yaml.safe_load((deploy / "ray.yaml").read_text(encoding="utf-8"))["applications"]
    with pytest.raises(SettingError, match="too short"):
        Access(split_keys(application["runtime_env"]["env_vars"]["OMNI2_API_KEY"]))


def test_the_dockerfile(repository: Path) -> None:
    succeeds(tool("hadolint"), repository / "Dockerfile")


def test_the_dockerfile_copies_what_the_package_is_made_of(repository: Path) -> None:
    text = (repository / "Dockerfile").read_text(encoding="utf-8")
    copied = set(re.findall(r"^COPY ([a-z]+) \1$", text, re.MULTILINE))
    project = (repository / "setup.py").read_text(encoding="utf-8") + (repository / "pyproject.toml").read_text()
    for folder in ("engine", "kernels", "export", "bench", "serve"):
        assert folder in copied and folder in project
    assert "cpp" in copied and "licenses" in copied


def test_caddy_reads_its_file(deploy: Path) -> None:
    succeeds(tool("caddy"), "validate", "--adapter", "caddyfile", "--config", deploy / "Caddyfile")
