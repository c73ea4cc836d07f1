"""`bench simulate`, part two: what calls cost on a device, what is heard of them, and how it is written down."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni2_bench.common.work import encoder_work, prefill_work
from omni2_bench.random_checkpoint import PRESETS
from omni2_bench.simulate.device import BEST, L40, LIKELY, WORST, DeviceLimits, Effort, ReachedShare
from omni2_bench.simulate.effort import Efforts, kernel_counts
from omni2_bench.simulate.evidence import measurements, root_mean_square
from omni2_bench.simulate.load import ARRIVALS, TEXT_TOKENS, talks
from omni2_bench.simulate.sound import SoundRates
from omni2_bench.simulate.trace import CallSpan, write_trace
from omni2_bench.simulate.turns import SimulatedTurn, figures
from omni2_engine.errors import SettingError

IDEAL = DeviceLimits(L40, ReachedShare(1.0, 1.0, 0.0))


@pytest.fixture(scope="module")
def efforts() -> Efforts:
    return Efforts(PRESETS["7B"])


@pytest.fixture(scope="module")
def sound(efforts: Efforts) -> SoundRates:
    return SoundRates.of(efforts.config)


def test_the_longer_of_reading_and_arithmetic_counts() -> None:
    assert IDEAL.seconds(Effort(864e9, 0)) == pytest.approx(1)
    assert IDEAL.seconds(Effort(0, 181e12)) == pytest.approx(1)
    assert IDEAL.seconds(Effort(864e9, 90e12)) == pytest.approx(1)
    limits = DeviceLimits(L40, ReachedShare(0.5, 0.25, 3e-6))
    assert limits.seconds(Effort(864e9, 0, 1000)) == pytest.approx(2 + 3e-3)
    assert limits.seconds(Effort(864e9, 181e12)) == pytest.approx(4)


@pytest.mark.parametrize("given_values", [(0.0, 0.5, 0.0), (0.5, 1.1, 0.0), (0.5, 0.5, -1e-6), (0.5, 0.5, 0.0, -1.0)])
def test_impossible_shares(given_values: tuple[float, ...]) -> None:
    with pytest.raises(SettingError):
        ReachedShare(*given_values)


def test_the_model_is_the_best_fit_of_what_was_measured() -> None:
    """Two constants, ten published times of decoding: 6.6 % off, 10.3 % at worst, and no neighbour is nearer."""
    fitted = [row for row in measurements() if row.fitted]
    assert len(fitted) == 10
    misses = [row.miss(LIKELY) for row in fitted]
    best = root_mean_square(misses)
    assert best == pytest.approx(0.066, abs=5e-4) and max(map(abs, misses)) == pytest.approx(0.103, abs=5e-4)
    for memory, launch in ((0.81, 5.75e-6), (0.91, 5.75e-6), (0.86, 4.75e-6), (0.86, 6.75e-6), (0.7, 2e-6)):
        assert root_mean_square(row.miss(ReachedShare(memory, 0.45, launch)) for row in fitted) > best
    assert all(row.predicted(BEST) < row.predicted(LIKELY) < row.predicted(WORST) for row in measurements())


def test_what_it_was_not_fitted_to_is_missed_by_a_quarter_at_most() -> None:
    tried = [row.miss(LIKELY) for row in measurements() if not row.fitted]
    assert len(tried) == 3 and max(map(abs, tried)) < 0.25


def test_kernels_are_those_that_were_counted(efforts: Efforts) -> None:
    """28 layers of 11 kernels, three more and three samplers; ten Euler steps of 598, or of 446 at first."""
    assert efforts.extend_llm([(1, 0)]).launches == 28 * 11 + 3 + 3
    assert efforts.flow([(14, 0)]).launches == 10 * 598 + 147
    assert efforts.flow([(14, 0)], first=True).launches == 10 * 446 + 117
    assert efforts.flow([(58, 0)], first=True).operations == efforts.flow([(14, 0)], first=True).operations
    assert efforts.flow([(60, 0)], first=True).operations > efforts.flow([(58, 0)], first=True).operations
    with pytest.raises(SettingError, match="not counted"):
        kernel_counts("tensorrt", "exact")


def test_padding_is_charged(efforts: Efforts) -> None:
    """A plan computes 64 frames where 14 are wanted, and 352 positions for 330."""
    assert efforts.flow([(14, 0)]) == efforts.flow([(64, 0)])
    assert efforts.extend_llm([(330, 0)]) == efforts.extend_llm([(352, 0)])
    on_h200 = Efforts(PRESETS["7B"], "cuda")
    assert on_h200.flow([(14, 0)]).operations < on_h200.flow([(64, 0)]).operations


def test_int4_weights_are_read_in_a_quarter() -> None:
    wide, narrow = (Efforts(PRESETS["7B"], precision=name).extend_llm([(1, 0)]) for name in ("balanced", "fast"))
    assert narrow.bytes / wide.bytes == pytest.approx(0.258, abs=1e-3) and narrow.operations == wide.operations


def test_fp8_halves_weights_and_the_arithmetic_of_linear_layers() -> None:
    wide, narrow = (Efforts(PRESETS["7B"], precision=name) for name in ("balanced", "fp8"))
    assert narrow.extend_llm([(1, 0)]).bytes == wide.extend_llm([(1, 0)]).bytes / 2
    work, encoder = prefill_work(wide.config.llm, 352), encoder_work(wide.config.encoder)
    assert narrow.extend_llm([(352, 0)]).operations == pytest.approx(work.linear / 2 + work.other)
    assert narrow.encode.operations == pytest.approx(encoder.linear / 2 + encoder.other)
    assert wide.encode.bytes / 2 < narrow.encode.bytes < 0.6 * wide.encode.bytes  # convolutions and projector stay
    assert narrow.flow([(64, 0)]) == wide.flow([(64, 0)])


def test_mixed_prefills_in_fp8_and_decodes_in_eight_bits_and_four() -> None:
    """Half of a 7B model's weights are gates and up-projections behind the first quarter of its layers."""
    fp8, mixed = (Efforts(PRESETS["7B"], precision=name) for name in ("fp8", "mixed"))
    prefill, before = mixed.extend_llm([(320, 24)]), fp8.extend_llm([(320, 24)])
    assert (prefill.bytes, prefill.operations) == (before.bytes, before.operations)
    step, whole = mixed.extend_llm([(1, 0)]), fp8.extend_llm([(1, 0)])
    c = mixed.config.llm
    four = 21 * 2 * c.hidden * c.ffn  # 21 of 28 layers
    assert whole.bytes - step.bytes == pytest.approx((1 - 0.5 - 2 / 128) * four)
    assert step.operations == pytest.approx(2 * whole.operations, rel=0.01)  # in 16 bits
    assert mixed.weights - fp8.weights == pytest.approx(
        step.bytes + mixed.extend_speech([(1, 0)]).bytes - fp8.extend_speech([(1, 0)]).bytes
    )
    assert mixed.encode == fp8.encode and mixed.flow([(64, 0)]) == fp8.flow([(64, 0)])


