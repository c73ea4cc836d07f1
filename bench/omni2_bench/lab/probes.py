"""What each graph is asked: inputs that the float32 graphs before it made, and the arrays its answers are judged by.

Probes are functions of the graphs they run, so the same call of the engine's own stages asks any number format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.graph import Graph
from omni2_engine.backends.base.host_language_model import HostLanguageModel
from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES, DecoderConfig
from omni2_engine.model.manifest import PREFILL_SUFFIX
from omni2_engine.sampling import DrawKey, Stream, normal
from omni2_engine.stages.encoder import SpeechEncoder
from omni2_engine.stages.flow import Flow
from omni2_engine.stages.flow_solver import FlowSolver
from omni2_engine.stages.frontend import Frontend
from omni2_engine.stages.fusion import Fusion
from omni2_export.checkpoint import Checkpoint
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.inspection import Tap

Floats = NDArray[np.float32]
Arrays = dict[str, Floats]
Graphs = Mapping[str, Graph]
Probe = Callable[["Material", Graphs], Arrays]

TEXT = 12  # positions of text on both sides of the speech in a prompt
DECODED = 16  # positions fed one by one behind it
MORE = 5  # units beyond a block and its look-ahead that the flow's two calls add each


class Rows:
    """Token embeddings straight from a checkpoint, what a language model asks of its table."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    def __call__(self, ids: NDArray[np.int64]) -> Floats:
        """(n, hidden) float32."""
        rows = [self._tensors.rows("embed_tokens.weight", number, number + 1)[0] for number in ids]
        return np.stack(rows).astype(np.float32)


@dataclass
class Material:
    """A checkpoint and what its graphs are fed; `graphs` are its float32 ones.

    Args:
        checkpoint: the opened checkpoint.
        graphs: every float32 graph by name.
        audio: (n,) float32 in ±1 at 16 kHz.
        seed: of the random part of the inputs.
    """

    checkpoint: Checkpoint
    graphs: Graphs
    audio: Floats
    seed: int

    def __post_init__(self) -> None:
        self.config = self.checkpoint.config
        self.random = np.random.default_rng(self.seed)
        c = self.config
        self.voice = self.random.standard_normal((1, c.estimator.speaker), np.float32)
        block = c.flow_encoder.block_units + c.flow_encoder.lookahead
        self.units = [self.random.integers(c.flow_encoder.units, size=n).tolist() for n in (block + MORE, MORE)]
        frames = (block + 2 * MORE) * c.flow_encoder.ratio
        self.noise = normal((frames, c.estimator.mel), DrawKey(self.seed, Stream.FLOW_NOISE, 0), 0)
        self._ids = {
            name: self.random.integers(getattr(c, name).vocab, size=2 * TEXT + DECODED) for name in ("llm", "speech_lm")
        }

    @cached_property
    def log_mel(self) -> Floats:
        """Of the recording."""
        return Frontend(self.graphs["log_mel"], self.config.encoder)(self.audio)

    @cached_property
    def speech(self) -> Floats:
        """What the language model reads of it."""
        return SpeechEncoder(self.graphs["encoder"])(self.log_mel)

    @cached_property
    def text_inputs(self) -> Floats:
        """A prompt with the speech in it, and what is decoded behind it."""
        text = Rows(self.checkpoint.modules["llm"])(self._ids["llm"])
        return np.concatenate([text[:TEXT], self.speech, text[TEXT:]])

    @cached_property
    def hidden(self) -> Floats:
        """Hidden states of the decoded positions."""
        return ask_language_model(self.graphs["llm"], self.config.llm, self.text_inputs)["hidden"]

    @cached_property
    def pairs(self) -> tuple[Floats, Floats]:
        """What fusion reads."""
        return self.hidden, Rows(self.checkpoint.modules["speech_lm"])(self._ids["speech_lm"][: len(self.hidden)])

    @cached_property
    def speech_inputs(self) -> Floats:
        """Fused vectors, and embeddings of speech tokens behind them."""
        fused = Fusion(self.graphs["fusion"])(*self.pairs)
        return np.concatenate([fused, Rows(self.checkpoint.modules["speech_lm"])(self._ids["speech_lm"])])

    @cached_property
    def mel(self) -> Floats:
        """(frames, mel) of the units."""
        return ask_flow(self, self.graphs)["mel"]

    def vocoder_inputs(self) -> list[Arrays]:
        """A turn's first call and a later one, whose source begins with the last one's end."""
        c, calls = self.config.vocoder, []
        for seed, (frames, cached) in enumerate(((VOCODER_OVERLAP_FRAMES + 5, 0), (28, c.overlap))):
            random = np.random.default_rng((self.seed, seed))
            sines = c.harmonics + 1
            calls.append(
                {
                    "mel": np.ascontiguousarray(self.mel[:frames].T)[None],
                    "phase": random.uniform(-np.pi, np.pi, (1, sines, 1)).astype(np.float32),
                    "noise": random.standard_normal((1, sines, frames * c.hop), np.float32),
                    "source_cache": 0.1 * random.standard_normal((1, 1, cached), np.float32),
                }
            )
        return calls


