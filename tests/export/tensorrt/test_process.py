"""The process that builds a plan: what comes back from it, and what is said when it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omni2_engine.backends.tensorrt.library import TensorRt
from omni2_engine.errors import Omni2Error
from omni2_export.graphs.builder import FLOAT, GraphBuilder
from omni2_export.tensorrt import process
from omni2_export.tensorrt.audit import ExpectedNetwork
from omni2_export.tensorrt.facts import read_facts
from omni2_export.tensorrt.process import have_built
from omni2_export.tensorrt.shapes import Range, Space
from omni2_export.tensorrt.worker import Order

from ...waiting import SOON, eventually

WIDTH = 16


def product(g: GraphBuilder) -> None:
    weight = g.weight("w", np.eye(WIDTH, dtype=np.float32))
    g.output(g.op("MatMul", g.input("x", FLOAT, ["n", WIDTH]), weight), "y", FLOAT, ["n", WIDTH])


@pytest.fixture
def order(library: TensorRt, write_graph: Callable[..., Path], tmp_path: Path) -> Order:
    graph = write_graph(product)
    profile = Space({}, {"n": Range(1, 2, 8)}).profile(read_facts(graph).inputs)
    target = "sm89" if library.builds_for_other_gpus else "none"
    if target == "none":
        pytest.skip("mainline TensorRT builds on a GPU only")
    return Order(str(graph), str(tmp_path / "out.plan"), target, profile, ExpectedNetwork(), str(tmp_path / "timings"))


def test_a_plan_is_built(order: Order) -> None:
    built = have_built(order)
    assert Path(order.plan).stat().st_size > 4 * WIDTH * WIDTH
    assert built.layers >= 2 and built.memory > 10**8 and built.built > 0
    assert not Path(order.timing_cache).exists()  # TensorRT-RTX would ask for a GPU


def test_an_order_survives_the_way(order: Order) -> None:
    sent = replace(order, expected=ExpectedNetwork(3, 6, False, compute="HALF", islands=frozenset({"a", "b"})))
    received = Order.from_json(sent.to_json())
    assert received.expected == sent.expected and received.graph == sent.graph
    assert {name: tuple(map(tuple, shapes)) for name, shapes in received.profile.items()} == sent.profile


def test_a_fault_comes_back_as_an_error(order: Order) -> None:
    with pytest.raises(Omni2Error, match="has 0 attention layers"):
        have_built(replace(order, expected=ExpectedNetwork(attentions=1)))
    with pytest.raises(Omni2Error, match="cannot write"):
        have_built(replace(order, plan="/nowhere/out.plan"))
    impossible = {"x": ((1, WIDTH), (2, WIDTH), (8, WIDTH + 1))}
    with pytest.raises(Omni2Error, match="cannot build the plan of graph for sm89"):
        have_built(replace(order, profile=impossible))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by the system"),
        ("import sys; print('out of luck', file=sys.stderr); sys.exit(7)", "exit code 7: out of luck"),
    ],
)
def test_a_process_that_ends_early(order: Order, monkeypatch: pytest.MonkeyPatch, script: str, words: str) -> None:
    monkeypatch.setattr(process, "COMMAND", [sys.executable, "-c", script])
    with pytest.raises(Omni2Error, match=words):
        have_built(order)


def test_a_process_that_ends_before_it_has_its_order(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", [sys.executable, "-c", "import sys; sys.exit('there is no library')"])
    to_json = Order.to_json

    def late(order: Order) -> str:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        return to_json(order)

    monkeypatch.setattr(Order, "to_json", late)
    with pytest.raises(Omni2Error, match="exit code 1: there is no library"):
        have_built(order)


def test_an_interrupt_ends_the_process(order: Order, tmp_path: Path) -> None:
    """The process listens to nothing while TensorRT is at work, so it is ended from outside."""
    note = tmp_path / "pid"
    # it is told its order once it is known to its parent
    begun = f"input(); open({str(note)!r}, 'w').write(str(os.getpid()))"
    worker = f"import os, time; {begun}; time.sleep(600)"
    script = (
        "import signal, sys\n"
        "from omni2_export.tensorrt import process\n"
        "from omni2_export.tensorrt.worker import Order\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"process.COMMAND = [sys.executable, '-c', {worker!r}]\n"
        "process.have_built(Order.from_json(sys.stdin.read()))\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], text=True, **pipes) as parent:  # type: ignore[call-overload]
        parent.stdin.write(order.to_json())
        parent.stdin.close()
        eventually(lambda: (note.exists() and note.read_text()) or parent.poll() is not None)
        assert parent.poll() is None, parent.stderr.read()
        parent.send_signal(signal.SIGINT)
        assert parent.wait(timeout=SOON) and "KeyboardInterrupt" in parent.stderr.read()
    assert eventually(lambda: gone(int(note.read_text())))


def test_it_does_not_outlive_its_parent(tmp_path: Path) -> None:
    """Of a parent that was killed only the closed pipe is left to notice."""
    script = (
        "import sys, threading, time\n"
        "from omni2_export.tensorrt.worker import end_with_parent\n"
        "threading.Thread(target=end_with_parent, daemon=True).start()\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], text=True, **pipes) as worker:  # type: ignore[call-overload]
        assert worker.stdout.readline() == "up\n"
        worker.stdin.close()
        assert worker.wait(timeout=SOON) == 1


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
