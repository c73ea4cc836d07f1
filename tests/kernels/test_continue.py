"""What follows a choice: lists, rings, the model's next inputs, the end of a request; against plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from omni2_engine import _core
from omni2_kernels.decoding import NO_ID, State, Stop

VOCAB, WIDTH, VISIBLE, CAPACITY, RING, HIDDEN_RING = 50, 37, 24, 12, 5, 3
ARRAYS = ("rows", "generated", "tokens", "reports", "hidden_ring", "embeds", "positions", "write", "mask")


def new_batch(decoding: Any, rows: int, seed: int) -> Any:
    """Rows in the middle of something, every array full of numbers."""
    random = np.random.default_rng(seed)
    table = random.normal(size=(VOCAB, WIDTH)).astype(np.float32)
    sizes = dict(width=WIDTH, visible=VISIBLE, capacity=CAPACITY, ring=RING, hidden_ring=HIDDEN_RING)
    batch = decoding(rows, VOCAB, table=table, **sizes)
    for name in ("hidden", "hidden_ring", "embeds"):
        array = getattr(batch, name)
        array[...] = random.normal(size=array.shape)
    for name in ("generated", "tokens"):
        array = getattr(batch, name)
        array[...] = random.integers(0, VOCAB, size=array.shape)
    for name in ("positions", "write"):
        getattr(batch, name)[...] = random.integers(0, 9, size=rows)
    batch.mask[...] = random.integers(0, 2, size=batch.mask.shape)
    batch.chosen[...] = random.integers(NO_ID, VOCAB, size=rows)
    batch.forced[...] = random.integers(NO_ID, VOCAB, size=batch.forced.shape)
    s = batch.rows
    s["state"] = random.integers(0, 4, size=rows)
    s["step"] = random.integers(0, CAPACITY + 2, size=rows)
    s["until"] = s["step"] + random.integers(1, 4, size=rows)
    s["forced"] = random.choice([0, 0, CAPACITY], size=rows)
    s["length"] = random.integers(1, VISIBLE + 2, size=rows)
    s["spare"] = random.choice([VISIBLE - 1, VISIBLE + 7], size=rows)
    s["ends"][:, 0] = random.integers(0, VOCAB, size=rows)
    s["ends"][:, 7] = batch.chosen
    s["ends"][random.random(rows) < 0.7] = NO_ID
    return batch


def copies(batch: Any) -> dict[str, NDArray[Any]]:
    return {name: getattr(batch, name).copy() for name in ARRAYS}


def place(batch: Any, want: dict[str, NDArray[Any]], row: int, token: int, whole: bool) -> None:
    """The row's token among the model's inputs."""
    length = int(batch.rows[row]["length"])
    want["embeds"][row] = batch.table[token]
    want["positions"][row] = want["write"][row] = length
    if whole:
        want["mask"][row] = np.arange(VISIBLE) <= length
    want["mask"][row, length] = 1
    want["rows"][row]["length"] = length + 1
    want["rows"][row]["state"] = State.RUNNING


def park(batch: Any, want: dict[str, NDArray[Any]], row: int) -> None:
    want["rows"][row]["state"] = State.PARKED
    want["positions"][row], want["write"][row] = 0, batch.rows[row]["spare"]


def continued(batch: Any, serve: State) -> dict[str, NDArray[Any]]:
    """What `sample_and_embed` is to leave behind."""
    want = copies(batch)
    for row, s in enumerate(batch.rows):
        if s["state"] != serve:
            continue
        step, token = int(s["step"]), int(batch.chosen[row])
        if step < s["forced"] and step < CAPACITY and batch.forced[row, step] >= 0:
            token = int(batch.forced[row, step])
        room = s["length"] < s["spare"] and s["length"] < VISIBLE
        if token < 0:
            stop = Stop.NO_LOGIT
        elif step >= CAPACITY:
            stop = Stop.FULL
        else:
            want["generated"][row, step] = want["tokens"][row, step % RING] = token
            want["hidden_ring"][row, step % HIDDEN_RING] = batch.hidden[row]
            want["rows"][row]["step"] = step + 1
            if token in s["ends"]:
                stop = Stop.END
            elif step + 1 >= s["until"]:
                stop = Stop.UNTIL
            else:
                stop = Stop.NOT_STOPPED if room else Stop.FULL
        want["rows"][row]["stop"] = stop
        want["reports"][row] = (want["rows"][row]["step"], stop)
        if stop == Stop.NOT_STOPPED:
            place(batch, want, row, token, whole=serve == State.PREFILLED)
        else:
            park(batch, want, row)
    return want


def resumed(batch: Any) -> dict[str, NDArray[Any]]:
    """What `resume` is to leave behind."""
    want = copies(batch)
    for row, s in enumerate(batch.rows):
        step = int(s["step"])
        if s["state"] == State.JOINING:
            if 0 < step <= CAPACITY and s["length"] < s["spare"] and s["length"] < VISIBLE:
                place(batch, want, row, int(batch.generated[row, step - 1]), whole=True)
                continue
            want["rows"][row]["stop"] = Stop.FULL
            want["reports"][row] = (step, Stop.FULL)
            park(batch, want, row)
        elif s["state"] == State.PARKED:
            park(batch, want, row)
        else:
            continue
        want["mask"][row, 0] = 1
    return want


def assert_same(batch: Any, want: dict[str, NDArray[Any]]) -> None:
    for name, array in want.items():
        assert np.array_equal(getattr(batch, name), array), name


@pytest.mark.parametrize("serve", [State.RUNNING, State.PREFILLED])
@pytest.mark.parametrize("seed", range(8))
def test_one_step_of_many_rows(decoding: Any, serve: State, seed: int) -> None:
    batch = new_batch(decoding, 60, seed)
    batch.emulator.library.omni2_emulated_order(seed)
    want = continued(batch, serve)
    batch.run("sample_and_embed", serve)
    assert_same(batch, want)


def test_the_rows_of_that_test_stop_for_every_reason(decoding: Any) -> None:
    seen = set()
    for seed in range(8):
        batch = new_batch(decoding, 60, seed)
        served = batch.rows["state"] == State.RUNNING
        seen |= set(continued(batch, State.RUNNING)["rows"]["stop"][served].tolist())
    assert seen == set(Stop)


@pytest.mark.parametrize("seed", range(8))
def test_resuming_many_rows(decoding: Any, seed: int) -> None:
    batch = new_batch(decoding, 60, seed)
    batch.emulator.library.omni2_emulated_order(seed)
    want = resumed(batch)
    batch.run("resume")
    assert_same(batch, want)


def test_what_is_not_there_is_not_used(decoding: Any) -> None:
    batch = new_batch(decoding, 60, 3)
    batch.rows["forced"] = 0
    for name in ("forced", "tokens", "reports", "hidden", "hidden_ring"):
        batch.batch[name] = 0
    for name in ("token_ring_size", "hidden_ring_size", "forced_capacity"):
        batch.batch[name] = 0
    want = continued(batch, State.RUNNING)
    for name in ("tokens", "reports", "hidden_ring"):
        want[name] = getattr(batch, name).copy()
    batch.run("sample_and_embed", State.RUNNING)
    assert_same(batch, want)
    batch.run("resume")


class Model:
    """Stands where the decoder does: logits and hidden state of what a row has seen so far, through its cache."""

    def __init__(self, rows: int, positions: int) -> None:
        random = np.random.default_rng(1)
        self.cache = np.zeros((rows, positions, WIDTH), np.float32)
        self.head = random.normal(size=(WIDTH, VOCAB)).astype(np.float32)

    def look(self, cache: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits and hidden state after the positions of a cache (n, WIDTH)."""
        hidden = np.tanh(cache.sum(0, dtype=np.float32) / np.float32(3)).astype(np.float32)
        return (hidden @ self.head).astype(np.float32), hidden

    def run(self, batch: Any) -> None:
        """One step over the batch, parked rows among it."""
        for row in range(len(batch.rows)):
            self.cache[row, batch.write[row]] = batch.embeds[row] + np.float32(0.01 * batch.positions[row])
            seen = np.flatnonzero(batch.mask[row])
            batch.logits[row], batch.hidden[row] = self.look(self.cache[row, seen])


