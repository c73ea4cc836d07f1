"""What one call that decodes for several conversations saves over a call for each.

python -m omni2_bench.lab.batching --size 0.5B --voice voice.wav
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from omni2_bench.common.models import built_engine, default_cache, released_model
from omni2_bench.common.results import table
from omni2_bench.common.statistics import Summary, summarise
from omni2_engine.backends.base.host_language_model import HostLanguageModel
from omni2_engine.backends.base.kv_cache import DecoderState
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.model.tables import EmbeddingTable

MODELS = ("llm", "speech_lm")
Times = dict[int, tuple[list[float], list[float]]]  # conversations → seconds of every round: in one call, in one each


def main(
    size: Annotated[str, typer.Option(help="of the random checkpoint")],
    voice: Annotated[Path, typer.Option(help="recording of a voice")],
    precision: Annotated[str, typer.Option(help="preset of the engine")] = "balanced",
    context: Annotated[int, typer.Option(help="positions of each conversation")] = 400,
    rounds: Annotated[int, typer.Option(help="how often everything runs")] = 10,
    threads: Annotated[int, typer.Option(help="processor threads")] = 2,
) -> None:
    """Measure calls for 1, 2, 4 and 8 conversations, and print medians with p10 to p90."""
    engine = EngineDirectory(built_engine(released_model(size), precision, voice, default_cache()))
    found = {name: measure(engine, name, [1, 2, 4, 8], context, rounds, threads) for name in MODELS}
    header = ["", "conversations", "in one call", "in one each", "gain"]
    rows = [
        [name, str(count), _milliseconds(together), _milliseconds(alone), _times(gain(together, alone))]
        for name, times in found.items()
        for count, (together, alone) in times.items()
    ]
    typer.echo(table(header, rows))


def measure(engine: EngineDirectory, name: str, counts: list[int], context: int, rounds: int, threads: int) -> Times:
    """Time decoding calls of one model, all kinds of them in every round.

    Args:
        engine: holds the model.
        name: "llm" or "speech_lm".
        counts: conversations in a call.
        context: positions every conversation has when it is fed one more.
        rounds: how often.
        threads: processor threads.

    Returns:
        Seconds. A call for several has an even number of rows where weights are quantised, see `HostLanguageModel`.
    """
    graph = OnnxRuntimeBackend(threads).load(engine.graph(name))
    config = getattr(engine.manifest.model, name)
    embeddings = EmbeddingTable(engine.path / "tables" / f"{name}_embed.npy")
    even_batches = engine.manifest.precision[name] != "fp32"
    shared, single = (
        HostLanguageModel(graph, config, embeddings, even_batches),
        HostLanguageModel(graph, config, embeddings),
    )
    random, most = np.random.default_rng(0), max(counts)
    prefix = single.new_state(context)
    single.extend(prefix, single.embed(random.integers(0, config.vocab, context).tolist()))
    fed = single.embed(random.integers(0, config.vocab, most).tolist())
    together, alone = (_filled(model, prefix, most) for model in (shared, single))
    times: Times = {count: ([], []) for count in counts}
    for number in range(rounds + 1):
        for count, (in_one, in_one_each) in times.items():
            seconds = _step(shared, together[:count], fed[:count])
            each = sum(_step(single, [alone[slot]], fed[slot, None]) for slot in range(count))
            if number:  # the first call of a kind takes memory from the system
                in_one.append(seconds)
                in_one_each.append(each)
    return times


def gain(together: list[float], alone: list[float]) -> Summary:
    """How many times faster one call is, round by round."""
    return summarise([each / one for one, each in zip(together, alone, strict=True)])


def _filled(model: HostLanguageModel, prefix: DecoderState, count: int) -> list[DecoderState]:
    """Conversations in one cache, each with a copy of the same positions and room for one more."""
    cache = model.new_cache(count, prefix.length + 1)
    states = [cache.acquire() for _ in range(count)]
    for state in states:
        state.copy_prefix(prefix)
    return states


def _step(model: HostLanguageModel, states: list[DecoderState], embeds: np.ndarray) -> float:
    """Seconds of feeding one position, which is taken back."""
    began = time.perf_counter()
    model.decode(states, embeds)
    seconds = time.perf_counter() - began
    for state in states:
        state.truncate(state.length - 1)
    return seconds


def _milliseconds(seconds: list[float]) -> str:
    found = summarise(seconds)
    return f"{1e3 * found.median:.1f} ms ({1e3 * found.p10:.1f} to {1e3 * found.p90:.1f})"


def _times(found: Summary) -> str:
    return f"×{found.median:.2f} ({found.p10:.2f} to {found.p90:.2f})"


if __name__ == "__main__":
    typer.run(main)
