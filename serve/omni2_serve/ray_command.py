"""`omni2-engine serve --ray`: starts Ray on this machine, or joins a cluster, and keeps the deployment up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import typer

from omni2_engine.errors import BackendError

PROXY_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"  # read by Ray's proxies when they start
CALLBACK = "omni2_serve.ray_proxy:middlewares"


def serve_with_ray(settings: Mapping[str, object], host: str, port: int) -> None:
    """Deploy, and wait for SIGINT or SIGTERM; then conversations end by themselves before Ray stops.

    Args:
        settings: fields of `ReplicaSettings`.
        host, port: where Ray's proxies listen.

    Raises:
        BackendError: Ray is not installed.
    """
    if find_spec("ray") is None:
        raise BackendError("Ray is not installed", "install it with `pip install 'omni2-engine[ray]'`")
    os.environ.setdefault(PROXY_CALLBACK, CALLBACK)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no word leaves the machine unasked
    import ray
    from omni2_serve.ray import ReplicaSettings, app
    from ray import serve

    ray.init(ignore_reinit_error=True, include_dashboard=False)
    serve.start(http_options={"host": host, "port": port})
    serve.run(app(ReplicaSettings.model_validate(settings)), route_prefix="/")
    typer.echo(f"{settings['replicas']} replicas listen at http://{host}:{port}, Realtime at /v1/realtime")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
    ends: list[Callable[[], None]] = [serve.shutdown, ray.shutdown]
    for end in ends:
        end()