def plain_turn(
    model: Model, table: NDArray[Any], prompt: NDArray[np.float32], s: Any, tokens: int, end: int
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """One conversation decoded alone, token by token: ids and the hidden states that produced them."""
    cache = prompt
    ids: list[int] = []
    hiddens = []
    while True:
        logits, hidden = model.look(cache)
        penalty, temperature, top_k = float(s["penalty"]), float(s["temperature"]), int(s["top_k"])
        listed = np.array(ids, np.int64)
        key = (int(s["seed"]), int(s["stream"]), int(s["turn"]), len(ids))
        ids.append(_core.sample(logits, listed, penalty, temperature, top_k, 1.0, *key))
        hiddens.append(hidden)
        if ids[-1] == end or len(ids) == tokens:
            return ids, hiddens
        cache = np.concatenate([cache, table[ids[-1]][None] + np.float32(0.01 * len(cache))])


def test_turns_in_several_requests_equal_turns_in_one(decoding: Any) -> None:
    """Three conversations, begun one after another, decoded four tokens at a time: the tokens of each decoded alone."""
    rows, steps, total, end, positions = 3, 4, 11, 7, 64
    random = np.random.default_rng(4)
    table = random.normal(size=(VOCAB, WIDTH)).astype(np.float32)
    sizes = dict(width=WIDTH, visible=positions, capacity=total, ring=steps, hidden_ring=steps)
    batch = decoding(rows, VOCAB, table=table, **sizes)
    model = Model(rows, positions)
    prompts = [random.normal(size=(n, WIDTH)).astype(np.float32) for n in (5, 9, 3)]
    s = batch.rows
    s["state"], s["spare"] = State.PARKED, positions - 1
    s["temperature"], s["top_k"], s["penalty"], s["seed"] = [0, 1, 2], [0, 5, 0], [1.3, 1, 1.1], [3, 4, 5]
    s["ends"][:, 2] = end
    wanted = [plain_turn(model, table, prompts[row], s[row], total, end) for row in range(rows)]
    assert len({len(ids) for ids, _ in wanted}) > 1, "one ends by itself, or this shows less than it should"

    told: list[list[int]] = [[] for _ in range(rows)]
    hiddens: list[list[NDArray[np.float32]]] = [[] for _ in range(rows)]
    begun = 0
    for _ in range(3 * total):
        if begun < rows:  # the host prefills one more
            model.cache[begun, : len(prompts[begun])] = prompts[begun]
            batch.logits[begun], batch.hidden[begun] = model.look(prompts[begun])
            s[begun]["state"], s[begun]["until"], s[begun]["length"] = State.PREFILLED, steps, len(prompts[begun])
            begun += 1
        for row in range(begun):
            if s[row]["state"] == State.PARKED and s[row]["stop"] == Stop.UNTIL and s[row]["step"] < total:
                s[row]["state"], s[row]["until"] = State.JOINING, min(s[row]["step"] + steps, total)
        batch.run("resume")
        batch.choose(State.PREFILLED)
        batch.run("sample_and_embed", State.PREFILLED)
        for _ in range(steps):  # what a captured graph repeats
            model.run(batch)
            batch.choose()
            batch.run("sample_and_embed", State.RUNNING)
        for row in range(begun):
            assert s[row]["state"] == State.PARKED and batch.reports[row]["step"] == s[row]["step"]
            for i in range(len(told[row]), int(batch.reports[row]["step"])):
                told[row].append(int(batch.tokens[row, i % steps]))
                hiddens[row].append(batch.hidden_ring[row, i % steps].copy())
    for row, (ids, states) in enumerate(wanted):
        assert told[row] == ids
        assert np.array_equal(hiddens[row], states)
        assert s[row]["length"] == len(prompts[row]) + len(ids) - 1  # the last one is not fed
        assert s[row]["stop"] == (Stop.END if ids[-1] == end else Stop.UNTIL)