def test_an_encoder_with_tails_computes_a_fifth_of_the_window() -> None:
    """And reads what it does not compute; nothing else changes."""
    whole, tail = (Efforts(PRESETS["7B"], precision="fp8", tail=tail) for tail in (False, True))
    c = whole.config.encoder
    assert tail.encode.operations == pytest.approx(whole.encode.operations / 5)
    assert tail.encode.bytes - whole.encode.bytes == 2 * c.layers * 1200 * c.width * 2
    assert tail.encode.launches <= whole.encode.launches
    read = sum(1500 - 50 - speech for speech in (150, 250, 400, 600))
    assert tail.weights - whole.weights == 2 * c.layers * read * c.width * 2
    assert tail.extend_llm([(352, 0)]) == whole.extend_llm([(352, 0)])


@pytest.mark.parametrize(("size", "parameters"), [("0.5B", 0.36e9), ("1.5B", 1.31e9), ("7B", 6.53e9), ("14B", 13.1e9)])
def test_a_text_token_reads_every_weight_once(size: str, parameters: float) -> None:
    """Against the parameters without embedding that Qwen2.5's model cards state; the head is read as well."""
    c = PRESETS[size].llm
    read = Efforts(PRESETS[size]).extend_llm([(1, 0)]).bytes
    assert read == pytest.approx(2 * (parameters + c.vocab * c.hidden), rel=0.01)


def test_sessions_in_one_call_share_its_weights(efforts: Efforts) -> None:
    one, eight = efforts.extend_llm([(1, 400)]), efforts.extend_llm([(1, 400)] * 8)
    assert eight.operations == pytest.approx(8 * one.operations) and eight.launches == one.launches
    c = efforts.config.llm
    caches = 2 * 2 * c.layers * c.kv_heads * c.head_dim * 400
    assert eight.bytes - one.bytes == pytest.approx(7 * caches)
    assert IDEAL.seconds(eight) < 1.05 * IDEAL.seconds(one)  # decoding is bound by memory


