"""The rules of the flow's solver: order of accuracy on an equation with a known solution, the original's steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni2_engine import Engine
from omni2_engine.errors import SettingError
from omni2_engine.model.config import EULER_STEPS
from omni2_engine.stages.flow import Flow, FlowState
from omni2_engine.stages.flow_solver import FlowSolver, SolverRule

RULES = list(SolverRule)


def solve(solver: FlowSolver, velocity: Callable[[float, float], float], start: float) -> float:
    """z(1) of z' = velocity(t, z), z(0) = start, as the flow's stage does it."""
    z, before = start, 0.0
    for t, (ahead, back) in zip(solver.times()[:-1], solver.moves(), strict=True):
        now = velocity(float(t), z)
        z, before = z + float(ahead) * now + float(back) * before, now
    return z


@given(st.sampled_from(RULES), st.integers(1, 40))
def test_a_constant_velocity_is_followed_exactly(rule: SolverRule, steps: int) -> None:
    solver = FlowSolver(steps, rule)
    assert solver.times()[0] == 0 and solver.times()[-1] == 1 and (np.diff(solver.times()) > 0).all()
    assert solve(solver, lambda t, z: 3.0, 0.5) == pytest.approx(3.5, abs=1e-5)


@pytest.mark.parametrize(("rule", "gain"), [(SolverRule.EULER, 2), (SolverRule.DAMPED, 2), (SolverRule.AB2, 4)])
def test_twice_the_steps_lessen_the_error_by_the_rules_order(rule: SolverRule, gain: float) -> None:
    """First order halves it, second order quarters it: z' = −2z + t, z(0) = 1."""
    truth = 1.25 * np.exp(-2) + 0.25
    errors = [abs(solve(FlowSolver(steps, rule), lambda t, z: -2 * z + t, 1.0) - truth) for steps in (40, 80, 160)]
    assert errors[0] / errors[1] == pytest.approx(gain, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(gain, rel=0.15)


def test_ten_euler_steps_are_the_originals() -> None:
    """Spec §8.2: every step begins where the one before ended, in float32, and only the current velocity counts."""
    solver = FlowSolver()
    times, moves = solver.times(), np.stack(list(solver.moves()))
    assert len(moves) == EULER_STEPS and (moves[:, 1] == 0).all()
    now = times[0]
    for until, length in zip(times[1:], moves[:, 0], strict=True):
        assert length == until - now
        now = now + length


def flow_of(engine: Path, **settings: object) -> Flow:
    return Engine.load(engine, threads=1, warm_up=False, **settings).pipeline.decoder.flow  # type: ignore[arg-type]


def new_state(flow: Flow) -> FlowState:
    return flow.new_state(flow.speaker_features(np.linspace(-1, 1, flow.config.speaker, dtype=np.float32)))


@pytest.mark.parametrize("rule", RULES)
def test_any_rule_says_in_pieces_what_it_says_in_one(tiny_engine_dir: Path, rule: SolverRule) -> None:
    """Over more than one block, so that later calls read caches: each step has its own."""
    flow = flow_of(tiny_engine_dir, flow_steps=3, flow_solver=rule)
    units = [int(u) for u in np.random.default_rng(0).integers(0, flow.units_config.units, 130)]
    state = new_state(flow)
    for start in range(0, len(units), 26):
        final = start + 26 == len(units)
        piece = flow.step(state, units[start : start + 26], final)
        whole = flow.step(new_state(flow), units[: start + 26], final).mel
        assert np.abs(piece.mel - whole[piece.start :]).max() < 1e-4 * whole.std()
    if rule is not SolverRule.EULER:
        other = flow_of(tiny_engine_dir, flow_steps=3)
        assert np.abs(other.step(new_state(other), units, True).mel - whole).max() > 0.01 * whole.std()


def test_fewer_steps_have_fewer_caches(tiny_engine_dir: Path) -> None:
    ten, four = flow_of(tiny_engine_dir), flow_of(tiny_engine_dir, flow_steps=4)
    speaker = ten.speaker_features(np.ones(ten.config.speaker, np.float32))
    assert (len(ten.new_state(speaker).steps), len(four.new_state(speaker).steps)) == (EULER_STEPS, 4)
    encoder = ten.nbytes(10.0) - EULER_STEPS * (ten.nbytes(10.0) - four.nbytes(10.0)) // (EULER_STEPS - 4)
    assert 0 < encoder < four.nbytes(10.0) < ten.nbytes(10.0)


@pytest.mark.parametrize(
    ("name", "value"), [("flow_steps", 0), ("flow_steps", 11), ("flow_steps", 2.5), ("flow_solver", "rk4")]
)
def test_settings_that_make_no_sense(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(SettingError, match=name):
        Engine.load(tmp_path / "nothing", **{name: value})  # type: ignore[arg-type]
