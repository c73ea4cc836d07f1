"""Looks a parsed network over before anything is built from it, for what TensorRT's parser changes without a word.

A plan with one of these faults builds and runs, and answers wrongly or slowly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from omni2_engine.errors import Omni2Error

CACHE = re.compile(r"(^|_)(keys|values)(_|$)")  # inputs that are caches, see `omni2_engine.stages.graph_state`
SMALL = 64  # elements of a tensor whose cast costs nothing worth a word
NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
FLOATS = ("FLOAT", "HALF", "BF16")
PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION", "ATTENTION_INPUT", "EINSUM")


@dataclass(frozen=True)
class ExpectedNetwork:
    """What a network must consist of.

    Args:
        attentions: how many attention layers, as the model's dimensions say.
        caches: how many caches, each updated in place.
        masked: whether every attention has a mask; False where all attend to everything.
        by_products: attentions are written as products and are no layers of the network. Where it computes in less than
            float32 the builder makes one kernel of each (`lowered.require_fused`).
        compute: the type everything big is of outside islands: "FLOAT", "HALF" or "BF16".
        islands: names of ONNX nodes that are to compute in float32, and of the casts at their borders.
        fp8: products whose factors are both fp8, see `omni2_export.tensorrt.lowered`.
    """

    attentions: int = 0
    caches: int = 0
    masked: bool = True
    by_products: bool = False
    compute: str = "FLOAT"
    islands: frozenset[str] = frozenset()
    fp8: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "islands": sorted(self.islands)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ExpectedNetwork:
        """What `to_json` gave."""
        return cls(**{**data, "islands": frozenset(data["islands"])})


def audit(trt: Any, network: Any, expected: ExpectedNetwork) -> list[str]:
    """What is wrong with a network, one clause each; nothing if it is as it should be.

    Args:
        trt: the TensorRT module.
        network: `INetworkDefinition`, parsed.
        expected: what it should be.
    """
    layers = [_Layer(trt, network.get_layer(index)) for index in range(network.num_layers)]
    if not layers or not network.num_outputs:
        return ["the network is empty"]
    checks = (_unread_inputs, _host_inputs, _attentions, _caches, _casts)
    return [fault for check in checks for fault in check(network, layers, expected)]


def require_sound(trt: Any, network: Any, expected: ExpectedNetwork, name: str, version: str) -> None:
    """Refuse a network that `audit` finds something wrong with.

    Raises:
        Omni2Error: it does.
    """
    faults = audit(trt, network, expected)
    if faults:
        raise Omni2Error(
            f"{name} would not compute what its graph says: {'; '.join(faults)}",
            f"report this with TensorRT's version ({version}), and build with --target cpu until it is mended",
        )


class _Layer:
    """A layer, its ONNX node's name ("" if the parser made it up) and its tensors."""

    def __init__(self, trt: Any, layer: Any) -> None:
        self.kind = layer.type.name
        self.name: str = layer.name
        found = NODE.search(layer.metadata)
        self.node = found[1] if found else ""
        self.inputs = [tensor for i in range(layer.num_inputs) if (tensor := layer.get_input(i)) is not None]
        self.outputs = [tensor for i in range(layer.num_outputs) if (tensor := layer.get_output(i)) is not None]
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer  # the network hands out the base class alone
            self.attention = layer.attention
            self.node = self.attention.name


def _unread_inputs(network: Any, layers: list[_Layer], expected: ExpectedNetwork) -> Iterator[str]:
    """Inputs that no output depends on."""
    made_by = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    needed = [network.get_output(index).name for index in range(network.num_outputs)]
    seen: set[str] = set()
    while needed:
        name = needed.pop()
        if name not in seen:
            seen.add(name)
            if name in made_by:
                needed += [tensor.name for tensor in made_by[name].inputs]
    for index in range(network.num_inputs):
        name = network.get_input(index).name
        if name not in seen:
            yield f"nothing depends on the input {name}"


def _host_inputs(network: Any, layers: list[_Layer], expected: ExpectedNetwork) -> Iterator[str]:
    """Inputs whose values decide a shape: they would have to lie in host memory, and no call could be captured."""
    for index in range(network.num_inputs):
        if network.get_input(index).is_shape_tensor:
            yield f"shapes depend on what the input {network.get_input(index).name} says"


def _attentions(network: Any, layers: list[_Layer], expected: ExpectedNetwork) -> Iterator[str]:
    found = [layer for layer in layers if layer.kind == "ATTENTION_INPUT"]
    layers_of_the_model = 0 if expected.by_products else expected.attentions
    if len(found) != layers_of_the_model:
        yield f"it has {len(found)} attention layers where the model has {layers_of_the_model}"
    for layer in found:
        kind = layer.attention.causal_kind.name
        if layer.attention.causal or kind != "NONE":
            yield f"{layer.name} is causal ({kind}), which shows a query behind a cache the wrong keys"
        if expected.masked and layer.attention.mask is None:
            yield f"{layer.name} has no mask"


def _caches(network: Any, layers: list[_Layer], expected: ExpectedNetwork) -> Iterator[str]:
    inputs = {network.get_input(index).name: network.get_input(index) for index in range(network.num_inputs)}
    updates = {layer.inputs[0].name: layer.outputs[0] for layer in layers if layer.kind == "KV_CACHE_UPDATE"}
    caches = [name for name in inputs if CACHE.search(name)]
    if len(caches) != expected.caches:
        yield f"it has {len(caches)} caches where the model has {expected.caches}"
    for name in caches:
        updated = updates.get(name)
        if updated is None:
            yield f"the cache {name} is not updated in place"
        elif not updated.is_network_output or tuple(updated.shape) != tuple(inputs[name].shape):
            yield f"the cache {name} does not come out as it went in"


def _casts(network: Any, layers: list[_Layer], expected: ExpectedNetwork) -> Iterator[str]:
    """Casts of big tensors, and products in another type than the plan's, that no island of the graph asks for."""
    constants = {layer.outputs[0].name for layer in layers if layer.kind == "CONSTANT"}
    for layer in layers:
        taken = [tensor.dtype.name for tensor in layer.inputs]
        made = [tensor.dtype.name for tensor in layer.outputs]
        if layer.kind == "CAST" and taken[0] != made[0] and _size(layer.inputs[0]) > SMALL:
            if layer.inputs[0].name in constants:
                yield f"{layer.name} casts weights from {taken[0]} to {made[0]} in every call"
            elif taken[0] in FLOATS and made[0] in FLOATS and layer.node not in expected.islands:
                yield f"{layer.name} casts {taken[0]} to {made[0]} where the graph does not ask for it"
        if (
            layer.kind in PRODUCTS
            and taken[0] in FLOATS
            and taken[0] != expected.compute
            and layer.node not in expected.islands
        ):
            yield f"{layer.name} computes in {taken[0]} where the plan is of {expected.compute}"


def _size(tensor: Any) -> float:
    """Elements; infinite where a dimension is dynamic."""
    return math.inf if any(size < 0 for size in tensor.shape) else math.prod(tensor.shape)
