"""`omni2-engine serve --ray`: starts Ray on this machine, or joins a cluster, and keeps the deployment up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from importlib.util import find_spec

import typer

from omni2_engine.errors import BackendError, SettingError

PROXY_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"  # read by Ray's proxies when they start
CALLBACK = "omni2_serve.ray_proxy:middlewares"
APPLICATION = "omni2"
LOOK = 0.2  # seconds between two looks at whether a signal has come, and whether the replicas have drained


def serve_with_ray(settings: Mapping[str, object], host: str, port: int) -> None:
    """Deploy, and wait for SIGINT or SIGTERM; then all replicas drain before Ray stops. A second signal skips the rest.

    Of a cluster that it joins it ends its own application alone: Serve goes on where it ran before, or where others
    have deployed to it meanwhile.

    Args:
        settings: fields of `ReplicaSettings`.
        host, port: where Ray's proxies listen.

    Raises:
        BackendError: Ray is not installed.
        SettingError: the cluster has an application of this name already.
    """
    if find_spec("ray") is None:
        raise BackendError("Ray is not installed", "install it with `pip install 'omni2-engine[ray]'`")
    os.environ.setdefault(PROXY_CALLBACK, CALLBACK)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no word leaves the machine unasked
    import ray
    from omni2_serve.ray import app
    from ray import serve

    ray.init(ignore_reinit_error=True, include_dashboard=False)
    before = serve.status()
    if APPLICATION in before.applications:
        raise SettingError(
            f"the cluster runs an application {APPLICATION} already",
            "end the command that began it, or deploy a new version of its file: docs/running.md",
        )
    began = not (before.proxies or before.applications)
    serve.start(http_options={"host": host, "port": port})
    serve.run(app(dict(settings)), name=APPLICATION, route_prefix="/")
    typer.echo(f"{settings['replicas']} replicas listen at http://{host}:{port}, Realtime at /v1/realtime")
    came: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: came.append(number))
    while not came:
        time.sleep(LOOK)
    serve.delete(APPLICATION, _blocking=False)  # `serve.shutdown` alone ends the proxies at once, and all answers
    while APPLICATION in serve.status().applications and len(came) < 2:
        time.sleep(LOOK)
    if began and serve.status().applications.keys() <= {APPLICATION}:
        serve.shutdown()
    ray.shutdown()
