"""The engine: a loaded engine directory, shared by every conversation on it."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import Scheduler, SessionCancelledError
from omni2_engine.audio.source import AudioInput, read_audio
from omni2_engine.backends.base import Backend
from omni2_engine.backends.choose import Device, choose_backend
from omni2_engine.chunk import Chunk
from omni2_engine.config import DecoderConfig, ModelConfig
from omni2_engine.conversation import Exchange, Layout, PromptBuilder
from omni2_engine.device.language_model import language_model_on
from omni2_engine.device.memory_plan import MemoryPlan
from omni2_engine.errors import SettingError
from omni2_engine.manifest import EngineDirectory
from omni2_engine.metrics import Recorder
from omni2_engine.options import LAST_WRITE, MAX_NEW_TOKENS, Options
from omni2_engine.read_write import ReadWriteLoop
from omni2_engine.scheduling.admission import SHARE, Admission, MemoryBudget
from omni2_engine.scheduling.turn_policy import StageIndex
from omni2_engine.scheduling.workers import Workers
from omni2_engine.session import Session
from omni2_engine.speech_decoder import SpeechDecoder, load_decoder
from omni2_engine.stages.encoder import SpeechEncoder
from omni2_engine.stages.flow import LEFT_CONTEXT
from omni2_engine.stages.frontend import Frontend
from omni2_engine.stages.fusion import Fusion
from omni2_engine.stages.language_model import DecoderState, LanguageModel
from omni2_engine.stages.slots import Prefix
from omni2_engine.states import StatePool
from omni2_engine.tables import EmbeddingTable, map_table
from omni2_engine.text.template import ChatTemplate
from omni2_engine.text.tokenizer import TextTokenizer
from omni2_engine.text.units import UnitTable

Floats = NDArray[np.float32]
MAX_CONTEXT = 4096  # positions of the language model's KV cache unless asked otherwise
WARM_UP_TOKENS = 4
MOST_SESSIONS = 256
MOST_THREADS = 256  # of every graph: more would take minutes to start and gain nothing
log = logging.getLogger(__name__)
PREFIXES = 4  # system prompts whose prefilled positions are kept


@dataclass(frozen=True)
class Pipeline:
    """The stages, from waveform to waveform."""

    frontend: Frontend
    encoder: SpeechEncoder
    llm: LanguageModel
    speech_lm: LanguageModel
    loop: ReadWriteLoop
    decoder: SpeechDecoder


class Engine:
    """A model ready to converse; make it with `Engine.load`.

    Attributes:
        backend: what runs it.
        config: the model's dimensions.
        sample_rate: of the sound it makes, Hz.
        max_context: positions of a conversation's KV cache.
        scheduler: decides whose step runs next.
        states: memory of conversations and turns.
        memory_plan: what it takes of a GPU's memory, also logged by `omni2_engine.engine` before it is taken; None on
            the CPU.
    """

    def __init__(
        self,
        directory: EngineDirectory,
        backend: Backend,
        max_context: int = MAX_CONTEXT,
        left_context: float = LEFT_CONTEXT,
        sessions: int = 1,
        memory: int | None = None,
        admission: Admission = Admission.SHORTEN,
    ) -> None:
        self.directory = directory
        self.backend = backend
        self.config: ModelConfig = directory.manifest.model
        self.sample_rate = self.config.vocoder.sample_rate
        self.text_tokenizer = TextTokenizer.load(directory.path / "text" / "tokenizer.json")
        template = ChatTemplate.load(directory.path / "text")
        self.prompts = PromptBuilder(template, self.text_tokenizer, self.config.tokens.speech)
        self.pipeline = p = _load_pipeline(directory, backend, left_context, sessions)
        self.max_context = p.llm.fitting(min(max_context, directory.manifest.longest_context))
        positions = p.speech_lm.fitting(p.loop.speech_capacity(MAX_NEW_TOKENS, LAST_WRITE))
        self.memory_plan = self._plan_memory(backend, sessions, positions)
        if self.memory_plan is not None:
            log.info("%s", self.memory_plan)
            if memory is None:  # who names a budget of bytes knows what they want to hold in it
                self.memory_plan.check()
        budget = MemoryBudget(int(SHARE * backend.free_memory()) if memory is None else memory)
        self.states = StatePool(p.llm, p.speech_lm, p.decoder, sessions, self.max_context, positions, budget, admission)
        workers = Workers(p.llm, p.speech_lm, p.decoder, sessions)
        self.scheduler = Scheduler(workers.stages(), width=backend.width)
        self._speakers: dict[str, Floats] = {}
        self._prefixes: dict[str | None, tuple[list[int], Prefix]] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        max_context: int = MAX_CONTEXT,
        left_context: float = LEFT_CONTEXT,
        sessions: int = 1,
        memory: int | None = None,
        admission: str = Admission.SHORTEN,
        warm_up: bool = True,
        device: str = Device.AUTO,
        cuda_graphs: bool = True,
        backend: Backend | None = None,
    ) -> Engine:
        """Load an engine directory.

        Args:
            path: what `omni2-engine build` wrote.
            threads: processor threads per stage; all that this process may use if None.
            max_context: positions of a conversation: prompt, speech and answers of all turns kept.
            left_context: seconds of its own sound the flow looks back on. An answer within it sounds exactly as the
                original's; beyond it memory and time per chunk stay constant and the sound drifts a little.
            sessions: conversations whose decoding shares calls, and their flow and vocoder where the backend gains by
                that. More may be open; they decode by themselves. From 2 on quantised models decode rows by twos, so
                that an answer does not depend on who else is answered; that costs one that is alone a seventh to a
                third of its decoding speed.
            memory: bytes that caches of all conversations may take together; four fifths of what is free if None, of
                the device's memory where there is one.
            admission: what happens where that does not do: "shorten" (the flow looks back on less of its own sound, at
                least 4 s, else an error), "wait" (until others have finished) or "refuse" (an error).
            warm_up: run a short turn first, so that the first real one is not the slowest.
            device: what runs the graphs: "cpu", "cuda" (ONNX Runtime's CUDA provider), "tensorrt" (plans built for this
                GPU), or "auto": TensorRT if there are such plans, else CUDA if ONNX Runtime has it, else the CPU.
            cuda_graphs: let TensorRT record calls that repeat themselves; turn this off where one cannot be recorded.
            backend: what runs the graphs, instead of what `device` says.

        Raises:
            EngineDirectoryError: the directory is missing, damaged or of another version.
            BackendError: this machine cannot run it.
            CapacityError: the GPU has not enough memory, or a plan holds less than is asked for.
            SettingError: a setting makes no sense.
        """
        if threads is not None and not (isinstance(threads, Integral) and 1 <= threads <= MOST_THREADS):
            raise SettingError(f"threads is {threads!r}", f"use an integer from 1 to {MOST_THREADS}")
        if not (isinstance(max_context, Integral) and max_context >= 2):
            raise SettingError(f"max_context is {max_context!r}", "use some thousands of positions")
        if not (math.isfinite(left_context) and left_context >= 0):
            raise SettingError(f"left_context is {left_context}", "use 0 or more seconds")
        if not (isinstance(sessions, Integral) and 1 <= sessions <= MOST_SESSIONS):
            raise SettingError(f"sessions is {sessions!r}", f"use an integer from 1 to {MOST_SESSIONS}")
        if memory is not None and not (isinstance(memory, Integral) and memory > 0):
            raise SettingError(f"memory is {memory!r}", "use a number of bytes")
        if admission not in list(Admission):
            raise SettingError(f"admission is {admission!r}", f"use one of {', '.join(Admission)}")
        if device not in list(Device):
            raise SettingError(f"device is {device!r}", f"use one of {', '.join(Device)}")
        directory = EngineDirectory(Path(path))
        engine = cls(
            directory,
            backend or choose_backend(directory, Device(device), threads, cuda_graphs),
            max_context,
            left_context,
            sessions,
            memory,
            Admission(admission),
        )
        if warm_up:
            engine._warm_up()
            engine.backend.keep(directory)
        return engine

    @property
    def voices(self) -> list[str]:
        """Names of the voices it can speak with."""
        return self.directory.voices()

    def session(self, **options: Any) -> Session:
        """Begin a conversation.

        Args:
            **options: fields of `Options`.

        Raises:
            SettingError: an option does not exist or makes no sense.
        """
        return Session(self, Options().merged(options))

    def stream(self, audio: AudioInput | None = None, **arguments: Any) -> Iterator[Chunk]:
        """Answer a single turn: a session of its own. Arguments of `Session.stream` and fields of `Options`.

        Returns:
            An iterator of chunks. Errors of the input are raised by this call, not by the iterator.
        """
        options = {name: arguments.pop(name) for name in list(arguments) if name in Options.__dataclass_fields__}
        session = self.session(**options)
        try:
            return _closing(session, session.stream(audio, **arguments))
        except BaseException:
            session.close()
            raise

    async def astream(self, audio: AudioInput | None = None, **arguments: Any) -> AsyncGenerator[Chunk]:
        """`stream` for asyncio. Same arguments."""
        options = {name: arguments.pop(name) for name in list(arguments) if name in Options.__dataclass_fields__}
        with self.session(**options) as session:
            async with aclosing(session.astream(audio, **arguments)) as chunks:
                async for chunk in chunks:
                    yield chunk

    # -- what sessions share ---------------------------------------------------------------------------------------

    def listen(self, audio: AudioInput, sample_rate: int | None, long: str, recorder: Recorder) -> Floats:
        """Encode one utterance, on the calling thread: any audio → (positions, hidden) float32.

        Raises:
            AudioError: the audio cannot be used.
        """
        return self._encode(self._read(audio, sample_rate, long, recorder), recorder)

    def listen_for(
        self, session: int, audio: AudioInput, sample_rate: int | None, long: str, recorder: Recorder
    ) -> Floats | None:
        """`listen` when it is the turn of this session of the scheduler; None if it was cancelled before."""
        waveform = self._read(audio, sample_rate, long, recorder)
        heard: Future[Floats] = Future()

        def encode() -> None:
            try:
                heard.set_result(self._encode(waveform, recorder))
            except BaseException as error:
                heard.set_exception(error)

        self.scheduler.begin(session)
        try:
            self.scheduler.submit(session, StageIndex.ENCODER, encode, key=-session - 1)
            self.scheduler.drained(session)
        except SessionCancelledError:
            return None
        finally:
            self.scheduler.finish(session)
        return heard.result() if heard.done() else None

    def _read(self, audio: AudioInput, sample_rate: int | None, long: str, recorder: Recorder) -> Floats:
        with recorder.span("frontend"):
            return read_audio(audio, sample_rate, self._window_seconds, long)

    def _encode(self, waveform: Floats, recorder: Recorder) -> Floats:
        with recorder.span("frontend"):
            log_mel = self.pipeline.frontend(waveform)
        with recorder.span("encoder"):
            return self.pipeline.encoder(log_mel)

    @cached_property
    def _window_seconds(self) -> float:
        return self.config.encoder.samples / 16_000

    def speaker(self, voice: str | None) -> Floats:
        """A stored voice as the flow wants it, (1, mel) float32.

        Raises:
            SettingError: there is no voice of that name.
        """
        name = voice or self.directory.manifest.default_voice
        if name not in self._speakers:
            if name not in self.voices:
                raise SettingError(f"there is no voice {name!r}", f"use one of: {', '.join(self.voices)}")
            embedding = np.asarray(map_table(self.directory.path / "voices" / f"{name}.npy"), np.float32)
            self._speakers[name] = self.pipeline.decoder.flow.speaker_features(embedding)
        return self._speakers[name]

    def fill_prefix(self, state: DecoderState, layout: Layout, system: str | None) -> int:
        """Fill an empty state with the part of the prompt that is the same for every conversation.

        It is prefilled once per system prompt: everything before what the first turn says.

        Returns:
            How many positions were filled.
        """
        with self._lock:
            held = self._prefixes.pop(system, None)
            if held is not None:
                items, prefix = held
                state.copy_prefix(prefix)
            else:
                items = self._fixed_items(system)
                if items:
                    self.pipeline.llm.extend(state, self.pipeline.llm.embed(items))
                prefix = state.keep()
            self._prefixes[system] = (items, prefix)  # the one used last comes last
            if len(self._prefixes) > PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
        return min(layout.common_prefix(items), len(layout.items) - 1)

    def _fixed_items(self, system: str | None) -> list[int]:
        """What two prompts that differ in the first turn have in common."""
        first, second = (self.prompts.lay_out([Exchange(text=text)], system) for text in ("a", "b"))
        return first.items[: first.common_prefix(second.items)]

    def _plan_memory(self, backend: Backend, sessions: int, speech_positions: int) -> MemoryPlan | None:
        """What a device will hold once all sessions are busy; None where there is no device."""
        device, p, model = backend.device_memory(), self.pipeline, self.config
        if device is None:
            return None
        seconds = speech_positions / model.flow_encoder.unit_rate
        caches = {
            "text caches": p.llm.nbytes(sessions, self.max_context),
            "speech caches": p.speech_lm.nbytes(sessions, speech_positions),
            "flow caches": sessions * p.decoder.flow.nbytes(seconds),
        }
        plural = "s" if sessions > 1 else ""
        title = f"{model.name}, {sessions} session{plural}, {p.decoder.flow.left_context:g} s flow context"
        held = {**device.holds, "embeddings": p.llm.held + p.speech_lm.held}
        return MemoryPlan(title, device.free + sum(held.values()), device.total, held | caches)

    def _warm_up(self) -> None:
        self.states.warm_up()
        silence = np.zeros(self.config.encoder.samples, np.float32)
        options = {"max_new_tokens": WARM_UP_TOKENS, "max_last_write": 2 * self.config.write}
        with self.session(**options) as session:
            for _ in session.stream(silence, sample_rate=16_000):
                pass


def _closing(session: Session, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    with session:
        yield from chunks


def _load_pipeline(directory: EngineDirectory, backend: Backend, left_context: float, sessions: int) -> Pipeline:
    config, tables = directory.manifest.model, directory.path / "tables"

    def load(stage: str) -> Any:
        return backend.open(directory, stage)

    def model(stage: str, dimensions: DecoderConfig) -> LanguageModel:
        pairs = backend.by_twos and sessions > 1 and directory.manifest.precision.get(stage, "fp32") != "fp32"
        return language_model_on(load(stage), dimensions, EmbeddingTable(tables / f"{stage}_embed.npy"), pairs)

    llm, speech_lm = model("llm", config.llm), model("speech_lm", config.speech_lm)
    speech = directory.path / "speech"
    unit_table = UnitTable.load(speech / "units.npy", TextTokenizer.load(speech / "tokenizer.json"))
    return Pipeline(
        Frontend(load("log_mel"), config.encoder),
        SpeechEncoder(load("encoder")),
        llm,
        speech_lm,
        ReadWriteLoop(config, llm, Fusion(load("fusion")), speech_lm, unit_table),
        load_decoder(directory, backend, left_context, sessions),
    )
