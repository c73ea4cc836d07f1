"""`omni2-engine stream`: one question answered; text as it comes, a line per chunk, a WAV or raw PCM."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from omni2_engine.audio.sink import STDOUT, open_writer
from omni2_engine.backends.select import Device
from omni2_engine.cli.question import check_order, open_question, raw_format
from omni2_engine.cli.stream_report import StreamReport
from omni2_engine.engine import MAX_CONTEXT, Engine
from omni2_engine.errors import SettingError
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.sampling import Sampling
from omni2_engine.stages.flow import LEFT_CONTEXT
from omni2_engine.turn.options import LAST_WRITE, MAX_NEW_TOKENS, SPEECH_SAMPLING, Chunks, OnLong, Options

QUESTION, ANSWER, SAMPLING, MACHINE, SHOWN = "Question", "Answer", "Sampling", "Machine and memory", "What is shown"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command()
    def stream(
        engine: Annotated[Path, typer.Argument(help="engine directory")],
        audio: Annotated[
            str | None, typer.Argument(help="the question: any audio file, or - for standard input")
        ] = None,
        output: Annotated[
            str, typer.Option("--output", "-o", help="WAV to write; - for raw s16le as it is made")
        ] = "answer.wav",
        rate: Annotated[int | None, typer.Option(help="sample rate of the output, Hz")] = None,
        text: Annotated[str | None, typer.Option(help="type the question instead", rich_help_panel=QUESTION)] = None,
        typed_turns: Annotated[
            bool | None,
            typer.Option("--typed-turns", help="type even if the model was taught none", rich_help_panel=QUESTION),
        ] = None,
        input_rate: Annotated[
            int | None,
            typer.Option(
                help="the question is raw samples of this rate, Hz; Ctrl-C ends a recording", rich_help_panel=QUESTION
            ),
        ] = None,
        input_format: Annotated[
            str | None,
            typer.Option(
                help="of raw samples: s16le (unless told otherwise), f32le, mulaw, …", rich_help_panel=QUESTION
            ),
        ] = None,
        input_channels: Annotated[
            int | None, typer.Option(help="of raw samples: 1 unless told otherwise", rich_help_panel=QUESTION)
        ] = None,
        long: Annotated[
            str, typer.Option(help="speech beyond the model's window: error or truncate", rich_help_panel=QUESTION)
        ] = "error",
        voice: Annotated[str | None, typer.Option(help="a voice of the engine", rich_help_panel=ANSWER)] = None,
        system: Annotated[str | None, typer.Option(help="system prompt", rich_help_panel=ANSWER)] = None,
        max_new_tokens: Annotated[
            int, typer.Option(help="text tokens at most", rich_help_panel=ANSWER)
        ] = MAX_NEW_TOKENS,
        max_last_write: Annotated[
            int, typer.Option(help="speech tokens of the final write at most", rich_help_panel=ANSWER)
        ] = LAST_WRITE,
        chunks: Annotated[
            str,
            typer.Option(
                help="units per flow call: growing with the lead costs least, fixed gives the same samples everywhere",
                rich_help_panel=ANSWER,
            ),
        ] = "growing",
        seed: Annotated[int, typer.Option(help="one seed, one answer", rich_help_panel=SAMPLING)] = 0,
        temperature: Annotated[float, typer.Option(help="of the text; 0 is greedy", rich_help_panel=SAMPLING)] = 0.0,
        top_k: Annotated[int, typer.Option(help="of the text; 0 keeps all", rich_help_panel=SAMPLING)] = 0,
        top_p: Annotated[float, typer.Option(help="of the text", rich_help_panel=SAMPLING)] = 1.0,
        speech_temperature: Annotated[
            float, typer.Option(help="of the speech units", rich_help_panel=SAMPLING)
        ] = SPEECH_SAMPLING.temperature,
        speech_top_k: Annotated[
            int, typer.Option(help="of the speech units", rich_help_panel=SAMPLING)
        ] = SPEECH_SAMPLING.top_k,
        speech_top_p: Annotated[
            float, typer.Option(help="of the speech units", rich_help_panel=SAMPLING)
        ] = SPEECH_SAMPLING.top_p,
        device: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt", rich_help_panel=MACHINE)] = Device.AUTO,
        threads: Annotated[int | None, typer.Option(help="processor threads", rich_help_panel=MACHINE)] = None,
        max_context: Annotated[
            int, typer.Option(help="positions of the KV cache", rich_help_panel=MACHINE)
        ] = MAX_CONTEXT,
        left_context: Annotated[
            float, typer.Option(help="seconds of its own sound the flow looks back on", rich_help_panel=MACHINE)
        ] = LEFT_CONTEXT,
        flow_steps: Annotated[
            int | None,
            typer.Option(help="velocities the flow computes for a frame, 10 at most", rich_help_panel=MACHINE),
        ] = None,
        flow_solver: Annotated[
            str | None, typer.Option(help="what it makes of them: euler, damped or ab2", rich_help_panel=MACHINE)
        ] = None,
        encoder: Annotated[
            str | None, typer.Option(help="window, or tail: the speech and a second of it", rich_help_panel=MACHINE)
        ] = None,
        cuda_graphs: Annotated[
            bool, typer.Option(help="record calls that repeat themselves on a GPU", rich_help_panel=MACHINE)
        ] = True,
        warm_up: Annotated[
            bool, typer.Option(help="run a short turn before the real one", rich_help_panel=MACHINE)
        ] = True,
        json_: Annotated[
            bool, typer.Option("--json", help="one JSON object at the end and nothing else", rich_help_panel=SHOWN)
        ] = False,
        log: Annotated[
            bool, typer.Option("--log", help="one JSON line of metrics on standard error", rich_help_panel=SHOWN)
        ] = False,
        quiet: Annotated[
            bool, typer.Option("--quiet", "-q", help="no text, no timings", rich_help_panel=SHOWN)
        ] = False,
    ) -> None:
        """Answer one question.

        For example, an answer in a file, and one that is played while it is made:

        ```
        omni2-engine stream ENGINE question.wav -o answer.wav
        omni2-engine stream ENGINE question.wav -o - | ffplay -f s16le -ar 24000 -i -
        ```
        """
        if log:
            logging.basicConfig(stream=sys.stderr, format="%(message)s")
            logging.getLogger("omni2_engine.turn").setLevel(logging.INFO)
        # faults of the question and of its options are reported before the model is loaded
        check_order(engine, audio)
        model = EngineDirectory(engine).manifest.model
        options = Options(
            seed=seed,
            text_sampling=Sampling(temperature, top_k, top_p, model.tokens.repetition_penalty),
            speech_sampling=Sampling(speech_temperature, speech_top_k, speech_top_p),
            max_new_tokens=max_new_tokens,
            max_last_write=max_last_write,
            voice=voice,
            system=system,
            long=cast(OnLong, long),  # `Options` checks them
            chunks=cast(Chunks, chunks),
            typed_turns=typed_turns,
        )
        raw = raw_format(input_rate, input_format, input_channels)
        if audio is None and text is None:
            raise SettingError("there is no question", "name an audio file, or type it with --text")
        if text is not None:
            options.check_typed(model)
        if json_ and output == STDOUT:
            raise SettingError("--json and -o - both need standard output", "name a file with -o")
        silent = quiet or json_
        report = StreamReport(None if silent else sys.stderr if output == STDOUT else sys.stdout)
        with open_writer(output, model.vocoder.sample_rate, rate) as writer:
            source = open_question(audio, raw, model.encoder.samples / 16_000)
            with _sign_of_life(silent):
                loaded = Engine.load(
                    engine,
                    threads=threads,
                    max_context=max_context,
                    left_context=left_context,
                    encoder=encoder,
                    flow_steps=flow_steps,
                    flow_solver=flow_solver,
                    warm_up=warm_up,
                    device=device,
                    cuda_graphs=cuda_graphs,
                )
            if loaded.memory_plan is not None:
                report.say(str(loaded.memory_plan))
            with loaded.session(**{name: getattr(options, name) for name in asdict(options)}) as session:
                for chunk in session.stream(source, sample_rate=input_rate, text=text, on_text=report.text):
                    writer.write(chunk.pcm)
                    report.chunk(chunk)
        assert session.metrics is not None
        report.end(session.metrics, output, left_context)
        if json_:
            typer.echo(json.dumps(report.record(session.metrics, output), indent=1))


def _sign_of_life(silent: bool) -> AbstractContextManager[object]:
    """Something that moves on the terminal while the engine is loaded; nothing where there is none."""
    console = Console(stderr=True)
    return nullcontext() if silent or not console.is_terminal else console.status("Loading the engine")
