"""The C++ extension, built from cpp/: random numbers and samplers, the processor's instructions, the scheduler and its
simulation, a CUDA device.

Random numbers and samplers (Philox4x32-10): a draw is named by `seed` (below 2^64) and `stream`, `turn`, `step` (each
below 2^32). Every function raises ValueError for an array of another dtype or layout and for a number out of its range;
none keeps state, and all but `philox4x32` run without the interpreter lock. Results are the same to the bit on every
machine.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, SupportsIndex

import numpy as np
from numpy.typing import NDArray

class NoCandidateError(ValueError):
    """No logit can be chosen: all are NaN or, for a draw, minus infinity."""

def philox4x32(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The generator itself: counter (4,), key (2,) → four random words (4,)."""

def uniform(
    out: NDArray[np.float32], seed: SupportsIndex, stream: SupportsIndex, turn: SupportsIndex, step: SupportsIndex
) -> None:
    """Fill `out` (any shape, C-contiguous, at most 2^34 values) with uniforms in the open interval (0, 1)."""

def normal(
    out: NDArray[np.float32], seed: SupportsIndex, stream: SupportsIndex, turn: SupportsIndex, step: SupportsIndex
) -> None:
    """Fill `out` (any shape, C-contiguous, at most 2^34 values) with standard normals."""

def greedy(logits: NDArray[np.float32], generated: NDArray[np.int64], penalty: float) -> int:
    """Id of the greatest logit after the repetition penalty (spec §6), the first of equals; logits (V,) stay.

    Each id in `generated` (any length, repeats count once) has its logit divided by `penalty`, multiplied if negative.
    NaN never wins; all NaN raises NoCandidateError.
    """

def sample(
    logits: NDArray[np.float32],
    generated: NDArray[np.int64],
    penalty: float,
    temperature: float,
    top_k: SupportsIndex,
    top_p: float,
    seed: SupportsIndex,
    stream: SupportsIndex,
    turn: SupportsIndex,
    step: SupportsIndex,
) -> int:
    """One draw from softmax(penalised logits / temperature), logits (V,) left as they are.

    `temperature` 0 is `greedy`. `top_k` keeps the logits not below the k-th greatest, ties included (0, or V and more:
    all); `top_p` in (0, 1] then keeps the fewest, likeliest first, that hold this share of what is left (1: all). NaN
    and minus infinity are never drawn; NoCandidateError where nothing else is.
    """

def processor_instructions() -> list[str]:
    """Vector and int8 instructions that the processor has and the system lets programs use, by Linux's names for them.

    Of avx2, avx512f, avx_vnni, avx512_vnni and amx_int8 on x86, of asimddp and i8mm on 64-bit ARM; empty elsewhere.
    """

def raise_cuda_errors_as(error: type[Exception], out_of_memory: type[Exception]) -> None:
    """Name the exceptions that CUDA's errors become; each is made from a problem and its remedy.

    `omni2_engine.errors` does so with BackendError and CapacityError. Before that they are RuntimeErrors.
    """

