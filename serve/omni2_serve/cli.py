"""`omni2-engine serve`: a server for live speech."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from omni2_engine.cli.require import require
from omni2_engine.errors import SettingError
from omni2_serve.log import write_log

if TYPE_CHECKING:
    from omni2_engine.schedule.threaded import Order
    from omni2_engine.turn.options import Chunks
    from omni2_serve.recogniser.process import RecogniserProcess

KEY_VARIABLE = "OMNI2_API_KEY"
WHO, WHAT, MACHINE, RAY = "Who may come in", "What it does", "Machine and memory", "Several processes"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command()
    def serve(
        engine: Annotated[Path, typer.Argument(help="engine directory")],
        host: Annotated[str, typer.Option(help="address to listen at")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="0 for any that is free", min=0, max=65_535)] = 8000,
        sessions: Annotated[int, typer.Option(help="conversations at once", min=1, max=256)] = 4,
        api_key_file: Annotated[
            Path | None,
            typer.Option(help=f"a key a line; or one in the variable {KEY_VARIABLE}", rich_help_panel=WHO),
        ] = None,
        no_auth: Annotated[
            bool,
            typer.Option(
                "--no-auth", help="let clients in without a key, also beyond this machine", rich_help_panel=WHO
            ),
        ] = False,
        allow_origin: Annotated[
            list[str] | None,
            typer.Option(help="a page that may use it, such as https://example.org", rich_help_panel=WHO),
        ] = None,
        certificate: Annotated[
            Path | None, typer.Option(help="PEM file, for https and wss", rich_help_panel=WHO)
        ] = None,
        certificate_key: Annotated[Path | None, typer.Option(help="of the certificate", rich_help_panel=WHO)] = None,
        typed_turns: Annotated[
            bool | None,
            typer.Option("--typed-turns", help="typed turns even if the model was taught none", rich_help_panel=WHAT),
        ] = None,
        history_turns: Annotated[
            int | None,
            typer.Option(help="earlier turns that count; the model's own if not given", rich_help_panel=WHAT),
        ] = None,
        speculate: Annotated[
            bool, typer.Option(help="begin an answer when a speaker may be done", rich_help_panel=WHAT)
        ] = True,
        seed: Annotated[int, typer.Option(help="one seed, one answer", rich_help_panel=WHAT)] = 0,
        chunks: Annotated[
            str,
            typer.Option(help="growing costs less, fixed gives the same samples at any load", rich_help_panel=WHAT),
        ] = "growing",
        recogniser: Annotated[
            str | None,
            typer.Option(help="folder or name of a Whisper model that writes down what is said", rich_help_panel=WHAT),
        ] = None,
        smart_turn: Annotated[
            Path | None,
            typer.Option(help="smart-turn-v3 ONNX file, for semantic_vad", rich_help_panel=WHAT),
        ] = None,
        order: Annotated[
            str,
            typer.Option(help="deadline, or arrival to measure what deadlines are worth", rich_help_panel=MACHINE),
        ] = "deadline",
        device: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt", rich_help_panel=MACHINE)] = "auto",
        threads: Annotated[int | None, typer.Option(help="processor threads", rich_help_panel=MACHINE)] = None,
        max_context: Annotated[
            int, typer.Option(help="positions of a conversation's KV cache", rich_help_panel=MACHINE)
        ] = 4096,
        left_context: Annotated[
            float, typer.Option(help="seconds of its own sound the flow looks back on", rich_help_panel=MACHINE)
        ] = 30.0,
        drain: Annotated[
            float, typer.Option(help="seconds that answers get to finish when it is stopped", rich_help_panel=MACHINE)
        ] = 60.0,
        ray: Annotated[
            bool, typer.Option("--ray", help="run replicas of the server under Ray Serve", rich_help_panel=RAY)
        ] = False,
        replicas: Annotated[int, typer.Option(help="processes at least", min=1, rich_help_panel=RAY)] = 1,
        most_replicas: Annotated[
            int, typer.Option(help="processes where conversations fill them", min=0, rich_help_panel=RAY)
        ] = 0,
        gpus: Annotated[float, typer.Option(help="GPUs of a replica", min=0, rich_help_panel=RAY)] = 0.0,
    ) -> None:
        """Talk with clients of OpenAI's Realtime interface: ws://HOST:PORT/v1/realtime.

        It listens on this machine alone unless told otherwise. Beyond it an API key is wanted:

        ```
        omni2-engine serve ENGINE
        OMNI2_API_KEY=$(openssl rand -hex 24) omni2-engine serve ENGINE --host 0.0.0.0
        ```
        """
        require("serve", "prometheus_client", "starlette", "uvicorn", "websockets")
        write_log()
        from omni2_engine import Engine, Options, SmartTurn
        from omni2_serve.access import LOOPBACK, Access, host_name
        from omni2_serve.app import make_app
        from omni2_serve.collection import leave_out_what_is_loaded
        from omni2_serve.engine_host import engine_host
        from omni2_serve.limits import ServiceLimits
        from omni2_serve.server import DrainingServer, bound
        from omni2_serve.service import Service

        chosen = Options(chunks=cast("Chunks", chunks)).chunks  # another word is refused before the model is loaded
        keys, local = _keys(api_key_file), _is_local(host)
        if not (local or keys or no_auth):
            raise SettingError(
                f"{host} can be reached from other machines, and there is no API key",
                f"set {KEY_VARIABLE}, or use --no-auth to let all clients in",
            )
        if (certificate is None) != (certificate_key is None):
            raise SettingError("a certificate comes with its key", "give --certificate and --certificate-key")
        if recogniser is not None:
            require("recogniser", "faster_whisper")
        if ray:
            _refuse_with_ray(certificate=certificate, api_key_file=api_key_file, allow_origin=allow_origin)
            if order != "deadline":
                raise SettingError("--order does not go with --ray", "measure it on a single server")
            if recogniser is not None:
                raise SettingError("--recogniser does not go with --ray", "leave it out, or run servers without Ray")
            from omni2_serve.ray_command import serve_with_ray

            settings = {
                "engine": engine.resolve(),
                "sessions": sessions,
                "replicas": replicas,
                "most_replicas": most_replicas,
                "device": device,
                "gpus": gpus,
                "cpus": threads or 1,
                "typed_turns": typed_turns,
                "history_turns": history_turns,
                "speculate": speculate,
                "seed": seed,
                "chunks": chunks,
                "smart_turn": smart_turn and smart_turn.resolve(),
                "max_context": max_context,
                "left_context": left_context,
                "drain": drain,
                "no_auth": no_auth,
            }
            serve_with_ray(settings, host, port)
            return
        origins = frozenset(origin.rstrip("/") for origin in allow_origin or ())
        names = LOOPBACK | {host_name(origin.partition("://")[2]) for origin in origins} if local else None
        access = Access([] if no_auth else keys, names, origins)
        sentence_end = None if smart_turn is None else SmartTurn(smart_turn)
        listening = bound(host, port)  # before the model is loaded, which takes its time
        with ExitStack() as held:
            writes = held.enter_context(_recogniser(recogniser))
            loaded = Engine.load(
                engine,
                sessions=sessions,
                device=device,
                threads=threads,
                max_context=max_context,
                left_context=left_context,
                order=cast("Order", order),
            )
            held.enter_context(loaded)
            model = engine_host(
                loaded,
                typed_turns=typed_turns,
                history_turns=history_turns,
                speculate=speculate,
                sentence_end=sentence_end,
                seed=seed,
                chunks=chosen,
            )
            limits = ServiceLimits(sessions=sessions, requests=sessions, drain=drain)
            service = Service(model, limits, access, recogniser=writes)
            ssl = (str(certificate), str(certificate_key)) if certificate is not None else None
            server = DrainingServer(make_app(service), service, ssl)
            leave_out_what_is_loaded()
            address = f"{host if ':' not in host else f'[{host}]'}:{listening.getsockname()[1]}"
            listening.listen()  # from now on a client is kept waiting, and not refused
            typer.echo(f"{model.name} listens at http{'s' if ssl else ''}://{address}, Realtime at /v1/realtime")
            asyncio.run(server.serve([listening]))


@contextmanager
def _recogniser(model: str | None) -> Iterator[RecogniserProcess | None]:
    """The recogniser while the server runs; None where none is wanted."""
    if model is None:
        yield None
        return
    from omni2_serve.recogniser.process import RecogniserProcess

    with closing(RecogniserProcess(model)) as process:
        yield process


def _refuse_with_ray(**given: object) -> None:
    """Options that a proxy before Ray has to see to.

    Raises:
        SettingError: one is given.
    """
    for name, value in given.items():
        if value is not None:
            option = "--" + name.replace("_", "-")
            use = f"set {KEY_VARIABLE}, and let a proxy before Ray do the rest: docs/running.md"
            raise SettingError(f"{option} does not go with --ray", use)


def _keys(path: Path | None) -> list[str]:
    """The API keys that were given."""
    keys = [os.environ[KEY_VARIABLE]] if os.environ.get(KEY_VARIABLE) else []
    if path is not None:
        keys += [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not keys:
            raise SettingError(f"{path} holds no key", "put one on each line")
    return keys


def _is_local(host: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
