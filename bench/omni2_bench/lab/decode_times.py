"""How long language models take to decode for several conversations at once, and one after the other; imported by
workers only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from omni2_engine.backends.onnxruntime import OnnxRuntimeBackend
from omni2_engine.manifest import EngineDirectory
from omni2_engine.stages.language_model import LanguageModel
from omni2_engine.stages.slots import DecoderState
from omni2_engine.tables import EmbeddingTable

MODELS = ("llm", "speech_lm")


def measure_batching(engine: str, sizes: list[int], context: int, rounds: int, threads: int) -> dict[str, Any]:
    """Time decoding calls, all kinds of them in every round.

    Args:
        engine: directory.
        sizes: conversations in a call.
        context: positions every conversation has when it is fed one more.
        rounds: how often.
        threads: processor threads.

    Returns:
        `model` → `size` → seconds of every round: `together` in one call, of an even number of rows where weights are
        quantised; `alone` in as many calls as conversations, of a single row each.
    """
    directory, backend = EngineDirectory(Path(engine)), OnnxRuntimeBackend(threads)
    times: dict[str, Any] = {}
    for name in MODELS:
        table = EmbeddingTable(directory.path / "tables" / f"{name}_embed.npy")
        pairs = directory.manifest.precision[name] != "fp32"
        graph, config = backend.load(directory.graph(name)), getattr(directory.manifest.model, name)
        together, alone = LanguageModel(graph, config, table, pairs), LanguageModel(graph, config, table)
        times[name] = _measure(together, alone, sizes, context, rounds)
    return times


def _measure(
    together: LanguageModel, alone: LanguageModel, sizes: list[int], context: int, rounds: int
) -> dict[str, dict[str, list[float]]]:
    random, most, vocab = np.random.default_rng(0), max(sizes), together.config.vocab
    prefix = alone.new_state(context)
    alone.extend(prefix, alone.embed(random.integers(0, vocab, context).tolist()))
    fed = alone.embed(random.integers(0, vocab, most).tolist())
    beside, single = (_filled(model, prefix, most) for model in (together, alone))
    times: dict[str, dict[str, list[float]]] = {str(size): {"together": [], "alone": []} for size in sizes}
    for number in range(rounds + 1):
        for size in sizes:
            seconds = {
                "together": _step(together, beside[:size], fed[:size]),
                "alone": sum(_step(alone, [single[slot]], fed[slot, None]) for slot in range(size)),
            }
            if number:  # the first call of a kind takes memory from the system
                for kind, found in seconds.items():
                    times[str(size)][kind].append(found)
    return times


def _filled(model: LanguageModel, prefix: DecoderState, count: int) -> list[DecoderState]:
    """Conversations side by side, each with a copy of the same positions and room for one more."""
    cache = model.new_cache(count, prefix.length + 1)
    states = [cache.acquire() for _ in range(count)]
    for state in states:
        state.copy_prefix(prefix)
    return states


def _step(model: LanguageModel, states: list[DecoderState], embeds: np.ndarray) -> float:
    """Seconds of feeding one position, which is forgotten again."""
    began = time.perf_counter()
    model.decode(states, embeds)
    seconds = time.perf_counter() - began
    for state in states:
        state.truncate(state.length - 1)
    return seconds
