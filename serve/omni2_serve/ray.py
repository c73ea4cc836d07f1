"""Several servers under Ray Serve: `omni2-engine serve ENGINE --ray`, or `serve run omni2_serve.ray:app engine=ENGINE`.

A replica is one process with one engine, of one GPU or of some processor cores. A conversation is a WebSocket, which
stays with its replica to its end.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from starlette.applications import Starlette

from omni2_engine import Engine, SmartTurn
from omni2_engine.errors import BackendError
from omni2_engine.turn.options import Chunks
from omni2_serve.access import LOOPBACK, Access, split_keys
from omni2_serve.app import make_app
from omni2_serve.collection import leave_out_what_is_loaded
from omni2_serve.engine_host import engine_host
from omni2_serve.limits import ServiceLimits
from omni2_serve.log import write_log
from omni2_serve.ray_stopping import follow
from omni2_serve.service import Service
from ray import serve

KEY_VARIABLE = "OMNI2_API_KEY"
SPARE = 16  # requests a replica takes beyond its conversations, so that it can refuse them itself, at once
STUCK = 120.0  # seconds without a first sound, after which a replica counts as broken
LAST_WORDS = 5.0  # seconds beyond `drain` for connections to close
ROUTER: Any = "omni2_serve.ray_router:FewestConversations"


class ReplicaSettings(BaseModel):
    """What `serve run` takes as arguments, and a Ray configuration file under `args`.

    Args:
        engine: engine directory, at the same place on every machine.
        sessions: conversations of one replica.
        replicas: of them at first, and at least.
        most_replicas: where conversations fill them; `replicas` if it is less.
        upscale_delay: seconds for which conversations have to fill three quarters of the places before a replica more
            comes.
        downscale_delay: seconds for which a replica less would do, before one goes.
        surge: per cent of the replicas that an upgrade may start before it stops old ones, rounded up. 0 stops old
            ones first: where no GPU is left for a new one beside them.
        device: "auto", "cpu", "cuda" or "tensorrt".
        gpus: that Ray reserves for a replica: 1 for a GPU of its own, 0 for none, shares for several on one.
        cpus: processor cores that Ray reserves for a replica; its threads on the CPU.
        typed_turns, history_turns, speculate, seed, chunks, smart_turn: as of `omni2-engine serve`; the file of the
            last at the same place on every machine.
        max_context, left_context: see `Engine.load`.
        length: seconds of a conversation at most.
        drain: seconds that a replica which is to stop waits for answers to end.
        no_auth: let clients in without a key from other machines too. Without it, and without keys, a server answers
            only under the names of this machine.
    """

    model_config = ConfigDict(extra="forbid")

    engine: Path
    sessions: int = Field(4, ge=1)
    replicas: int = Field(1, ge=1)
    most_replicas: int = Field(0, ge=0)
    upscale_delay: float = Field(5.0, ge=0)
    downscale_delay: float = Field(600.0, ge=0)
    surge: int = Field(100, ge=0, le=100)
    device: str = "auto"
    gpus: float = Field(0.0, ge=0)
    cpus: int = Field(1, ge=1)
    typed_turns: bool | None = None
    history_turns: int | None = None
    speculate: bool = True
    seed: int = 0
    chunks: Chunks = "growing"
    smart_turn: Path | None = None
    max_context: int = 4096
    left_context: float = 30.0
    length: float = Field(3600.0, gt=0)
    drain: float = Field(60.0, ge=0)
    no_auth: bool = False


@serve.ingress()
class Replica:
    """One process: an engine and the application of `omni2-engine serve` over it.

    Args:
        settings: see `ReplicaSettings`.
        keys: API keys, one of which clients have to send; empty for none.
    """

    def __init__(self, settings: ReplicaSettings, keys: list[str]) -> None:
        write_log()
        self._engine = Engine.load(
            settings.engine,
            sessions=settings.sessions,
            device=settings.device,
            threads=settings.cpus,
            max_context=settings.max_context,
            left_context=settings.left_context,
        )
        host = engine_host(
            self._engine,
            typed_turns=settings.typed_turns,
            history_turns=settings.history_turns,
            speculate=settings.speculate,
            sentence_end=None if settings.smart_turn is None else SmartTurn(settings.smart_turn),
            seed=settings.seed,
            chunks=settings.chunks,
        )
        limits = ServiceLimits(sessions=settings.sessions, requests=settings.sessions, length=settings.length)
        names = None if keys or settings.no_auth else LOOPBACK
        self._service = Service(host, limits, Access(keys, names))

    def __serve_build_asgi_app__(self) -> Starlette:
        """The application, once the engine is warm; in the event loop of its requests."""
        self._stopping = follow(self._service.draining)
        app = make_app(self._service, replicated=True)
        leave_out_what_is_loaded()
        return app

    def check_health(self) -> None:
        """Asked by Ray every few seconds; a replica that raises three times is stopped, and another takes its place.

        Raises:
            BackendError: the device is lost, or no sound has come of a turn for two minutes.
        """
        self._engine.backend.free_memory()  # raises what is wrong with the device
        if (waited := self._engine.longest_wait) > STUCK:
            raise BackendError(f"a turn has waited {waited:.0f} s for its first sound", "the replica is replaced")


def app(arguments: dict[str, Any]) -> Application:
    """The deployment, for `serve run`, Ray's configuration files, and `omni2-engine serve --ray`.

    API keys come from the variable OMNI2_API_KEY, one or several with commas.

    Args:
        arguments: fields of `ReplicaSettings`. Ray would make the object itself, but of annotations that are classes,
            which ours are not until they are asked for.

    Raises:
        ValidationError: one is missing, unknown or out of bounds.
        SettingError: a key is too short.
    """
    settings = ReplicaSettings.model_validate(arguments)
    keys = [] if settings.no_auth else split_keys(os.environ.get(KEY_VARIABLE, ""))
    Access(keys)  # refuses here what every replica would, once it is started
    most = max(settings.replicas, settings.most_replicas)
    scaling = AutoscalingConfig(
        min_replicas=settings.replicas,
        max_replicas=most,
        initial_replicas=settings.replicas,
        target_ongoing_requests=0.75 * settings.sessions,
        upscale_delay_s=settings.upscale_delay,
        downscale_delay_s=settings.downscale_delay,
    )
    deployment: Any = serve.deployment(
        Replica,
        name="omni2",
        max_ongoing_requests=settings.sessions + SPARE,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        health_check_period_s=5.0,
        graceful_shutdown_timeout_s=settings.drain + LAST_WORDS,
        max_surge_percent=settings.surge,
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
        **({"autoscaling_config": scaling} if most > settings.replicas else {"num_replicas": settings.replicas}),
    )
    bound: Application = deployment.bind(settings, keys)
    return bound
