"""The engine: a loaded engine directory, shared by every conversation on it."""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from time import monotonic, perf_counter
from types import TracebackType
from typing import Any, Literal, Self, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import Scheduler
from omni2_engine.audio.source import AudioInput
from omni2_engine.backends.base.backend import Backend
from omni2_engine.backends.select import Device, select_backend
from omni2_engine.errors import SettingError
from omni2_engine.live.conversation import LiveConversation
from omni2_engine.live.detection.base import SentenceEnd
from omni2_engine.live.detection.silero import shared_silero_vad
from omni2_engine.live.frame_listener import SpeechListener
from omni2_engine.live.listening import ListeningThread
from omni2_engine.live.playback import Clock
from omni2_engine.live.settings import Detection
from omni2_engine.memory.budget import Admission, MemoryBudget, gigabytes
from omni2_engine.memory.plan import plan_memory
from omni2_engine.memory.states import StatePool
from omni2_engine.model.config import EULER_STEPS, WHISPER_SAMPLE_RATE, ModelConfig
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.schedule.calls import StageCalls
from omni2_engine.schedule.inline import InlineSchedule
from omni2_engine.schedule.threaded import Order, ThreadedSchedule
from omni2_engine.sessions.answer import Answer
from omni2_engine.sessions.earlier_turns import EarlierTurn
from omni2_engine.sessions.prepared_turns import PreparedTurns
from omni2_engine.sessions.question import Frames, SessionArguments, question_and_options
from omni2_engine.sessions.runtime import Runtime, Voices
from omni2_engine.sessions.session import Session
from omni2_engine.sessions.waiting_turns import WaitingTurns
from omni2_engine.settings import choice, integer, real
from omni2_engine.settings.tuning import DECODE, MEMORY
from omni2_engine.stages.flow import LEFT_CONTEXT
from omni2_engine.stages.flow_solver import FlowSolver, SolverRule
from omni2_engine.stages.pipeline import load_pipeline
from omni2_engine.system.process import check_not_forked
from omni2_engine.text.template import ChatTemplate
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.options import LAST_WRITE, MAX_NEW_TOKENS, Options, SessionOptions
from omni2_engine.turn.playout import Playout
from omni2_engine.turn.prefix import PrefixCache
from omni2_engine.turn.prompt import PromptBuilder

MAX_CONTEXT = 4096  # positions of the language model's KV cache unless asked otherwise
MOST_SESSIONS = 256
NO_LIMIT = 1_000_000  # positions or seconds: more than any model has
MOST_THREADS = 256  # of every graph: more would take minutes to start and gain nothing
DETECTION = Detection()
log = logging.getLogger("omni2_engine.engine")


ScheduleName = Literal["threaded", "inline"]


