"""Builds one plan in a process of its own: `python -m omni2_export.tensorrt.worker` with an `Order` on standard input.

What a plan takes of memory is thus gone when it is done, a crash or the system's memory killer ends it alone, and an
interrupt need not wait for a call of TensorRT, which takes no signals.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omni2_engine.backends.tensorrt.library import RTX, TensorRt, find_tensorrt
from omni2_engine.errors import Omni2Error
from omni2_export.tensorrt.audit import ExpectedNetwork, require_sound
from omni2_export.tensorrt.lowered import Lowered, read_listing, require_fused, require_lean
from omni2_export.tensorrt.network import Network
from omni2_export.tensorrt.shapes import Profile


@dataclass(frozen=True)
class Order:
    """What to build.

    Args:
        graph: ONNX file whose dimensions are numbers or in the profile.
        plan: file to write.
        target: architecture such as "sm89".
        profile: least, usual and most shape per input.
        expected: what the network must consist of.
        timing_cache: file that mainline TensorRT's timings are kept in.
    """

    graph: str
    plan: str
    target: str
    profile: Profile
    expected: ExpectedNetwork
    timing_cache: str

    def to_json(self) -> str:
        """As text."""
        return json.dumps({**asdict(self), "expected": self.expected.to_json()})

    @classmethod
    def from_json(cls, text: str) -> Order:
        """What `to_json` gave."""
        data = json.loads(text)
        return cls(**{**data, "expected": ExpectedNetwork.from_json(data["expected"])})


@dataclass(frozen=True)
class Built:
    """How it went: layers of the network, seconds of parsing and building, highest memory of the process in bytes, and
    the kernels of a call (none listed by mainline TensorRT, whose builder is not asked)."""

    layers: int
    parsed: float
    built: float
    memory: int
    lowered: Lowered


def build_plan(library: TensorRt, order: Order) -> Built:
    """Parse, audit, build, audit what was built, write.

    Raises:
        Omni2Error: TensorRT refuses it, or the audit does.
    """
    began = time.perf_counter()
    network = Network(library, Path(order.graph))
    name = f"the plan of {Path(order.graph).stem}"
    require_sound(library.module, network.definition, order.expected, name, f"{library.flavour} {library.version}")
    layers, parsed = network.definition.num_layers, time.perf_counter()
    config = _configuration(network, order)
    library.logger.messages.clear()
    if not _write(network, config, Path(order.plan)):
        raise Omni2Error(
            f"{library.flavour} {library.version} cannot build {name} for {order.target}: "
            f"{library.logger.messages.reason() or 'it does not say why'}",
            "free memory and disk space and run the same build again; if that does not help, report this",
        )
    lowered = read_listing(library.logger.messages.listing)
    if library.flavour == RTX:  # mainline TensorRT is not asked for its kernels
        require_lean(lowered, name, order.expected.fp8)
        if order.expected.by_products and order.expected.compute != "FLOAT":
            require_fused(lowered, order.expected.attentions, name)
    _keep_timings(library, config, order)
    return Built(layers, parsed - began, time.perf_counter() - parsed, _highest_memory(), lowered)


def _write(network: Network, config: Any, path: Path) -> bool:
    """Build and write the plan piece by piece where TensorRT can, which saves the memory of a copy."""
    trt, builder = network.library.module, network.builder
    with path.open("wb") as file:
        if not hasattr(builder, "build_serialized_network_to_stream"):
            plan = builder.build_serialized_network(network.definition, config)
            file.write(plan or b"")
            return plan is not None
        failures: list[OSError] = []  # TensorRT heeds neither what `write` raises nor what it gives back

        class Writer(trt.IStreamWriter):  # type: ignore[misc, name-defined] # of a module found at run time
            """Takes the plan's pieces."""

            def __init__(self) -> None:
                trt.IStreamWriter.__init__(self)

            def write(self, piece: bytes) -> int:
                try:
                    return file.write(piece)
                except OSError as error:
                    failures.append(error)
                    return 0

        done = builder.build_serialized_network_to_stream(network.definition, config, Writer())
        if failures:
            raise failures[0]
        return bool(done) and file.tell() > 0


def _configuration(network: Network, order: Order) -> Any:
    trt, library = network.library.module, network.library
    config = network.builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # what is float32 in a graph is so because it needs the digits
    config.max_aux_streams = 0  # the scheduler has a stream for every stage, and a captured step has one
    config.add_optimization_profile(network.profile(order.profile))
    if library.flavour == RTX:
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # memory of its own could not be recorded
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the kernels are listed
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, order.target.upper()), 0)
    else:
        kept = Path(order.timing_cache)
        config.set_timing_cache(config.create_timing_cache(kept.read_bytes() if kept.exists() else b""), True)
    return config


def _keep_timings(library: TensorRt, config: Any, order: Order) -> None:
    """TensorRT-RTX has no timings: it only asks for a GPU as soon as a timing cache is mentioned."""
    if library.flavour != RTX:
        new = Path(f"{order.timing_cache}.new")
        new.write_bytes(config.get_timing_cache().serialize())
        os.replace(new, order.timing_cache)


def _highest_memory() -> int:
    """Bytes this process has had at most, its files in memory included."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
        return 1024 * int(fields["VmHWM"].split()[0])
    except (OSError, KeyError, ValueError):
        import psutil  # installed where the system is not Linux

        used = psutil.Process().memory_info()
        return int(getattr(used, "peak_wset", used.rss))  # of Windows; elsewhere what it has now


def main() -> None:
    """Read an order, answer with what was built or with the problem and its remedy; end when the other side does."""
    order = Order.from_json(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing TensorRT prints may get into the answer
    try:
        result: dict[str, Any] = {"built": asdict(build_plan(find_tensorrt(), order))}
    except Omni2Error as error:
        result = {"problem": error.problem, "remedy": error.remedy}
    except OSError as error:
        result = {"problem": f"cannot write a plan: {error}", "remedy": "free disk space and run the same build again"}
    json.dump(result, answer)
    answer.close()


def end_with_parent() -> None:
    """End this process when the one that wants its answer has gone: for a thread beside the work."""
    sys.stdin.read()  # comes back when the pipe is closed
    os._exit(1)


if __name__ == "__main__":
    main()