def test_prefill_in_pieces_is_the_same_arithmetic(efforts: Efforts) -> None:
    c = efforts.config.llm
    whole, parts = prefill_work(c, 300), (prefill_work(c, 200), prefill_work(c, 100, 200))
    head = 2 * c.vocab * c.hidden
    assert sum(part.total for part in parts) - head == pytest.approx(whole.total)


def test_flow_cache_is_the_specification_s(efforts: Efforts) -> None:
    """Spec §11.5: 4.59 MB per frame in float32; half of that in bf16."""
    assert efforts.flow_cache == pytest.approx(4.59e6 / 2, rel=1e-3)
    alone, behind = efforts.flow([(100, 0)]), efforts.flow([(100, 200)])
    assert behind.bytes - alone.bytes == pytest.approx(200 * efforts.flow_cache)
    assert behind.operations > alone.operations and behind.launches == alone.launches


def test_weights_of_a_tied_model_hold_its_table_once() -> None:
    dimensions = PRESETS["0.5B"]
    tied, own = Efforts(dimensions), Efforts(dimensions.changed(tie_llm=False))
    assert own.weights - tied.weights == 2 * dimensions.llm.vocab * dimensions.llm.hidden
    assert 13e9 < Efforts(PRESETS["7B"]).weights - tied.weights < 15e9


def test_sound_of_the_specification(sound: SoundRates) -> None:
    """Spec §10: 120 ms after ten units, 400 ms with every ten more, 40 ms a unit in all; §11.4: frames of each call."""
    assert [round(1e3 * sound.out(units, False)) for units in (7, 10, 20, 30)] == [0, 120, 520, 920]
    assert sound.out(33, True) == pytest.approx(33 * 0.04)
    calls = [sound.frames(units, False) - sound.finished(units - 10) for units in range(10, 120, 10)]
    assert calls == [14, 34, 54, 74, 94, 114, 34, 54, 74, 94, 114]


def test_a_larger_load_begins_with_the_smaller() -> None:
    small, large = talks(3, seed=5), talks(400, seed=5)
    assert large[:3] == small and talks(3, seed=6) != small
    assert large[-1].begins / 399 == pytest.approx(ARRIVALS, rel=0.2)
    lengths = {answer.tokens for talk in large for answer in talk.answers}
    assert (min(lengths), max(lengths)) == TEXT_TOKENS


def test_figures_of_turns() -> None:
    even, late = SimulatedTurn(0, 1.0), SimulatedTurn(1, 2.0)
    for turn, times in ((even, (1.5, 1.6)), (late, (2.5, 3.2))):
        turn.hear(times[0] - 0.1, 0.0)  # a step without sound is no chunk
        for time in times:
            turn.hear(time, 0.5)
    found = figures([even, late])
    assert (found.turns, found.first_chunk, found.continuity) == (2, pytest.approx(0.5), 0.5)
    assert late.gaps.worst == pytest.approx(0.2) and even.gaps.worst == 0
    assert (even.heard, late.heard) == (pytest.approx(2.5), pytest.approx(3.7))
    assert even.rtf == pytest.approx(0.6)


intervals = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=20)


@given(intervals)
def test_trace(tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, float, float]]) -> None:
    spans, end = [], 0.0
    for stage, wait, length in parts:
        spans.append(CallSpan(("LLM", "flow")[stage], end + wait, end + wait + length, (0, 3) if stage else (3,)))
        end += wait + length
    turn = SimulatedTurn(3, 0.0, [0.5, 2.0], [1.0, 1.0])
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    write_trace(path, spans, [turn])
    trace = json.loads(path.read_text(encoding="utf-8"))
    events = trace["traceEvents"]
    assert "nothing ran on a GPU" in trace["otherData"]["source"]
    processes = {e["args"]["name"]: e["pid"] for e in events if e["name"] == "process_name"}
    assert set(processes) == {span.stage for span in spans} | {"players"}
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == sum(len(span.sessions) for span in spans) + 4
    for place in {(event["pid"], event["tid"]) for event in slices}:
        own = sorted((e for e in slices if (e["pid"], e["tid"]) == place), key=lambda e: e["ts"])
        for before, after in pairwise(own):
            assert before["ts"] + before["dur"] <= after["ts"] + 1e-3  # µs
    players = {e["name"]: (e["ts"], e["dur"]) for e in slices if e["pid"] == processes["players"]}
    assert players["starving"] == (pytest.approx(1.5e6), pytest.approx(0.5e6))
    assert players["waiting for the first chunk"] == (0, pytest.approx(0.5e6))
