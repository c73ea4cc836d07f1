"""`omni2-engine stream`: one question answered; text as it comes, a line per chunk, a WAV or raw PCM."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO

import typer

from omni2_engine.audio.sink import STDOUT, open_writer
from omni2_engine.backends.choose import Device
from omni2_engine.chunk import Chunk
from omni2_engine.cli.question import check_order, open_question, raw_format
from omni2_engine.cli.terminal import Terminal, one_line
from omni2_engine.engine import MAX_CONTEXT, Engine
from omni2_engine.errors import SettingError
from omni2_engine.manifest import EngineDirectory
from omni2_engine.metrics import TurnMetrics
from omni2_engine.options import LAST_WRITE, MAX_NEW_TOKENS, SPEECH_SAMPLING, Options
from omni2_engine.sampling import Sampling
from omni2_engine.stages.flow import LEFT_CONTEXT


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
        text: Annotated[str | None, typer.Option(help="type the question instead")] = None,
        voice: Annotated[str | None, typer.Option(help="a voice of the engine")] = None,
        system: Annotated[str | None, typer.Option(help="system prompt")] = None,
        seed: Annotated[int, typer.Option(help="one seed, one answer")] = 0,
        max_new_tokens: Annotated[int, typer.Option(help="text tokens at most")] = MAX_NEW_TOKENS,
        max_last_write: Annotated[int, typer.Option(help="speech tokens of the final write at most")] = LAST_WRITE,
        temperature: Annotated[float, typer.Option(help="of the text; 0 is greedy")] = 0.0,
        top_k: Annotated[int, typer.Option(help="of the text; 0 keeps all")] = 0,
        top_p: Annotated[float, typer.Option(help="of the text")] = 1.0,
        speech_temperature: Annotated[float, typer.Option(help="of the speech units")] = SPEECH_SAMPLING.temperature,
        speech_top_k: Annotated[int, typer.Option(help="of the speech units")] = SPEECH_SAMPLING.top_k,
        speech_top_p: Annotated[float, typer.Option(help="of the speech units")] = SPEECH_SAMPLING.top_p,
        rate: Annotated[int | None, typer.Option(help="sample rate of the output, Hz")] = None,
        input_rate: Annotated[
            int | None, typer.Option(help="the question is raw samples of this rate, Hz; Ctrl-C ends a recording")
        ] = None,
        input_format: Annotated[
            str | None, typer.Option(help="of raw samples: s16le (unless told otherwise), f32le, mulaw, …")
        ] = None,
        input_channels: Annotated[int | None, typer.Option(help="of raw samples: 1 unless told otherwise")] = None,
        long: Annotated[str, typer.Option(help="speech beyond the model's window: error or truncate")] = "error",
        chunks: Annotated[str, typer.Option(help="units per flow call: fixed, or growing with the lead")] = "fixed",
        threads: Annotated[int | None, typer.Option(help="processor threads")] = None,
        max_context: Annotated[int, typer.Option(help="positions of the KV cache")] = MAX_CONTEXT,
        left_context: Annotated[
            float, typer.Option(help="seconds of its own sound the flow looks back on")
        ] = LEFT_CONTEXT,
        device: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt")] = Device.AUTO,
        cuda_graphs: Annotated[bool, typer.Option(help="record calls that repeat themselves on a GPU")] = True,
        warm_up: Annotated[bool, typer.Option(help="run a short turn before the real one")] = True,
        log: Annotated[bool, typer.Option("--log", help="one JSON line of metrics on standard error")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no text, no timings")] = False,
    ) -> None:
        """Answer one question."""
        if log:
            logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
        # whatever is wrong with what was asked for is said before the model is loaded
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
            long=long,
            chunks=chunks,
        )
        raw = raw_format(input_rate, input_format, input_channels)
        if audio is None and text is None:
            raise SettingError("there is no question", "name an audio file, or type it with --text")
        report = _Report(None if quiet else sys.stderr if output == STDOUT else sys.stdout)
        with open_writer(output, model.vocoder.sample_rate, rate) as writer:
            source = open_question(audio, raw, model.encoder.samples / 16_000)
            loaded = Engine.load(
                engine,
                threads=threads,
                max_context=max_context,
                left_context=left_context,
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
        if session.metrics is not None:
            report.end(session.metrics, output, left_context)


class _Report:
    """What a person sees: text as it comes, and a table of chunks behind it."""

    def __init__(self, out: TextIO | None) -> None:
        self._terminal = Terminal(out)
        self._chunks: list[Chunk] = []

    def say(self, sentence: str) -> None:
        """Show a line of its own."""
        self._terminal.write(sentence + "\n")

    def text(self, piece: str) -> None:
        """Show a piece of text."""
        self._terminal.write(piece)

    def chunk(self, chunk: Chunk) -> None:
        """Remember a chunk for the table."""
        self._chunks.append(chunk)

    def end(self, metrics: TurnMetrics, output: str, left_context: float) -> None:
        """Show how it went; `left_context` is what was asked for."""
        lines = ["", ""]
        for chunk, ready in zip(self._chunks, metrics.chunk_times, strict=False):
            place = f"{chunk.start:6.2f} – {chunk.end:6.2f} s"
            lines.append(f"chunk {chunk.index:3d}  {place}  ready at {ready:6.2f} s  {chunk.units:4d} units")
        if metrics.first_chunk is not None:
            lines.append(
                f"first chunk {metrics.first_chunk * 1e3:.0f} ms (LLM {metrics.first_chunk_llm * 1e3:.0f}, "
                f"TTS {metrics.first_chunk_tts * 1e3:.0f}, FM+Voc {metrics.first_chunk_synthesis * 1e3:.0f})"
            )
        lines.append(
            f"{metrics.audio_seconds:.2f} s of sound in {metrics.total_seconds:.2f} s"
            + (f", RTF {metrics.rtf:.2f}" if metrics.rtf is not None else "")
            + f"; {metrics.text_tokens} text tokens, {metrics.units} units"
            + (" (text limit reached)" if metrics.finish_reason == "limit" else "")
        )
        if metrics.left_context < left_context:
            lines.append(f"memory was short: the flow looked back on {metrics.left_context:.0f} s only")
        if output != STDOUT:
            lines.append(f"wrote {one_line(output)}")
        self.say("\n".join(lines))
