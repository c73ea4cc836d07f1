"""Decoding on the device: model, sampler and look-up of the next embedding follow one another, and the host reads what
came of it once, when a request of tokens is over.

Everything that changes from step to step (positions, masks, random numbers, who is still writing) lies in the device's
memory and is moved on by the step itself. So one recorded step serves every token of every burst; only how many
positions queries are shown is part of it, and there is one step for each of a few such numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from omni2_engine.backends.base.decode_request import DecodeRequest, Enough, Tokens
from omni2_engine.backends.base.kv_cache import SlotCache
from omni2_engine.backends.cuda.kernels import DeviceKernels
from omni2_engine.backends.cuda.stream import Lane
from omni2_engine.backends.cuda.table import DeviceTable
from omni2_engine.backends.tensorrt.decode_batch import RING, DecodeBatch
from omni2_engine.backends.tensorrt.decode_step import DecodeStep
from omni2_engine.backends.tensorrt.plan import Plan
from omni2_engine.errors import BackendError
from omni2_engine.sampling import Choose, Chooser, no_usable_logit
from omni2_kernels.decoding import NO_ID, State, Stop

AHEAD = 2  # steps on the stream at a time while somebody may want to come in between
LEAST_VISIBLE = 256  # positions that the shortest step shows; each further one shows twice as many


class DecodeLoop:
    """Decodes for all slots of one cache, by one thread at a time.

    All slots take part in every step, so that what a conversation gets does not depend on how many others there are.
    Those with nothing to do write to their spare position.

    Args:
        plan: of the model.
        lane: whose stream it runs on.
        cache: whose slots; it may be collected before the loop is.
        table: the model's token embeddings.
        kernels: of the device.
        recorded: launch steps as CUDA graphs.

    Attributes:
        batch: what the slots are to do.
    """

    def __init__(
        self, plan: Plan, lane: Lane, cache: SlotCache, table: DeviceTable, kernels: DeviceKernels, recorded: bool
    ) -> None:
        self._plan = plan
        self._lane = lane
        self._caches = dict(cache.caches)
        self._kernels = kernels
        self._recorded = recorded
        slots, vocab = cache.logits.shape
        self.batch = DecodeBatch(lane, slots, cache.positions, vocab, table)
        self._sizes = visible_sizes(cache.positions)
        self._steps: dict[int, DecodeStep] = {}
        self._generated: list[list[int]] = [[] for _ in range(slots)]  # ids that the device has of every slot's turn
        self._over = lane.device.event()
        self._passed = [lane.device.event() for _ in range(AHEAD)]  # by steps

    def decode_many(self, requests: Sequence[DecodeRequest], enough: Enough | None = None) -> list[Tokens]:
        """Write on; see `LanguageModel.decode_many`. `serves` is true for their choosers, and the states have room.

        Without `enough` the host only waits until all steps are over. With it, it asks while a step runs, so that the
        device waits for no answer.

        Raises:
            BackendError: the device failed, or a step cannot be recorded.
        """
        fed = [request.tokens - (request.feed is None) for request in requests]
        needed = max(request.state.length + count for request, count in zip(requests, fed, strict=True))
        with self._lane.lock:
            step = self._step(needed)
            self._begin(requests)
            fresh = [request.state.index for request in requests if request.feed is None]
            for slot in fresh:
                self.batch.take_fed(self._lane.stream, slot)
            if fresh:
                step.choose(State.PREFILLED)
            step.resume()
        self._run(step, max(fed), enough)
        self._over.synchronize()
        return [self._end(request) for request in requests]

    def _run(self, step: DecodeStep, count: int, enough: Enough | None) -> None:
        stream = self._lane.stream
        for number in range(count):
            passed = self._passed[number % AHEAD]
            if enough is not None and number:
                passed.synchronize()
                if enough():
                    break
            with self._lane.lock:
                self._launch(step)
                stream.record(passed)
        stream.record(self._over)

    def _launch(self, step: DecodeStep) -> None:
        try:
            step.run()
        except BaseException:
            with suppress(BackendError):
                self._lane.stream.synchronize()  # what it enqueued before may still need it
            del self._steps[step.visible]  # nobody knows what its context relies on now
            raise

    def warm_up(self, positions: int) -> None:
        """Record the steps that show up to so many positions, as far as there are any, while nobody has anything to
        do."""
        most = self._size(min(positions, self.batch.positions))
        with self._lane.lock:
            for size in self._sizes[: self._sizes.index(most) + 1]:
                step = self._step(size)
                self._begin([])
                step.resume()
                for _ in range(2):
                    self._launch(step)
            self._lane.stream.record(self._over)
        self._over.synchronize()

    def _size(self, positions: int) -> int:
        return next(size for size in self._sizes if size >= positions)

    def _step(self, positions: int) -> DecodeStep:
        size = self._size(positions)
        if size not in self._steps:
            self._steps[size] = DecodeStep(
                self._plan, self._lane, self._caches, self.batch, self._kernels, size, self._recorded
            )
        return self._steps[size]

    def _begin(self, requests: Sequence[DecodeRequest]) -> None:
        """Tell the device who writes on, and how; all others are parked."""
        self.batch.rows["state"] = State.PARKED
        for request in requests:
            self._join(request)
        self.batch.send_rows(self._lane.stream)

    def _join(self, request: DecodeRequest) -> None:
        slot, chooser, step = request.state.index, request.choose, len(request.generated)
        assert isinstance(chooser, Chooser) and (request.feed is None or request.feed == request.generated[-1])
        until = step + request.tokens
        if self._generated[slot] != request.generated:
            self.batch.send_ids(self._lane.stream, "generated", slot, request.generated)
            self._generated[slot] = list(request.generated)
        forced = (chooser.forced or ())[step:until]
        self.batch.send_ids(self._lane.stream, "forced", slot, forced, step)
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
        """Take what the device wrote."""
        slot, step = request.state.index, len(request.generated)
        reached, stop = (int(value) for value in self.batch.reports[slot])
        places = np.arange(step, reached) % RING
        found = Tokens(self.batch.tokens[slot, places].tolist())
        if request.hidden:
            found.hidden = list(self.batch.hidden[slot, places])
        if stop == Stop.NO_LOGIT:
            found.error = no_usable_logit(reached, "by the sampler on the device")
        request.state.length += len(found.ids) - (request.feed is None)
        self._generated[slot] += found.ids
        return found


def serves(choose: Choose) -> bool:
    """Whether tokens can be chosen on the device: its samplers know the settings, and nobody steers them."""
    if not isinstance(choose, Chooser) or choose.steer is not None:
        return False
    return choose.sampling.temperature == 0 or choose.sampling.top_p == 1


def visible_sizes(positions: int) -> list[int]:
    """Positions that steps show, for caches of so many: few, as each is recorded by itself."""
    sizes = [LEAST_VISIBLE]
    while sizes[-1] < positions:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], positions]
