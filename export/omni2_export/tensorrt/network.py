"""ONNX graph → TensorRT network: strongly typed, weights taken from the file they lie in, checked before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omni2_engine.backends.tensorrt.library import TensorRt
from omni2_engine.errors import Omni2Error
from omni2_export.tensorrt.shapes import Profile


class Network:
    """A parsed network and what it stands on, which must outlive it.

    Args:
        library: that parses.
        graph: path of the ONNX file; its weights may be of any size.

    Attributes:
        builder, definition: TensorRT's.

    Raises:
        Omni2Error: TensorRT cannot parse it.
    """

    def __init__(self, library: TensorRt, graph: Path) -> None:
        trt = library.module
        library.logger.messages.clear()
        self.library = library
        self.builder = trt.Builder(library.logger)
        strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the only kind in some
        self.definition = self.builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
        self._parser = trt.OnnxParser(self.definition, library.logger)
        if not self._parser.parse_from_file(str(graph)):
            reasons = [self._parser.get_error(index) for index in range(self._parser.num_errors)]
            reason = f"{reasons[0].node_name()}: {reasons[0].desc()}" if reasons else library.logger.messages.reason()
            raise Omni2Error(
                f"{library.flavour} {library.version} cannot parse {graph.name}: {' '.join(reason.split())}",
                "report this; build with --target cpu until it is mended",
            )
        self._let_attention_decompose()

    def _let_attention_decompose(self) -> None:
        """Where no fused kernel serves an attention (float32 with a dynamic length) it may be taken apart."""
        trt = self.library.module
        for index in range(self.definition.num_layers):
            layer = self.definition.get_layer(index)
            if layer.type == trt.LayerType.ATTENTION_INPUT:
                layer.__class__ = trt.IAttentionInputLayer  # the network hands out the base class alone
                layer.attention.decomposable = True

    def profile(self, shapes: Profile) -> Any:
        """An optimization profile of the least, usual and most shape per input."""
        profile = self.builder.create_optimization_profile()
        for index in range(self.definition.num_inputs):
            name = self.definition.get_input(index).name
            profile.set_shape(name, *shapes[name])
        return profile
