"""Looks inside built graphs: a cut makes inner values inputs or outputs, a tap keeps what a graph gave to its stage.

A cut keeps only the nodes between its borders and runs over the engine's own weight files; nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from omni2_engine.backends.base.graph import (
    Array,
    Arrays,
    BoundGraph,
    CallBefore,
    Graph,
    Shape,
    StateMemory,
    run_one_by_one,
)
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.errors import EngineDirectoryError

REMEDY = "build the engine again with this version of omni2-engine"


def cut(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """The part of a graph that leads to `outputs`.

    Args:
        path: an engine directory's `.onnx` file.
        inputs: float32 values inside the graph, to be fed instead of computed; none of several a node makes together.
            Inputs of the whole graph that are still needed stay inputs without being named here.
        outputs: values inside the graph, or outputs of it.

    Returns:
        A model whose initializers still refer to the weight file beside `path`.

    Raises:
        EngineDirectoryError: the file is missing or damaged, or holds no value of such a name.
    """
    model = read_graph(path)
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    whole_inputs = {value.name for value in graph.input}
    for name in (*inputs, *outputs):
        if name not in makers and name not in whole_inputs:
            raise EngineDirectoryError(f"{path} has no value called {name}", REMEDY)

    needed: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name and name not in needed:  # an optional input left out has no name
            needed.add(name)
            if name in makers and name not in inputs:
                waiting.extend(makers[name].input)

    made = needed - set(inputs)
    outer = [value for value in graph.input if value.name in needed]
    inner = [_float_value(name) for name in inputs if name in needed - whole_inputs]
    typed = {value.name: value for value in graph.output}
    part = onnx.helper.make_graph(
        [node for node in graph.node if made.intersection(node.output)],
        f"part of {graph.name}",
        [*outer, *inner],
        [typed.get(name) or onnx.ValueInfoProto(name=name) for name in outputs],
        [tensor for tensor in graph.initializer if tensor.name in needed],
    )
    graph.CopyFrom(part)
    return model


def open_cut(backend: OnnxRuntimeBackend, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
    """Load a cut; see `cut` for arguments and errors.

    Raises:
        BackendError: ONNX Runtime cannot run it.
    """
    model = cut(path, inputs, outputs)
    return backend.load_bytes(model.SerializeToString(), path.parent, f"a part of {path.name}")


class Tap:
    """A graph that remembers the outputs of every run, copied; see `Graph`. What is bound as state is not among them.

    Args:
        graph: the graph behind it.

    Attributes:
        runs: outputs by name, the last run's at the end.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.runs: list[dict[str, Array]] = []

    def remember(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """Remember outputs and hand them on."""
        self.runs.append({name: np.array(array) for name, array in outputs.items()})
        return outputs

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """See `Graph`."""
        return self._graph.inputs

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """See `Graph`."""
        return self._graph.outputs

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """See `Graph`."""
        return self._graph.dtypes

    def most(self, name: str, axis: int) -> int | None:
        """See `Graph.most`."""
        return self._graph.most(name, axis)

    def run_chain(
        self,
        bound: Sequence[BoundGraph],
        inputs: Arrays,
        each: Sequence[Arrays],
        carried: Mapping[str, str],
        before: CallBefore | None = None,
    ) -> dict[str, Array]:
        """See `Graph.run_chain`; every run is remembered."""
        return run_one_by_one(bound, inputs, each, carried, before)

    def expect(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """See `Graph.expect`."""
        self._graph.expect(shapes)

    def expect_chains(self, count: int) -> None:
        """See `Graph.expect_chains`."""
        self._graph.expect_chains(count)

    def state(self, shapes: Mapping[str, Sequence[int]]) -> StateMemory:
        """See `Graph.state`."""
        return self._graph.state(shapes)

    def results(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
        """See `Graph.results`."""
        return self._graph.results(shapes)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """See `Graph.run`."""
        return self.remember(self._graph.run(inputs))

    def bind(self, state: Mapping[str, Any], fixed: Arrays | None = None) -> BoundGraph:
        """See `Graph.bind`."""
        return _BoundTap(self, self._graph.bind(state, fixed))


class _BoundTap:
    def __init__(self, graph: Tap, bound: BoundGraph) -> None:
        self._graph = graph
        self._bound = bound

    def move(self, state: Mapping[str, Any]) -> None:
        """See `BoundGraph.move`."""
        self._bound.move(state)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """See `BoundGraph.run`."""
        return self._graph.remember(self._bound.run(inputs))


def read_graph(path: Path) -> onnx.ModelProto:
    """A graph file without its weights.

    Raises:
        EngineDirectoryError: it is missing or damaged.
    """
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # of the operating system or of the protobuf library, whose types vary
        raise EngineDirectoryError(f"{path} cannot be read: {error}", REMEDY) from error


def _float_value(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