class CudaDevice:
    """The first CUDA device that CUDA_VISIBLE_DEVICES leaves, through a libcudart found when the program runs.

    Addresses are the device's, as integers. What is made here is released with its last reference, and must live until
    the streams have passed the work enqueued on it. Every method may be called from any thread and raises BackendError
    for what CUDA refuses. An error of the device itself is final: every later call reports it.

    Args:
        library: path of libcudart; without one, the path in OMNI2_CUDART or else the system's (CUDA 13, then 12).

    Raises:
        omni2_engine.errors.BackendError: there is no library, driver or device.
    """

    def __init__(self, library: str | None = None) -> None: ...
    @property
    def library(self) -> str:
        """Path of libcudart, as loaded."""

    @property
    def name(self) -> str:
        """Of the model: "NVIDIA L40"."""

    @property
    def capability(self) -> tuple[int, int]:
        """Of the architecture: (8, 9)."""

    @property
    def driver_version(self) -> tuple[int, int]:
        """The newest CUDA that the driver knows."""

    @property
    def runtime_version(self) -> tuple[int, int]:
        """The CUDA that the library belongs to."""

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the device, for all processes."""

    def allocate(self, nbytes: int) -> DeviceMemory:
        """Memory of the device, not initialised. CapacityError where it has too little left."""

    def pin(self, nbytes: int) -> PinnedMemory:
        """Memory of the host that the device copies from and to asynchronously, not initialised."""

    def stream(self, priority: int = 0) -> CudaStream:
        """A new stream; a lower priority is more urgent, clamped to those the device has."""

    def event(self, timed: bool = False) -> CudaEvent:
        """A new event; `timed` ones cost a little more and can be compared with `since`."""

    def load(self, image: bytes) -> CudaModule:
        """Load a cubin, fatbin or PTX."""

class DeviceMemory:
    @property
    def address(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class PinnedMemory:
    """Page-locked memory of the host, which the device can reach too."""

    @property
    def array(self) -> NDArray[np.uint8]:
        """(nbytes,) the memory itself, which lives as long as a view of it."""

    @property
    def device_address(self) -> int:
        """Where a kernel finds it."""

    @property
    def nbytes(self) -> int: ...

class CudaEvent:
    """A point in a stream: where it was recorded last."""

    def synchronize(self) -> None:
        """Wait until the stream has passed it; an event never recorded is not waited for."""

    def since(self, start: CudaEvent) -> float:
        """Seconds of the device's clock from `start` to this one, both timed and passed; BackendError otherwise."""

class CudaGraph:
    """The work a stream captured, launched as one piece with the addresses and sizes it had then."""

class CudaModule:
    def kernel(self, name: str, shared_memory: int = 0) -> CudaKernel:
        """The kernel of that name. BackendError: there is none.

        Args:
            shared_memory: the most bytes of dynamic shared memory it is launched with.
        """

class CudaKernel: ...

class CudaStream:
    """A queue of work on the device, which runs in the order in which it was enqueued. Streams run at the same time.

    Arrays are C-contiguous (ValueError). Pinned ones stay untouched until the stream has passed; others are copied at
    once (`upload`) or waited for (`download`).
    """

    @property
    def handle(self) -> int:
        """The cudaStream_t."""

    def upload(self, to: int, source: NDArray[Any]) -> None:
        """Copy an array to a device address."""

    def download(self, to: NDArray[Any], source: int) -> None:
        """Copy from a device address into an array, as many bytes as it has."""

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """Copy within the device."""

    def copy_rows(self, to: int, to_pitch: int, source: int, source_pitch: int, width: int, rows: int) -> None:
        """Copy `rows` times `width` bytes within the device; a row begins `pitch` bytes behind the one before."""

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """Set every byte."""

    def launch(
        self,
        kernel: CudaKernel,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[int | np.generic | NDArray[Any] | bytes],
        shared_memory: int = 0,
    ) -> None:
        """Run a kernel.

        Args:
            grid, block: blocks of the grid, threads of a block.
            arguments: for each parameter an address (int), a numpy scalar of its very type, or a structure's bytes.
            shared_memory: dynamic, bytes.
        """

    def launch_graph(self, graph: CudaGraph) -> None: ...
    def record(self, event: CudaEvent) -> None: ...
    def begin_capture(self) -> None:
        """From here on what is enqueued on the stream is captured instead of run.

        Meanwhile this thread must not allocate memory, and no thread may wait for the stream. RuntimeError: the stream
        captures already.
        """

    def end_capture(self) -> CudaGraph:
        """The captured work. BackendError where some of it cannot be captured; the capture is over then, too."""

    def synchronize(self) -> None:
        """Wait for all work enqueued so far. BackendError: the device failed; RuntimeError: the stream captures."""

class SchedulerError(RuntimeError):
    """A call that the scheduler cannot follow in its present state."""

class SessionCancelledError(SchedulerError):
    """The session is cancelled or closed: it takes no tasks."""

