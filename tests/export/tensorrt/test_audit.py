"""The audit finds each fault in a small graph that has it and builds all the same, and nothing in a sound one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from omni2_engine.backends.tensorrt.library import TensorRt
from omni2_engine.errors import Omni2Error
from omni2_export.graphs.builder import BOOL, FLOAT, INT64, GraphBuilder, Numerics
from omni2_export.tensorrt.audit import ExpectedNetwork, audit, require_sound
from omni2_export.tensorrt.facts import read_facts
from omni2_export.tensorrt.network import Network

HALF = Numerics(ir.DataType.FLOAT16, doubles=False, device=True)
HEADS, CAPACITY, WIDTH = 2, 32, 16
ONE = ExpectedNetwork(attentions=1, caches=2)
Parse = Callable[..., Network]


class Decoder:
    """One attention over a cache, as the language models have it; each test changes one thing."""

    def __init__(self, g: GraphBuilder) -> None:
        self.g = g
        shape = ["B", HEADS, "S", WIDTH]
        self.query, self.key, self.value = (g.input(name, g.compute, shape) for name in ("q", "k", "v"))
        self.write = g.input("write", INT64, ["B"])
        self.mask = g.input("mask", BOOL, ["B", 1, "S", "T"])

    def cache(self, kind: str) -> ir.Value:
        return self.g.input(f"{kind}_0", self.g.compute, ["B", HEADS, CAPACITY, WIDTH])

    def give(self, kind: str, updated: ir.Value) -> ir.Value:
        self.g.output(updated, f"new_{kind}_0", self.g.compute, ["B", HEADS, CAPACITY, WIDTH])
        return self.g.slice(updated, 0, self.g.size(self.mask, 3), axis=2)

    def update(self, kind: str, new: ir.Value) -> ir.Value:
        return self.give(kind, self.g.op("TensorScatter", self.cache(kind), new, self.write, axis=2))

    def caches(self) -> list[ir.Value]:
        return [self.update("keys", self.key), self.update("values", self.value)]

    def attend(self, *operands: ir.Value | None, **attributes: int) -> None:
        attended = self.g.op("Attention", self.query, *operands, scale=1.0, **attributes)
        self.g.output(attended, "out", FLOAT, ["B", HEADS, "S", WIDTH])


def sound(g: GraphBuilder) -> None:
    decoder = Decoder(g)
    decoder.attend(*decoder.caches(), decoder.mask)


def faults(library: TensorRt, network: Network, expected: ExpectedNetwork = ONE) -> list[str]:
    return audit(library.module, network.definition, expected)


@pytest.mark.parametrize("numerics", [Numerics(), HALF])
def test_a_sound_graph_passes(library: TensorRt, write_graph: Callable, numerics: Numerics) -> None:
    path = write_graph(sound, numerics)
    compute = "FLOAT" if numerics.compute == FLOAT else "HALF"
    expected = replace(ONE, compute=compute, islands=read_facts(path).islands)  # results are cast to float32
    assert faults(library, Network(library, path), expected) == []


def test_a_length_that_the_parser_drops(library: TensorRt, parse: Parse) -> None:
    def build(g: GraphBuilder) -> None:
        decoder = Decoder(g)
        lengths = g.input("lengths", INT64, ["B"])
        decoder.attend(*decoder.caches(), decoder.mask, None, None, lengths)

    assert faults(library, parse(build)) == ["nothing depends on the input lengths"]


def test_an_input_whose_reader_nobody_reads(library: TensorRt, parse: Parse) -> None:
    def build(g: GraphBuilder) -> None:
        sound(g)
        g.mul(g.input("speed", FLOAT, ["n"]), 2.0)

    assert faults(library, parse(build)) == ["nothing depends on the input speed"]


def test_attention_without_a_mask(library: TensorRt, parse: Parse) -> None:
    def build(g: GraphBuilder) -> None:
        decoder = Decoder(g)
        decoder.attend(*decoder.caches())

    found = faults(library, parse(build))
    assert [fault for fault in found if "has no mask" in fault]
    assert not [fault for fault in faults(library, parse(build), replace(ONE, masked=False)) if "no mask" in fault]


def test_causal_attention(library: TensorRt, parse: Parse) -> None:
    def build(g: GraphBuilder) -> None:
        decoder = Decoder(g)
        decoder.attend(*decoder.caches(), is_causal=1)

    assert [fault for fault in faults(library, parse(build)) if "is causal (UPPER_LEFT)" in fault]


def test_another_number_of_attentions(library: TensorRt, parse: Parse) -> None:
    found = faults(library, parse(sound), ExpectedNetwork(attentions=28, caches=2))
    assert found == ["it has 1 attention layers where the model has 28"]


def test_a_cache_that_is_copied(library: TensorRt, parse: Parse) -> None:
    def build(g: GraphBuilder) -> None:
        decoder = Decoder(g)
        place = g.reshape(decoder.write, [-1, 1, 1, 1])
        here = g.op("Equal", g.constant(np.arange(CAPACITY).reshape(1, 1, -1, 1)), place)
        copied = g.op("Where", here, decoder.key, decoder.cache("keys"))
        decoder.attend(decoder.give("keys", copied), decoder.update("values", decoder.value), decoder.mask)

    assert faults(library, parse(build)) == ["the cache keys_0 is not updated in place"]


def test_a_cache_that_does_not_come_out(library: TensorRt, parse: Parse) -> None:
    """TensorRT itself takes an update whose result is something else's input only, and would lose it."""

    def build(g: GraphBuilder) -> None:
        decoder = Decoder(g)
        updated = g.op("TensorScatter", decoder.cache("keys"), decoder.key, decoder.write, axis=2)
        keys = decoder.give("keys", g.mul(updated, 2.0))
        decoder.attend(keys, decoder.update("values", decoder.value), decoder.mask)

    assert "the cache keys_0 does not come out as it went in" in faults(library, parse(build))