def ask_language_model(graph: Graph, config: DecoderConfig, inputs: Floats, prefill: Graph | None = None) -> Arrays:
    """Prefill all but the last inputs and decode those; logits and hidden states of the positions from there on.

    Args:
        graph, config: of the model.
        inputs: (n, hidden) float32.
        prefill: another graph of it over the same caches, which prefills; `graph` if None.
    """
    model = HostLanguageModel(graph, config, None, prefill=prefill)  # type: ignore[arg-type]  # nothing is embedded
    state = model.new_state(len(inputs))
    found: dict[str, list[Floats]] = {"logits": [], "hidden": []}
    for piece in (inputs[:-DECODED], *inputs[-DECODED:, None]):
        model.extend(state, piece)
        found["logits"].append(state.logits.copy())
        found["hidden"].append(state.hidden.copy())
    return {name: np.stack(arrays) for name, arrays in found.items()}


def ask_flow(material: Material, graphs: Graphs) -> Arrays:
    """Two calls of the flow, the second behind a finished block: the encoder's μ, and the mel after all steps."""
    c, encoder = material.config, Tap(graphs["flow_encoder"])
    flow = Flow(encoder, graphs["flow_step"], graphs["flow_conditions"], c.flow_encoder, c.estimator, material.noise)
    state = flow.new_state(flow.speaker_features(material.voice[0]))
    first, second = (flow.step(state, units, final) for units, final in zip(material.units, (False, True), strict=True))
    mu = np.concatenate([run["mu"] for run in encoder.runs], axis=1)
    return {"mu": mu, "mel": np.concatenate([first.mel[: second.start], second.mel])}


def ask_vocoder(material: Material, graphs: Graphs) -> Arrays:
    """Waveform, source and F0 of two calls."""
    calls = [graphs["vocoder"].run(inputs) for inputs in material.vocoder_inputs()]
    return {name: np.concatenate([call[name].ravel() for call in calls]) for name in ("f0", "source", "wav")}


def _ask_llm(material: Material, graphs: Graphs) -> Arrays:
    prefill = graphs.get(f"llm{PREFILL_SUFFIX}")
    return ask_language_model(graphs["llm"], material.config.llm, material.text_inputs, prefill)


def _flow_conditions(material: Material, graphs: Graphs) -> Arrays:
    times = FlowSolver().times()[:-1]
    return graphs["flow_conditions"].run({"t": times, "embedding": material.voice})


def _ask_mel(material: Material, graphs: Graphs) -> Arrays:
    return {"mel": ask_flow(material, graphs)["mel"]}


def _sound(material: Material, graphs: Graphs) -> Arrays:
    """Sound of the flow's mel, driven by the source that the float32 graphs make."""
    mel = ask_flow(material, graphs)["mel"]
    waves = []
    for inputs in material.vocoder_inputs():
        source = material.graphs["vocoder"].run(inputs)["source"]
        frames = inputs["mel"].shape[2]
        changed = {"mel": np.ascontiguousarray(mel[:frames].T)[None], "source_cache": source}
        waves.append(graphs["vocoder"].run(inputs | changed)["wav"][0])
    return {"wav": np.concatenate(waves)}


@dataclass(frozen=True)
class ProbeRow:
    """One row of the table: `ask` with the graphs of `changed` in another number format, the others in float32."""

    name: str
    changed: tuple[str, ...]
    ask: Probe


def _alone(name: str, ask: Probe) -> ProbeRow:
    return ProbeRow(name, (name,), ask)


FLOW = ("flow_encoder", "flow_conditions", "flow_step")
QUESTIONS = (
    _alone("log_mel", lambda m, graphs: {"log_mel": Frontend(graphs["log_mel"], m.config.encoder)(m.audio)}),
    _alone("encoder", lambda m, graphs: {"speech": SpeechEncoder(graphs["encoder"])(m.log_mel)}),
    _alone("llm", _ask_llm),
    _alone("fusion", lambda m, graphs: {"fused": Fusion(graphs["fusion"])(*m.pairs)}),
    _alone("speech_lm", lambda m, graphs: ask_language_model(graphs["speech_lm"], m.config.speech_lm, m.speech_inputs)),
    _alone("flow_encoder", lambda m, graphs: {"mu": ask_flow(m, graphs)["mu"]}),
    _alone("flow_conditions", _flow_conditions),
    _alone("flow_step", _ask_mel),
    _alone("vocoder", ask_vocoder),
    ProbeRow(
        "flow", ("flow_encoder", "flow_conditions", "flow_step"), lambda m, graphs: {"mel": ask_flow(m, graphs)["mel"]}
    ),
    ProbeRow("flow and vocoder", ("flow_encoder", "flow_conditions", "flow_step", "vocoder"), _sound),
)