class SchedulerClosedError(SchedulerError):
    """The scheduler is shut down: it takes no sessions and no tasks."""

class Stage:
    """One step of the model, as the scheduler sees it.

    `run` gets the payloads of one call, at most `max_batch`, each of another session. It returns None, or a list with
    an exception for each payload that failed and None for the others; what it raises fails them all. Of one session's
    tasks that could run, those of the stage with the lowest `priority` go first: give downstream stages the lower
    numbers.

    The tasks are done when `run` returns. All calls of a stage are made on one thread of its own, so that
    threading.local() values stay.

    Tasks may submit tasks and cancel sessions. They must come to an end: shutting down, and so the end of the process,
    waits for them. TypeError for a `run` that cannot be called; ValueError for a max_batch below 1.
    """

    def __init__(
        self,
        name: str,
        run: Callable[..., list[BaseException | None] | None],
        max_batch: int = 1,
        priority: int = 0,
    ) -> None: ...

class Scheduler:
    """Runs the tasks of many sessions on a thread per stage: each stage one call at a time, several stages at once.

    What runs next on a free stage, or of all free stages where `width` leaves room for fewer: sessions whose first
    chunk is not out yet, in the order of their `begin`; then the session whose player runs dry first; then the stage
    with the lowest priority; then what was submitted first. A call takes the most urgent task and those of other
    sessions with its key.

    A task that fails cancels its session and no other. Every method may be called from any thread. A session that was
    closed is no error, other than for `submit` and `revive`; a number that never was a session's is (ValueError).

    Args:
        stages: named by their index from here on.
        width: calls that may run at once, 1 or more; by default one for each stage. With fewer than stages, calls are
            taken to share processors: beside a call for a first chunk none starts.
        order: "deadline", as above; "arrival": what was submitted first.

    Raises:
        ValueError: no stages, a width of 0, or an unknown order.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        width: int | None = None,
        order: Literal["deadline", "arrival"] = "deadline",
    ) -> None: ...
    def open(self, failed: Callable[[BaseException], None] | None = None, run_ahead: float = ...) -> int:
        """A new session; returns its id.

        `failed` is called with the error when a task of the session fails, once until it is revived, on a thread of the
        scheduler; the session is drained only when it has returned. What it raises is reported by sys.unraisablehook.
        While the lead exceeds `run_ahead` seconds (0 or more; unlimited by default) and any other session is live, that
        is in a turn or with tasks of its own, no task of this one starts. ValueError; SchedulerClosedError.
        """

    def submit(self, session: int, stage: int, payload: Any, after: Sequence[int] = (), key: int = 0) -> int:
        """Queue a task for the stage of that index; returns its id.

        It runs after the tasks `after` (ids of this session, submitted since it was opened or revived), and after all
        that the session submitted to this stage before. Tasks of a stage with one `key` may share a call.
        SessionCancelledError if the session is cancelled or closed; SchedulerClosedError; ValueError for a stage or a
        task that does not exist.
        """

    def begin(self, session: int) -> None:
        """A turn begins: its first chunk of sound is due at once, and the lead is 0 until it comes."""

    def speculate(self, session: int) -> None:
        """Work on a turn that may never be asked for, until `begin` or `revive`.

        None of its tasks starts while a task of another session waits, other than of one that speculates too or whose
        player has more than a second of lead (with order "arrival" lead does not count); none shares a call with a task
        that does not speculate. So a task of a session without such a lead waits for one speculative call at most, one
        that ran when it came or when the lead fell to a second. Of those that speculate, sessions that keep no sound
        yet come first.
        """

    def delivered(self, session: int, seconds: float) -> None:
        """That much sound was handed to the player, or is kept for it by a session that speculates: the deadline moves
        to max(deadline, now) + seconds. ValueError."""

    def finish(self, session: int) -> None:
        """The turn is over: what the session still submits has no deadline, and comes after all that has one."""

    def hold(self, session: int, held: bool) -> None:
        """While held, no task of the session starts; running ones finish."""

    def cancel(self, session: int) -> None:
        """Drop what is queued: from now on no task of the session starts. A running one finishes. Returns at once."""

    def revive(self, session: int) -> None:
        """After `cancel` or a failure, once drained: a new turn may submit. SchedulerError while a task still runs."""

    def close(self, session: int) -> None:
        """`cancel`, and forget the session once it is drained."""

    def lead(self, session: int) -> float:
        """Seconds until the player runs dry; negative: for how long it has been; 0 before the turn's first sound."""

    def drained(self, session: int, timeout: float | None = None) -> bool:
        """Wait until no task of the session runs or is queued; False if that takes longer than `timeout` seconds.

        A task may ask with a timeout of 0, but not wait (SchedulerError).
        """

    def now(self) -> float:
        """Seconds since the scheduler was made."""

    def should_preempt(self, stage: int) -> bool:
        """Whether the stage's call should end early: a waiting task would come before its rest, or could share it.

        For a long call that can leave the rest of its work to another one. ValueError for a stage that does not exist.
        """

    def counts(self) -> tuple[int, int, int]:
        """(sessions open, tasks queued, tasks running)."""

    def speculation(self) -> tuple[int, int, int]:
        """(speculative calls so far, tasks that come before them and could have started but for them, the most such
        calls that one task waited for, one after another)."""

    def shutdown(self) -> None:
        """Close all sessions, wait for running calls, end all threads and let go of the stages' callables.

        Also done when the scheduler is collected, and before the interpreter ends. A scheduler whose stages refer to it
        is never collected: shut it down. SchedulerError from within a task.
        """

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """`shutdown`."""

