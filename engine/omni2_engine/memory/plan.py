"""What an engine will take of the device's memory, reckoned before anything is allocated for sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from omni2_engine.backends.base.backend import Backend
from omni2_engine.errors import CapacityError
from omni2_engine.memory.budget import Admission
from omni2_engine.stages.pipeline import Pipeline

GIB = 1 << 30


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose, and what there is.

    Args:
        title: what is loaded: "7B bf16, 8 sessions, 10 s flow context".
        parts: purpose → bytes, weights among them.
        available: bytes this process may have: those it has already, and those that are free.
        total: bytes of the device.
        fitting: sessions for which there would be room, of those that were asked for.
        left: bytes of what is free that sessions leave to calls and to other processes.
        waits: admission is "wait" already.
    """

    title: str
    available: int
    total: int
    parts: Mapping[str, int] = field(default_factory=dict)
    fitting: int = 0
    left: int = 0
    waits: bool = False

    @property
    def needed(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gib(size)}" for name, size in self.parts.items())
        besides = {"taken by others": self.total - self.available, "left to calls": self.left}
        notes = ", ".join(f"{gib(size)} {what}" for what, size in besides.items() if size > 0)
        text = f"{self.title}: {parts}; together {gib(self.needed)} of {gib(self.total)} GiB"
        return f"{text} ({notes})" if notes else text

    def check(self) -> None:
        """Hold it against what there is.

        Raises:
            CapacityError: it does not fit; says by how much, and what would make it fit.
        """
        missing = self.needed + self.left - self.available
        if missing <= 0:
            return
        fewer = f"load with sessions={self.fitting}, " if self.fitting else ""
        wait = "" if self.waits else 'with admission="wait", which needs the flow caches of one turn alone, '
        either = "or " if fewer or wait else ""
        raise CapacityError(
            f"{self}: {gib(missing)} GiB too much",
            f"{fewer}{wait}{either}with fewer flow_steps; "
            "end what else uses the GPU; or build for less: plans fix their caches' lengths (--left-context, "
            "--max-context), and --precision has weights of fewer bits",
        )


def plan_memory(
    backend: Backend,
    pipeline: Pipeline,
    sessions: int,
    positions: int,
    speech_positions: int,
    budget: int,
    admission: Admission,
) -> MemoryPlan | None:
    """What a device will hold once all sessions are busy; None where there is no device.

    A session has the language models' caches as long as it is open, and the flow's while it is answered: with admission
    "wait" as many are answered at once as there is room for.

    Args:
        backend: holds the pipeline's weights already.
        pipeline: the stages.
        sessions: that share calls.
        positions: of the language model's KV cache of a session.
        speech_positions: of the speech LM's.
        budget: bytes that states of all sessions may take together.
        admission: what happens where there is no room for all.
    """
    device = backend.device_memory()
    if device is None:
        return None
    model, llm, speech_lm, flow = pipeline.config, pipeline.llm, pipeline.speech_lm, pipeline.decoder.flow
    turn = flow.nbytes(speech_positions / model.flow_encoder.unit_rate)

    def caches(count: int) -> tuple[int, int]:
        return llm.nbytes(count, positions), speech_lm.nbytes(count, speech_positions)

    text, speech = caches(sessions)
    held = {**device.holds, "embeddings": llm.held + speech_lm.held, "tails": pipeline.encoder.held}
    fitting = max((n for n in range(1, sessions + 1) if sum(caches(n)) + n * turn <= budget), default=0)
    answered, title = sessions, f"{model.name}, {sessions} session{'s' if sessions > 1 else ''}"
    if admission is Admission.WAIT and fitting < sessions:
        answered = min(max((budget - text - speech) // turn, 1), sessions)
        title += f", {answered} answered at once"
    return MemoryPlan(
        f"{title}, {flow.left_context:g} s flow context",
        device.free + sum(held.values()),
        device.total,
        {**held, "text caches": text, "speech caches": speech, "flow caches": answered * turn},
        fitting,
        max(device.free - budget, 0),
        admission is Admission.WAIT,
    )


def gib(nbytes: int) -> str:
    """Bytes as a number of GiB with as many digits as tell something."""
    return f"{nbytes / GIB:.1f}" if nbytes >= GIB / 2 else f"{nbytes / GIB:.3f}"
