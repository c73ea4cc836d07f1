"""The stages of a loaded engine, from waveform to waveform."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omni2_engine.backends.base.backend import Backend
from omni2_engine.backends.base.graph import Graph
from omni2_engine.backends.base.language_model import LanguageModel
from omni2_engine.errors import SettingError
from omni2_engine.model.config import DecoderConfig, ModelConfig
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.model.tables import EmbeddingTable
from omni2_engine.sampling import Stream
from omni2_engine.stages.encoder import SpeechEncoder
from omni2_engine.stages.encoder_tail import ENCODER_TAIL, EncoderTail, TailedEncoder, load_probes
from omni2_engine.stages.flow_solver import FlowSolver
from omni2_engine.stages.frontend import Frontend
from omni2_engine.stages.fusion import Fusion
from omni2_engine.stages.speech_decoder import SpeechDecoder, load_decoder
from omni2_engine.text.tokenizer import TextTokenizer
from omni2_engine.text.units import UnitTable


@dataclass(frozen=True)
class Pipeline:
    """What the steps of a turn run; all state is passed in.

    Args:
        config: the model's dimensions.
        tokenizer: of the text.
        frontend, encoder: a waveform → what the language model reads of it.
        llm: text tokens.
        fusion, speech_lm, unit_table: text tokens → speech tokens → units.
        decoder: units → sound.
    """

    config: ModelConfig
    tokenizer: TextTokenizer
    frontend: Frontend
    encoder: SpeechEncoder | TailedEncoder
    llm: LanguageModel
    fusion: Fusion
    speech_lm: LanguageModel
    unit_table: UnitTable
    decoder: SpeechDecoder

    @property
    def vocabularies(self) -> dict[Stream, int]:
        """Token ids of each language model: 0 up to this."""
        return {Stream.TEXT: self.config.llm.vocab, Stream.SPEECH: self.config.speech_lm.vocab}

    def speech_positions(self, max_new_tokens: int, max_last_write: int) -> int:
        """Positions the speech LM's context can grow to in one turn."""
        rounds = -(-max_new_tokens // self.config.read)
        return max_new_tokens + rounds * self.config.write + 1 + max_last_write


def load_pipeline(
    directory: EngineDirectory, backend: Backend, left_context: float, sessions: int, solver: FlowSolver, tail: bool
) -> Pipeline:
    """Load the stages of an engine directory.

    Args:
        directory: holds their graphs and tables.
        backend: runs the graphs.
        left_context: seconds of its own sound the flow sees, see `Flow`.
        sessions: conversations that share decoding calls at most.
        solver: of the flow, see `Flow`.
        tail: compute no silence in the encoder, see `TailedEncoder`.

    Raises:
        EngineDirectoryError, BackendError: see `Backend.open`.
        SettingError: the engine has no tails.
    """
    config, tables = directory.manifest.model, directory.path / "tables"

    def load(stage: str) -> Graph:
        return backend.open(directory, stage)

    def model(stage: str, dimensions: DecoderConfig) -> LanguageModel:
        table = EmbeddingTable(tables / f"{stage}_embed.npy")
        return backend.language_model(directory, stage, dimensions, table, sessions)

    def tailed() -> TailedEncoder:
        if not backend.has(directory, ENCODER_TAIL):
            remedy = "build it with --precision live or --encoder tail, or leave encoder at window"
            raise SettingError("this engine was built without tails of its encoder", remedy)
        return TailedEncoder(load(ENCODER_TAIL), config.encoder, EncoderTail.load(tables), load_probes(tables))

    return Pipeline(
        config,
        TextTokenizer.load(directory.path / "text" / "tokenizer.json"),
        Frontend(load("log_mel"), config.encoder),
        tailed() if tail else SpeechEncoder(load("encoder")),
        model("llm", config.llm),
        Fusion(load("fusion"), (config.read, config.fusion.llm_hidden, config.fusion.speech_hidden)),
        model("speech_lm", config.speech_lm),
        _load_units(directory.path / "speech"),
        load_decoder(directory, backend, left_context, solver, sessions),
    )


def _load_units(folder: Path) -> UnitTable:
    return UnitTable.load(folder / "units.npy", TextTokenizer.load(folder / "tokenizer.json"))
