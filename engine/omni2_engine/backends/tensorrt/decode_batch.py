"""The device memory of decoding steps: the rows of one cache, inputs and outputs of the model, and the rings in which
the host finds the tokens.

`omni2_kernels.decoding` describes the records. A row of every array belongs to the slot of that number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import CudaStream
from omni2_engine.backends.cuda.staging import Specs, offsets_of
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.cuda.table import DeviceTable
from omni2_engine.settings.tuning import DECODE
from omni2_kernels.decoding import BATCH, CANDIDATE, CONTEST, POINTERS, REPORT, ROW, ElementType, new_rows


class DecodeBatch:
    """Device and mapped memory for all slots of one cache.

    Args:
        stream: on which it is used.
        slots: of the cache.
        positions: of each slot, the spare one included, which is the last.
        vocab: logits of a position.
        table: the model's token embeddings.

    Attributes:
        addresses: on the device, by the names of `BATCH`; and `last`, which the model is fed.
        fed_logits, fed_hidden: by slot, addresses of prefill's outputs of the last position; `logits` and `hidden` of
            all slots are overwritten in every step.
        rows: (slots,) of `ROW`, of the host: what `send_rows` sends.
        tokens: (slots, ring) int32, written by the device: token i of a turn is at i modulo `DecodeTuning.token_ring`.
        hidden: (slots, ring, width) float32, likewise: of the position that produced it.
        reports: (slots,) of `REPORT`, likewise.

    Raises:
        CapacityError: the device has not enough memory.
    """

    def __init__(self, stream: StageStream, slots: int, positions: int, vocab: int, table: DeviceTable) -> None:
        self.slots, self.positions, self.vocab = slots, positions, vocab
        self._table = table
        offsets, nbytes = offsets_of(_specs(slots, positions, vocab, table.width))
        self._own = stream.pool.take(nbytes)
        begin = self._own.address
        with stream.lock:
            stream.cuda.fill(begin, 0, nbytes)
        self.addresses = {name: begin + offset for name, offset in offsets.items()}
        self.addresses["table"] = table.address
        self.fed_logits = [self.addresses[f"fed_logits_{slot}"] for slot in range(slots)]
        self.fed_hidden = [self.addresses[f"fed_hidden_{slot}"] for slot in range(slots)]
        shared = {
            "sent": ((slots,), ROW),
            "reports": ((slots,), REPORT),
            "tokens": ((slots, DECODE.token_ring), np.dtype(np.int32)),
            "hidden_ring": ((slots, DECODE.token_ring, table.width), np.dtype(np.float32)),
        }
        offsets, nbytes = offsets_of(shared)
        self._shared = stream.pin(nbytes)
        pinned, views = self._shared.memory, {}
        for name, (shape, dtype) in shared.items():
            self.addresses[name] = pinned.device_address + offsets[name]
            memory = pinned.array[offsets[name] : offsets[name] + int(np.prod(shape)) * dtype.itemsize]
            views[name] = memory.view(dtype).reshape(shape)
        self.rows: NDArray[np.void] = views["sent"]
        self.rows[:] = new_rows(slots)
        self.rows["spare"] = positions - 1
        self.tokens: NDArray[np.int32] = views["tokens"]
        self.hidden: NDArray[np.float32] = views["hidden_ring"]
        self.reports: NDArray[np.void] = views["reports"]

    @staticmethod
    def bytes_for(slots: int, positions: int, vocab: int, width: int) -> int:
        """Bytes of device memory that one takes."""
        return offsets_of(_specs(slots, positions, vocab, width))[1]

    def send_rows(self, stream: CudaStream) -> None:
        """Send the record of every row."""
        stream.upload(self.addresses["rows"], self.rows)

    def send_ids(self, stream: CudaStream, name: str, slot: int, ids: Sequence[int], start: int = 0) -> None:
        """Write ids into a row of `generated` or `forced`, from index `start` on."""
        if ids:
            row = self.addresses[name] + 4 * (slot * self.most_tokens + start)
            stream.upload(row, np.array(ids, np.int32))

    def take_fed(self, stream: CudaStream, slot: int) -> None:
        """Copy prefill's outputs of this slot to where the next choice reads them."""
        for name, source, values in (
            ("logits", self.fed_logits[slot], self.vocab),
            ("hidden", self.fed_hidden[slot], self.width),
        ):
            stream.copy(self.addresses[name] + 4 * slot * values, source, 4 * values)

    @property
    def width(self) -> int:
        """Of embeddings and hidden states."""
        return self._table.width

    @property
    def most_tokens(self) -> int:
        """Tokens of a turn at most: one for every position, and the last, which is not fed."""
        return self.positions + 1

    def record(self, visible: int) -> NDArray[np.void]:
        """The argument of the kernels, for steps that see `visible` positions."""
        batch = np.zeros((), BATCH)
        for name in POINTERS:
            batch[name] = self.addresses[name]
        values: dict[str, Any] = {
            "logits_stride": self.vocab,
            "hidden_stride": self._table.width,
            "vocab": self.vocab,
            "table_rows": self._table.rows,
            "width": self._table.width,
            "visible": visible,
            "generated_capacity": self.most_tokens,
            "forced_capacity": self.most_tokens,
            "token_ring_size": DECODE.token_ring,
            "hidden_ring_size": DECODE.token_ring,
            "table_type": self._table.type,
            "embeds_type": ElementType.FLOAT32,
        }
        for name, value in values.items():
            batch[name] = value
        return batch


def _specs(slots: int, positions: int, vocab: int, width: int) -> Specs:
    floats, ids, counts = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.int64)
    alone = {f"fed_logits_{slot}": ((vocab,), floats) for slot in range(slots)}  # each aligned as TensorRT requires
    alone |= {f"fed_hidden_{slot}": ((width,), floats) for slot in range(slots)}
    return alone | {
        "rows": ((slots,), ROW),
        "logits": ((slots, vocab), floats),
        "hidden": ((slots, width), floats),
        "chosen": ((slots,), ids),
        "contests": ((slots,), CONTEST),
        "candidates": ((slots, vocab), CANDIDATE),
        "generated": ((slots, positions + 1), ids),
        "forced": ((slots, positions + 1), ids),
        "embeds": ((slots, width), floats),
        "positions": ((slots,), counts),
        "write": ((slots,), counts),
        "last": ((slots,), counts),
        "mask": ((slots, positions), np.dtype(np.bool_)),
    }