class Engine:
    """A model ready to converse; make it with `Engine.load`, and close it or use it as a context manager.

    Attributes:
        backend: what runs it.
        config: the model's dimensions.
        sample_rate: of the sound it makes, Hz.
        max_context: positions of a conversation's KV cache.
        pipeline: the stages.
        prompts: lays conversations out as the language model sees them.
        states: memory of conversations and turns.
        runtime: what its sessions share.
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
        max_waiting: int | None = None,
        schedule: ScheduleName = "threaded",
        solver: FlowSolver = FlowSolver(),  # noqa: B008 (frozen)
        tail: bool = False,
        order: Order = "deadline",
    ) -> None:
        self.directory = directory
        self.backend = backend
        self.config: ModelConfig = directory.manifest.model
        self.sample_rate = self.config.vocoder.sample_rate
        self.pipeline = p = load_pipeline(directory, backend, left_context, sessions, solver, tail)
        self.prompts = PromptBuilder(ChatTemplate.load(directory.path / "text"), p.tokenizer, self.config.tokens.speech)
        self.max_context = p.llm.fitting(min(max_context, directory.manifest.longest_context))
        positions = p.speech_lm.fitting(p.speech_positions(MAX_NEW_TOKENS, LAST_WRITE))
        limit = int(MEMORY.share * backend.free_memory()) if memory is None else memory
        self.memory_plan = plan_memory(backend, p, sessions, self.max_context, positions, limit, admission)
        if self.memory_plan is not None:
            log.info("%s", self.memory_plan)
            if memory is None:  # a budget in bytes was chosen by a user who knows what is to fit
                self.memory_plan.check()
        self.states = StatePool(
            p.llm, p.speech_lm, p.decoder, sessions, self.max_context, positions, MemoryBudget(limit), admission
        )
        calls = StageCalls(p.llm, p.speech_lm)
        self.runtime = Runtime(
            p,
            self.prompts,
            PrefixCache(p.llm, self.prompts),
            Voices(directory, p.decoder.flow),
            SpeechListener(self.config.encoder.samples / WHISPER_SAMPLE_RATE, shared_silero_vad),
            self.states,
            InlineSchedule(calls)
            if schedule == "inline"
            else ThreadedSchedule(calls, self.states.key, sessions, backend.width, order),
            WaitingTurns(max_waiting),
            Playout(),
            self.max_context,
            p.speech_lm.fitting(directory.manifest.positions),
        )
        self._sessions: weakref.WeakSet[Session | LiveConversation] = weakref.WeakSet()
        self._listening: ListeningThread | None = None
        self._listening_lock = threading.Lock()
        self._closed = False

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        max_context: int | None = MAX_CONTEXT,
        left_context: float | None = LEFT_CONTEXT,
        encoder: str | None = None,
        flow_steps: int | None = None,
        flow_solver: str | None = None,
        sessions: int = 1,
        memory: int | None = None,
        admission: str = Admission.SHORTEN,
        max_waiting: int | None = None,
        warm_up: bool = True,
        device: str = Device.AUTO,
        cuda_graphs: bool = True,
        schedule: ScheduleName = "threaded",
        order: Order = "deadline",
        backend: Backend | None = None,
    ) -> Engine:
        """Load an engine directory.

        Args:
            path: what `omni2-engine build` wrote.
            threads: processor threads per stage; all that this process may use if None.
            max_context: positions of a conversation: prompt, speech and answers of all turns kept; None for as many as
                the model has.
            left_context: seconds of its own sound the flow looks back on. An answer within it sounds exactly as the
                original's; beyond it memory and time per chunk stay constant and the sound drifts a little. None for
                all of it.
            encoder: "window" computes the whole window, "tail" the speech and a second, where the engine has tails
                (docs/less_work.md). None for what the engine was built for, as in the next two; "window" in all
                presets but `live`.
            flow_steps: velocities the flow computes for every frame, 1 to 10, the original's. Its time and its caches
                are in proportion, and docs/less_work.md says what fewer lose.
            flow_solver: what is made of them, "euler" (the original's), "damped" or "ab2", see `SolverRule`.
            sessions: conversations whose decoding shares calls. More may be open; they decode alone. From 2 on,
                quantised models decode an even number of rows in every call, so that an answer does not depend on the
                other conversations; that costs one that is alone a seventh to a third of its decoding speed.
            memory: bytes that caches of all conversations may take together; four fifths of what is free if None, of
                the device's memory where there is one.
            admission: what happens where that does not do: "shorten" (the flow looks back on less of its own sound, at
                least 4 s, else an error), "wait" (until others have finished) or "refuse" (an error).
            max_waiting: turns that may wait for their first sound at once; a further one is refused with a `BusyError`,
                which says after how many seconds to ask again. None for no limit.
            warm_up: run a short turn first, on a GPU two, so that the first real one is not the slowest.
            device: what runs the graphs: "cpu", "cuda" (ONNX Runtime's CUDA provider), "tensorrt" (plans built for this
                GPU), or "auto": TensorRT if there are such plans, else CUDA if ONNX Runtime has it, else the CPU.
            cuda_graphs: let TensorRT record calls that repeat themselves; turn this off where one cannot be recorded.
            schedule: "threaded" runs the steps of all turns on threads of the engine's, which overlap; "inline" runs
                those of a turn one by one on the thread that takes its chunks, for debugging. The answers are equal.
            order: which step of the "threaded" schedule is next: "deadline" by who runs out of sound first,
                "arrival" by what was submitted first. The latter is there to measure what deadlines are worth; it
                makes first chunks and gaps longer where there is much to do (docs/scheduling.md).
            backend: what runs the graphs, instead of what `device` says.

        Raises:
            EngineDirectoryError: the directory is missing, damaged or of another version.
            BackendError: this machine cannot run it.
            CapacityError: the GPU has not enough memory, or a plan holds less than is asked for.
            SettingError: a setting makes no sense.
        """
        if threads is not None:
            use = f"an integer from 1 to {MOST_THREADS}, or None for all"
            threads = integer("threads", threads, use, least=1, most=MOST_THREADS)
        max_context = integer("max_context", max_context, "some thousands of positions", least=2, none=NO_LIMIT)
        left_context = real("left_context", left_context, "0 or more seconds", none=NO_LIMIT)
        if not 0 <= left_context < math.inf:
            raise SettingError(f"left_context is {left_context}", "use 0 or more seconds, None for no limit")
        use = f"an integer from 1 to {EULER_STEPS}, the original's"
        if flow_steps is not None:
            flow_steps = integer("flow_steps", flow_steps, use, least=1, most=EULER_STEPS)
        if flow_solver is not None:
            choice("flow_solver", flow_solver, SolverRule)
        if encoder is not None:
            choice("encoder", encoder, ("window", "tail"))
        sessions = integer("sessions", sessions, f"an integer from 1 to {MOST_SESSIONS}", least=1, most=MOST_SESSIONS)
        if memory is not None:
            memory = integer("memory", memory, "a number of bytes", least=1)
        if max_waiting is not None:
            max_waiting = integer("max_waiting", max_waiting, "a number of turns, or None for no limit", least=0)
        choice("admission", admission, Admission)
        choice("schedule", schedule, ("threaded", "inline"))
        choice("order", order, get_args(Order))
        choice("device", device, Device)
        began = perf_counter()
        directory = EngineDirectory(Path(path))
        built_for = directory.manifest.settings
        engine = cls(
            directory,
            backend or select_backend(directory, Device(device), threads, cuda_graphs),
            max_context,
            left_context,
            sessions,
            memory,
            Admission(admission),
            max_waiting,
            schedule,
            FlowSolver(flow_steps or built_for.flow_steps, SolverRule(flow_solver or built_for.flow_solver)),
            (encoder or built_for.encoder) == "tail",
            order,
        )
        engine._log_load(perf_counter() - began)
        if warm_up:
            began = perf_counter()
            engine._warm_up()
            engine.backend.keep(directory)
            log.info("warmed up in %.0f ms", 1000 * (perf_counter() - began))
        return engine

    @property
    def voices(self) -> list[str]:
        """Names of the voices it can speak with."""
        return self.runtime.voices.names()

    def voice_features(self, voice: str | None = None) -> NDArray[np.float32]:
        """A stored voice as the flow wants it, (1, mel) float32; the default voice if None.

        Raises:
            SettingError: there is no voice of that name.
        """
        return self.runtime.voices.features(voice)

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler behind the "threaded" schedule."""
        assert isinstance(self.runtime.schedule, ThreadedSchedule)
        return self.runtime.schedule.scheduler

    @property
    def waiting(self) -> int:
        """Turns that have been asked and have made no sound yet."""
        return len(self.runtime.waiting)

    @property
    def expected_wait(self) -> float:
        """Seconds until a turn asked now would make its first sound, by the turns before; 0 before there were any."""
        return self.runtime.waiting.expected

    @property
    def prepared_turns(self) -> PreparedTurns:
        """What turns that were prepared have saved and wasted until now, see `Session.prepare`."""
        return self.runtime.prepared_turns.now()

    @property
    def longest_wait(self) -> float:
        """Seconds that the oldest of the turns that wait has waited; 0 if none waits."""
        return self.runtime.waiting.longest

    def session(self, *, history: Iterable[EarlierTurn] = (), **options: Unpack[SessionOptions]) -> Session:
        """Begin a conversation.

        Args:
            history: turns that it goes on from, see `Session.add_turns`. This call waits until they are prefilled; a
                coroutine leaves it out and awaits `Session.aadd_turns`.
            **options: fields of `Options`.

        Raises:
            SettingError: an option does not exist or makes no sense.
            CapacityError: there is no room for another conversation; with admission "wait" its first turn waits.
            BackendError: this process is a forked child of the one that loaded the engine.
            AudioError, ContextError: a turn of the history cannot be used, see `Session.add_turns`.
        """
        return self._resumed(history, options)

    def stream(self, audio: AudioInput | Frames | None = None, **arguments: Unpack[SessionArguments]) -> Answer:
        """Answer a single turn in a session of its own. Arguments, errors and result as of `Session.stream`.

        Args:
            audio: what was said.
            **arguments: as there, and any field of `Options`.
        """
        asked, options = question_and_options(audio, arguments)
        asked = asked.heard(self.runtime)
        return self._open(options, one_turn=True).stream(**vars(asked))

    async def astream(
        self, audio: AudioInput | Frames | None = None, **arguments: Unpack[SessionArguments]
    ) -> AsyncGenerator[Chunk]:
        """`stream` for asyncio. Same arguments."""
        asked, options = question_and_options(audio, arguments)
        asked = await asked.aheard(self.runtime)
        async with aclosing(self._open(options, one_turn=True).astream(**vars(asked))) as chunks:
            async for chunk in chunks:
                yield chunk

    def live(
        self,
        *,
        detection: Detection | None = DETECTION,
        sentence_end: SentenceEnd | None = None,
        clock: Clock = monotonic,
        history: Iterable[EarlierTurn] = (),
        **options: Unpack[SessionOptions],
    ) -> LiveConversation:
        """Begin a live conversation: sound goes in as it is spoken, events come out.

        Args:
            detection: how turns are found; None for push-to-talk.
            sentence_end: judges pauses where the detection has an eagerness, such as a `SmartTurn`.
            clock: tells seconds, from any moment on. It counts what was heard of an answer where no player says.
            history: turns that it goes on from. This call waits until they are prefilled, as of `session`; a coroutine
                calls it on a thread (`asyncio.to_thread`).
            **options: fields of `Options`.

        Raises:
            SettingError, CapacityError, BackendError, AudioError, ContextError: as `session`.
        """
        session = self._resumed(history, options)
        window = self.config.encoder.samples / WHISPER_SAMPLE_RATE
        settled = Options().merged(options)
        live = LiveConversation(session, settled, window, detection, self._ears(), sentence_end, clock)
        self._sessions.add(live)
        return live

    def _ears(self) -> ListeningThread:
        """Hears for all live conversations; made when it is first needed."""
        with self._listening_lock:
            if self._listening is None:
                self._listening = ListeningThread(shared_silero_vad())
            return self._listening

    def _resumed(self, history: Iterable[EarlierTurn], options: Mapping[str, Any]) -> Session:
        """A session that goes on from these turns."""
        turns = list(history)  # an iterator may fail
        session = self._open(options)
        if turns:
            try:
                session.add_turns(turns)
            except BaseException:
                session.close()
                raise
        return session

    def _open(self, options: Mapping[str, Any], one_turn: bool = False) -> Session:
        if self._closed:
            raise SettingError("the engine is closed", "load it again")
        check_not_forked(self.runtime.process)
        session = Session(self.runtime, Options().merged(options), one_turn)
        self._sessions.add(session)
        return session

    def close(self) -> None:
        """End what runs and give all memory back; sessions and answers that are still open end with an error."""
        self._closed = True
        for session in list(self._sessions):
            session.close()
        if self._listening is not None:
            self._listening.close()
        self.runtime.close()
        self.backend.keep(self.directory)  # what was compiled since it was loaded
        log.info("closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _log_load(self, seconds: float) -> None:
        log.info(
            "loaded %s from %s in %.0f ms: %s; %d sessions share calls, %d positions a conversation, %s for states",
            self.config.name,
            self.directory.path,
            1000 * seconds,
            self.backend.description,
            self.states.shared_sessions,
            self.max_context,
            gigabytes(self.states.budget.limit),
        )

    def _warm_up(self) -> None:
        self.states.warm_up()
        self.pipeline.encoder.warm_up()
        self.pipeline.fusion.warm_up()
        self.pipeline.decoder.warm_up()
        silence = np.zeros(self.config.encoder.samples, np.float32)
        options = Options(max_new_tokens=DECODE.warm_up_tokens, max_last_write=2 * self.config.write)
        for _ in range(1 if self.memory_plan is None else 2):  # on a GPU what comes a second time is recorded
            with Session(self.runtime, options, logged=False) as session:
                for _ in session.stream(silence, sample_rate=16_000):
                    pass
