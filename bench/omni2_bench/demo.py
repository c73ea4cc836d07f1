"""`make demo`: a checkpoint of random weights → an engine → a spoken question answered: answer.wav, answer.png."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from omni2_bench import random_checkpoint
from omni2_bench.plot import plot_answer
from omni2_bench.random_checkpoint import PRESETS, CheckpointPaths, Dimensions, write_checkpoint
from omni2_engine import Chunk, Engine, TurnMetrics
from omni2_engine.audio.sink import open_writer
from omni2_engine.errors import Omni2Error
from omni2_export.build import BuildRequest, build_engine
from omni2_export.checkpoint import open_checkpoint
from omni2_export.cli.progress import BuildProgress

REPOSITORY = Path(__file__).resolve().parents[2]
QUESTION, VOICE = "question.wav", "voice.wav"
SEED = 1
LIMIT = 128  # text tokens: the model ends well before, by itself


def main() -> int:
    """Run the demo in the current directory; every error becomes one clear line.

    Returns:
        The exit code.
    """
    try:
        run(Path.cwd(), REPOSITORY / "examples", REPOSITORY / "build" / "demo", PRESETS["tiny"], Console())
    except Omni2Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def run(output: Path, examples: Path, cache: Path, dimensions: Dimensions, console: Console) -> TurnMetrics:
    """Make or reuse the engine, answer the question, write `answer.wav` and `answer.png` to `output`.

    Args:
        output: an existing directory.
        examples: holds `question.wav` and `voice.wav`.
        cache: where checkpoint and engine are kept for the next run.
        dimensions: of the model.
        console: what to print on.

    Raises:
        Omni2Error: a file is missing or cannot be written.
    """
    for name in (QUESTION, VOICE):
        if not (examples / name).is_file():
            raise Omni2Error(f"{examples / name} is missing", "run the demo from a checkout of the repository")
    console.print(
        "This model has [bold]random weights[/bold]: it has learnt nothing, so it babbles. "
        "The files, the engine and the timings are real; the README says how to use the released models.\n"
    )
    engine = _load(examples / VOICE, cache, dimensions, console)
    chunks, metrics = _answer(engine, examples / QUESTION, output / "answer.wav", console)
    pcm = np.concatenate([chunk.pcm for chunk in chunks])
    plot_answer(output / "answer.png", pcm, engine.sample_rate, chunks, metrics)
    _report(metrics, console)
    console.print("Wrote [bold]answer.wav[/bold] and [bold]answer.png[/bold]")
    return metrics


def _load(voice: Path, cache: Path, dimensions: Dimensions, console: Console) -> Engine:
    """The engine of the demo's checkpoint, both made unless they are there."""
    paths = _checkpoint(cache, dimensions, console)
    opened = open_checkpoint(paths.model, decoder=paths.decoder)
    with BuildProgress() as progress:
        build_engine(BuildRequest(opened, cache / "engine", [voice]), progress)
    with console.status("Loading the engine"):
        return Engine.load(cache / "engine")


def _checkpoint(cache: Path, dimensions: Dimensions, console: Console) -> CheckpointPaths:
    """The checkpoint, in a directory named after everything that decides its bytes; older ones are removed."""
    sources = sorted(Path(random_checkpoint.__file__).parent.glob("*.py"))
    digest = hashlib.sha256(f"{dimensions} {SEED}".encode() + b"".join(source.read_bytes() for source in sources))
    path = cache / f"checkpoint-{digest.hexdigest()[:12]}"
    if not path.is_dir():
        for old in cache.glob("checkpoint-*"):
            shutil.rmtree(old)
        unfinished = cache / f"checkpoint-unfinished-{os.getpid()}"
        try:
            write_checkpoint(unfinished, dimensions, SEED)
            unfinished.rename(path)
        except OSError as error:
            raise Omni2Error(f"cannot write {path}: {error.strerror}", "free some space or make it writable") from None
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        console.print(f"Wrote a random checkpoint to {path}")
    return CheckpointPaths.below(path)


def _answer(engine: Engine, question: Path, wav: Path, console: Console) -> tuple[list[Chunk], TurnMetrics]:
    """Stream the answer: text as it comes, a line per chunk."""
    console.print(f"Question: {question.name}, spoken. Answer:\n")
    chunks: list[Chunk] = []
    lines = _Lines(console)
    with engine.session(seed=SEED, max_new_tokens=LIMIT) as session, open_writer(wav, engine.sample_rate) as writer:
        for chunk in session.stream(question, on_text=lines.text):
            lines.chunk(chunk)
            writer.write(chunk.pcm)
            chunks.append(chunk)
        metrics = session.metrics
    assert metrics is not None
    return chunks, metrics


class _Lines:
    """Prints text as it comes and a line for every chunk between, timed from the moment it is made."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.perf_counter()
        self._playing: float | None = None  # when a player that starts at the first chunk started
        self._inside = False  # a line of text is open

    def text(self, piece: str) -> None:
        """Print a piece of text."""
        self._console.print(Text(piece if self._inside else piece.lstrip(), style="bold"), end="", soft_wrap=True)
        self._inside = True

    def chunk(self, chunk: Chunk) -> None:
        """Print a chunk's line."""
        ready = time.perf_counter() - self._began
        self._playing = ready if self._playing is None else self._playing
        lead = self._playing + chunk.start - ready  # until a player needs it
        line = (
            f"  chunk {chunk.index:<2d} {chunk.start:6.2f} – {chunk.end:5.2f} s   {chunk.duration:4.2f} s long   "
            f"ready at {ready:5.2f} s   {lead:+5.2f} s before it is played"
        )
        self._console.print(Text(("\n" if self._inside else "") + line, style="dim"), soft_wrap=True)
        self._inside = False


def _report(metrics: TurnMetrics, console: Console) -> None:
    """How long it was and how fast it came."""
    assert metrics.first_chunk is not None
    end = "it found its end" if metrics.finish_reason == "end" else "cut at the limit"
    parts = {"LLM": metrics.first_chunk_llm, "TTS": metrics.first_chunk_tts, "FM+Voc": metrics.first_chunk_synthesis}
    split = " + ".join(f"{name} {seconds * 1e3:.0f}" for name, seconds in parts.items())
    sound = f"{metrics.units} speech units, {metrics.audio_seconds:.2f} s of sound"
    console.print(f"\n{metrics.text_tokens} text tokens ({end}), {sound}")
    console.print(f"First chunk after [bold]{metrics.first_chunk * 1e3:.0f} ms[/bold] ({split})")
    console.print(f"Real-time factor [bold]{metrics.rtf:.2f}[/bold] (seconds of work per second of sound)")


if __name__ == "__main__":
    sys.exit(main())