def products(between: Callable[[GraphBuilder, ir.Value], ir.Value]) -> Callable[[GraphBuilder], None]:
    """Two products of matrices with something between them."""

    def build(g: GraphBuilder) -> None:
        x = g.input("x", g.compute, ["n", WIDTH])
        weights = [g.weight(f"w{i}", np.eye(WIDTH, dtype=np.float32)) for i in range(2)]
        x = between(g, g.op("MatMul", x, weights[0]))
        g.output(g.op("MatMul", x, weights[1]), "y", g.compute, ["n", WIDTH])

    return build


def test_a_cast_nobody_asked_for(library: TensorRt, parse: Parse) -> None:
    def there_and_back(g: GraphBuilder, x: ir.Value) -> ir.Value:
        wide = g.mul(g.op("Cast", x, to=int(FLOAT)), 2.0)  # half again: the builder casts a Mul's operands
        return g.op("Relu", wide)

    def plain_casts(g: GraphBuilder, x: ir.Value) -> ir.Value:
        return g.op("Cast", g.op("Cast", x, to=int(FLOAT)), to=int(g.compute))

    for between in (there_and_back, plain_casts):
        found = faults(library, parse(products(between), HALF), ExpectedNetwork(compute="HALF"))
        assert [fault for fault in found if "casts HALF to FLOAT where the graph does not ask for it" in fault]


def test_an_island_is_asked_for(library: TensorRt, write_graph: Callable) -> None:
    def island(g: GraphBuilder, x: ir.Value) -> ir.Value:
        with g.precise():
            return g.op("MatMul", g.op("Exp", x), g.weight("inner", np.eye(WIDTH, dtype=np.float32)))

    path = write_graph(products(island), HALF)
    network, islands = Network(library, path), read_facts(path).islands
    assert faults(library, network, ExpectedNetwork(compute="HALF", islands=islands)) == []
    undeclared = faults(library, network, ExpectedNetwork(compute="HALF"))
    assert [fault for fault in undeclared if "computes in FLOAT where the plan is of HALF" in fault]


def test_weights_cast_in_every_call(library: TensorRt, parse: Parse) -> None:
    def build(g: GraphBuilder) -> None:
        x = g.input("x", FLOAT, ["n", WIDTH])
        stored = g.stored("w", ir.DataType.FLOAT16, (WIDTH, WIDTH), lambda view: view.fill(1))
        g.output(g.op("MatMul", x, g.op("Cast", stored, to=int(FLOAT))), "y", FLOAT, ["n", WIDTH])

    found = faults(library, parse(build), ExpectedNetwork())
    assert [fault for fault in found if "casts weights from HALF to FLOAT in every call" in fault]


def test_float64_is_found_in_the_graph(write_graph: Callable) -> None:
    """TensorRT's parser makes float32 of it without a word, so that it must be found before."""

    def constant(g: GraphBuilder) -> None:
        x = g.op("Cast", g.input("x", FLOAT, ["n"]), to=int(FLOAT))
        wide = g.op("Mul", x, g.constant(np.ones(1, np.float64)))
        g.output(wide, "y", FLOAT, ["n"])

    def cast(g: GraphBuilder) -> None:
        wide = g.op("Cast", g.input("x", FLOAT, ["n"]), to=int(ir.DataType.DOUBLE))
        g.output(g.op("Cast", g.op("Neg", wide), to=int(FLOAT)), "y", FLOAT, ["n"])

    for build in (constant, cast):
        path = write_graph(build)
        with pytest.raises(Omni2Error, match="float64"):
            read_facts(path)


def test_a_shape_that_depends_on_values(library: TensorRt, parse: Parse) -> None:
    def build(g: GraphBuilder) -> None:
        x = g.input("x", FLOAT, ["n", WIDTH])
        start = g.input("start", INT64, [1])
        g.output(g.slice(x, start, g.add(start, g.constant([4])), axis=0), "y", FLOAT, [4, WIDTH])

    assert faults(library, parse(build), ExpectedNetwork()) == ["shapes depend on what the input start says"]


def test_an_empty_network(library: TensorRt, tmp_path) -> None:
    path = tmp_path / "empty.onnx"
    path.write_bytes(b"")  # TensorRT parses it without complaint
    assert audit(library.module, Network(library, path).definition, ExpectedNetwork()) == ["the network is empty"]


def test_a_fault_ends_the_build(library: TensorRt, parse: Parse) -> None:
    with pytest.raises(Omni2Error, match="28") as caught:
        require_sound(library.module, parse(sound).definition, ExpectedNetwork(28, 2), "the plan of llm", "tensorrt 1")
    assert "--target cpu" in caught.value.remedy


def test_what_cannot_be_parsed_is_named(parse: Parse) -> None:
    def build(g: GraphBuilder) -> None:
        x = g.input("x", FLOAT, ["n"])
        quantised, scale, _ = g.ops("DynamicQuantizeLinear", x, outputs=3)
        g.output(g.mul(g.op("Cast", quantised, to=int(FLOAT)), scale), "y", FLOAT, ["n"])

    with pytest.raises(Omni2Error, match=r"cannot parse graph\.onnx.*DynamicQuantizeLinear"):
        parse(build)