class Simulation:
    """The same scheduler on a virtual clock, in one thread: calls take the time a model says, and nothing waits.

    What is not described here is as in `Scheduler`. A stage's `run` is called at the virtual time when its call is
    over.

    Args:
        stages: as for `Scheduler`.
        cost: (stage, payloads) → the seconds that this call takes, 0 or more.
        width, order: as for `Scheduler`.

    Raises:
        ValueError: no stages, a width of 0, or an unknown order.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        cost: Callable[[int, list[Any]], float],
        width: int | None = None,
        order: Literal["deadline", "arrival"] = "deadline",
    ) -> None: ...
    def open(self, failed: Callable[[BaseException], None] | None = None, run_ahead: float = ...) -> int: ...
    def submit(self, session: int, stage: int, payload: Any, after: Sequence[int] = (), key: int = 0) -> int: ...
    def begin(self, session: int) -> None: ...
    def speculate(self, session: int) -> None: ...
    def delivered(self, session: int, seconds: float) -> None: ...
    def finish(self, session: int) -> None: ...
    def hold(self, session: int, held: bool) -> None: ...
    def cancel(self, session: int) -> None: ...
    def revive(self, session: int) -> None: ...
    def close(self, session: int) -> None: ...
    def lead(self, session: int) -> float: ...
    def drained(self, session: int, timeout: float | None = None) -> bool:
        """Whether no task of the session runs or is queued: there is nothing to wait for."""

    def now(self) -> float: ...
    def should_preempt(self, stage: int) -> bool: ...
    def counts(self) -> tuple[int, int, int]: ...
    def speculation(self) -> tuple[int, int, int]: ...
    def shutdown(self) -> None:
        """Close all sessions and let go of all callables, but keep the trace. SchedulerError from within `run`."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def at(self, time: float, action: Callable[[], object]) -> None:
        """Call action() at that virtual time, which must not lie in the past (ValueError)."""

    def run(self, until: float = ...) -> None:
        """Go on until nothing more happens, or up to and including the time `until`, where it leaves the clock.

        What an action, the cost or a `failed` raises comes out here, and the simulation is then over, as it is after
        `shutdown`: SchedulerError for a further run. ValueError for a cost below 0.
        """

    @property
    def trace(self) -> list[tuple[int, float, float, list[int]]]:
        """(stage, start, stop, sessions) of every call so far, in the order of their starts; virtual seconds."""
