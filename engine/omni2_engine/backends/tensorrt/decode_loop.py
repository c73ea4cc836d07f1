"""Multi-step decode on the device: model, sampler and look-up of the next embedding follow one another, and the host
reads the tokens once, at the end.

Everything that changes from step to step (positions, masks, random numbers, which rows run) lies in the device's
memory and is updated by the step itself. So one recorded step serves all tokens. Only the number of visible positions
is part of a recorded step; there is a step for each of a few such numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from omni2_engine.backends.base.decode_request import DecodeRequest, Enough, Tokens
from omni2_engine.backends.base.kv_cache import SlotCache
from omni2_engine.backends.cuda.kernels import DeviceKernels
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.cuda.table import DeviceTable
from omni2_engine.backends.tensorrt.decode_batch import DecodeBatch
from omni2_engine.backends.tensorrt.decode_step import DecodeStep
from omni2_engine.backends.tensorrt.plan import TensorRTPlan
from omni2_engine.errors import BackendError
from omni2_engine.sampling import Choose, Chooser, no_usable_logit
from omni2_engine.settings.tuning import DECODE
from omni2_kernels.decoding import NO_ID, State, Stop


class DecodeLoop:
    """Decodes for all slots of one cache, by one thread at a time.

    All slots take part in every step, so that a result does not depend on the number of other conversations. Idle slots
    write to their spare position.

    Args:
        plan: of the model.
        stream: on which it runs.
        cache: whose slots; it may be collected before the loop.
        table: the model's token embeddings.
        kernels: of the device.
        recorded: launch steps as CUDA graphs.

    Attributes:
        batch: memory of the steps.
    """

    def __init__(
        self,
        plan: TensorRTPlan,
        stream: StageStream,
        cache: SlotCache,
        table: DeviceTable,
        kernels: DeviceKernels,
        recorded: bool,
    ) -> None:
        self._plan = plan
        self._stream = stream
        self._caches = dict(cache.caches)
        self._kernels = kernels
        self._recorded = recorded
        slots, vocab = cache.logits.shape
        self.batch = DecodeBatch(stream, slots, cache.positions, vocab, table)
        self._sizes = visible_sizes(cache.positions)
        self._steps: dict[int, DecodeStep] = {}
        self._generated: list[list[int]] = [[] for _ in range(slots)]  # ids that the device has of every slot's turn
        self._over = stream.device.event()
        self._passed = [stream.device.event() for _ in range(DECODE.steps_ahead)]  # by steps

    def decode_many(self, requests: Sequence[DecodeRequest], enough: Enough | None = None) -> list[Tokens]:
        """Decode; see `LanguageModel.decode_many`. `serves` is true for their choosers, and the states have room.

        Without `enough` the host waits until all steps are over. With it, the host calls `enough` while a step runs, so
        that the device does not wait.

        Raises:
            BackendError: the device failed, or a step cannot be recorded.
        """
        fed = [request.tokens - (request.feed is None) for request in requests]
        needed = max(request.state.length + count for request, count in zip(requests, fed, strict=True))
        with self._stream.lock:
            step = self._step(needed)
            self._begin(requests)
            fresh = [request.state.index for request in requests if request.feed is None]
            for slot in fresh:
                self.batch.take_fed(self._stream.cuda, slot)
            if fresh:
                step.choose(State.PREFILLED)
            step.resume()
        self._run(step, max(fed), enough)
        self._over.synchronize()
        return [self._end(request) for request in requests]

    def _run(self, step: DecodeStep, count: int, enough: Enough | None) -> None:
        cuda = self._stream.cuda
        for number in range(count):
            passed = self._passed[number % DECODE.steps_ahead]
            if enough is not None and number:
                passed.synchronize()
                if enough():
                    break
            with self._stream.lock:
                self._launch(step)
                cuda.record(passed)
        cuda.record(self._over)

    def _launch(self, step: DecodeStep) -> None:
        try:
            step.run()
        except BaseException:
            with suppress(BackendError):
                self._stream.cuda.synchronize()  # what it enqueued before may still need it
            del self._steps[step.visible]  # the state of its context is unknown
            raise

    def warm_up(self) -> None:
        """Record all steps, while no row runs."""
        with self._stream.lock:
            for size in self._sizes:
                step = self._step(size)
                self._begin([])
                step.resume()
                for _ in range(2):
                    self._launch(step)
            self._stream.cuda.record(self._over)
        self._over.synchronize()

    def _size(self, positions: int) -> int:
        return next(size for size in self._sizes if size >= positions)

    def _step(self, positions: int) -> DecodeStep:
        size = self._size(positions)
        if size not in self._steps:
            self._steps[size] = DecodeStep(
                self._plan, self._stream, self._caches, self.batch, self._kernels, size, self._recorded
            )
        return self._steps[size]

    def _begin(self, requests: Sequence[DecodeRequest]) -> None:
        """Send the records of the rows that run; all others are parked."""
        self.batch.rows["state"] = State.PARKED
        for request in requests:
            self._join(request)
        self.batch.send_rows(self._stream.cuda)

    def _join(self, request: DecodeRequest) -> None:
        slot, chooser, step = request.state.index, request.choose, len(request.generated)
        assert isinstance(chooser, Chooser) and (request.feed is None or request.feed == request.generated[-1])
        until = step + request.tokens
        if self._generated[slot] != request.generated:
            self.batch.send_ids(self._stream.cuda, "generated", slot, request.generated)
            self._generated[slot] = list(request.generated)
        forced = (chooser.forced or ())[step:until]
        self.batch.send_ids(self._stream.cuda, "forced", slot, forced, step)
        row, sampling, key = self.batch.rows[slot], chooser.sampling, chooser.key
        row["seed"], row["stream"], row["turn"], row["step"] = key.seed, key.stream, key.turn, step
        row["temperature"], row["top_k"] = sampling.temperature, sampling.top_k
        row["penalty"] = sampling.repetition_penalty
        row["state"] = State.PREFILLED if request.feed is None else State.JOINING
        row["stop"], row["until"], row["forced"] = Stop.NOT_STOPPED, until, step + len(forced)
        row["length"] = request.state.length
        row["ends"] = NO_ID
        row["ends"][: len(request.ends)] = request.ends
        self.batch.reports[slot] = (step, Stop.NOT_STOPPED)

    def _end(self, request: DecodeRequest) -> Tokens:
        """Read what the device wrote."""
        slot, step = request.state.index, len(request.generated)
        reached, stop = (int(value) for value in self.batch.reports[slot])
        entries = np.arange(step, reached) % DECODE.token_ring
        found = Tokens(self.batch.tokens[slot, entries].tolist())
        if request.hidden:
            found.hidden = list(self.batch.hidden[slot, entries])
        if stop == Stop.NO_LOGIT:
            found.error = no_usable_logit(reached, "by the sampler on the device")
        request.state.length += len(found.ids) - (request.feed is None)
        self._generated[slot] += found.ids
        return found


def serves(choose: Choose) -> bool:
    """Whether the device's samplers can choose: they have the settings, and no hook replaces tokens."""
    if not isinstance(choose, Chooser) or choose.steer is not None:
        return False
    return choose.sampling.temperature == 0 or choose.sampling.top_p == 1


def visible_sizes(positions: int) -> list[int]:
    """Visible positions of the steps for a cache of `positions`: few numbers, as each step is recorded by itself."""
    sizes = [DECODE.least_visible]
    while sizes[-1] < positions:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], positions]
