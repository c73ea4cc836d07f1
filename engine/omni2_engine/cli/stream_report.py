"""What `omni2-engine stream` says of an answer: to a person as it comes, and as a record for programs."""

from __future__ import annotations

from typing import Any, TextIO

from omni2_engine.audio.sink import STDOUT
from omni2_engine.cli.terminal import Terminal, one_line
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.metrics import TurnMetrics

SCHEMA_VERSION = 1  # of `StreamReport.record`


class StreamReport:
    """Text as it comes, and a table of chunks behind it.

    Args:
        out: where to show them; None shows nothing.
    """

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
        """Remember a chunk."""
        self._chunks.append(chunk)

    def end(self, metrics: TurnMetrics, output: str, left_context: float) -> None:
        """Show how it went; `left_context` is what was asked for."""
        lines = ["", ""]
        for chunk, ready in zip(self._chunks, metrics.chunk_times, strict=False):  # an empty last one has no time
            place = f"{chunk.start:6.2f} – {chunk.end:6.2f} s"
            lines.append(f"chunk {chunk.index:3d}  {place}  ready at {ready:6.2f} s  {chunk.units:4d} units")
        if metrics.first_chunk is not None:
            lines.append(
                f"first chunk {metrics.first_chunk * 1e3:.0f} ms (LLM {metrics.first_chunk_llm * 1e3:.0f}, "
                f"TTS {metrics.first_chunk_tts * 1e3:.0f}, FM+Voc {metrics.first_chunk_synthesis * 1e3:.0f}); "
                f"a player that starts {metrics.start_in * 1e3:.0f} ms later "
                f"runs dry for {metrics.underrun * 1e3:.0f} ms"
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

    def record(self, metrics: TurnMetrics, output: str) -> dict[str, Any]:
        """The answer and its figures; times in seconds since the question was handed in."""
        chunks = [
            {
                "index": chunk.index,
                "start": chunk.start,
                "duration": chunk.duration,
                "ready": ready,
                "start_in": chunk.start_in,
                "units": chunk.units,
                "text": chunk.text,
            }
            for chunk, ready in zip(self._chunks, metrics.chunk_times, strict=False)
        ]
        return {
            "schema_version": SCHEMA_VERSION,
            "text": "".join(chunk.text for chunk in self._chunks),
            "finish_reason": metrics.finish_reason,
            "output": output,
            "chunks": chunks,
            "metrics": metrics.record(),
        }
