"""Kernels made by NVRTC for one architecture, and kept on disk: a start after the first compiles nothing.

An entry of the cache is named by everything that decides it: sources, NVRTC's version, options, architecture. It begins
with its own checksum; one that is damaged is compiled again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from omni2_kernels.registry import SOURCES

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_120")  # those the tests build for; NVRTC knows others
# Random numbers and races must be those of the host to the last bit (cuda/elementary.cuh): a multiplication and an
# addition are rounded each, as the host rounds them, not once as a fused multiply-add; divisions are IEEE's, denormals
# are kept. The last one has the assembler say what each kernel takes.
OPTIONS = (
    "--std=c++17",
    "--fmad=false",
    "--ftz=false",
    "--prec-div=true",
    "--ptxas-options=--verbose",
)
CHECKSUM_BYTES = 32
_USAGE = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
_SHARED = re.compile(r"(\d+) bytes smem")


class CompileError(RuntimeError):
    """A kernel cannot be compiled here.

    Args:
        problem: what is wrong.
        remedy: what helps.
        log: what the compiler said.
    """

    def __init__(self, problem: str, remedy: str, log: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        self.log = log
        super().__init__(f"{problem} — {remedy}" + (f"\n{log}" if log else ""))


@dataclass(frozen=True)
class Usage:
    """What a kernel takes of a multiprocessor.

    Args:
        registers: of a thread.
        shared: bytes of a block.
        stack: bytes of a thread in local memory.
        spills: of those, bytes stored and loaded because registers ran out.
    """

    registers: int
    shared: int
    stack: int
    spills: int


@dataclass(frozen=True)
class Module:
    """One source, compiled.

    Args:
        source: its name.
        architecture: such as `sm_89`.
        cubin: for `cuModuleLoadData`.
        log: what the compiler said.
    """

    source: str
    architecture: str
    cubin: bytes
    log: str

    @property
    def usage(self) -> dict[str, Usage]:
        """By kernel."""
        found = {}
        for match in _USAGE.finditer(self.log):
            shared = _SHARED.search(match["rest"])
            found[match["name"]] = Usage(
                int(match["registers"]),
                int(shared[1]) if shared else 0,
                int(match["stack"]),
                int(match["stores"]) + int(match["loads"]),
            )
        return found


def architecture(major: int, minor: int) -> str:
    """The name of a compute capability: (8, 9) → `sm_89`."""
    return f"sm_{major}{minor}"


def compile_kernels(target: str, cache: Path | None = None) -> dict[str, Module]:
    """Every source for one architecture.

    Args:
        target: such as `sm_89`.
        cache: the folder to keep them in; the user's (`cache_folder`) if None.

    Returns:
        Source's name → module.

    Raises:
        CompileError: NVRTC is not installed, does not know the target, or refuses a source.
    """
    return {source: compile_source(source, target, cache) for source in SOURCES}


def compile_source(source: str, target: str, cache: Path | None = None) -> Module:
    """One of `SOURCES` for one architecture, from the cache where it is there; see `compile_kernels`."""
    texts = read_texts()
    folder = cache_folder() if cache is None else cache
    entry = folder / f"{Path(source).stem}-{target}-{_key(source, target, texts)}.bin"
    module = _load(entry, source, target)
    if module is None:
        module = compile_text(source, target, texts)
        _store(entry, module)
    return module


def compile_text(source: str, target: str, texts: Mapping[str, bytes]) -> Module:
    """Run NVRTC, without a look at the cache.

    Args:
        source: which of the texts.
        target: such as `sm_89`.
        texts: contents by name, headers among them.

    Raises:
        CompileError: as in `compile_kernels`.
    """
    nvrtc = _nvrtc()
    headers = {name: text for name, text in texts.items() if name != source}
    program = _checked(
        nvrtc,
        nvrtc.nvrtcCreateProgram(
            texts[source],
            source.encode(),
            len(headers),
            list(headers.values()),
            [name.encode() for name in headers],
        ),
    )
    try:
        options = [option.encode() for option in (f"--gpu-architecture={target}", *OPTIONS)]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        log = bytearray(_checked(nvrtc, nvrtc.nvrtcGetProgramLogSize(program)))
        _checked(nvrtc, nvrtc.nvrtcGetProgramLog(program, log))
        said = bytes(log).rstrip(b"\0 \n").decode(errors="replace")
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise CompileError(
                f"{source} does not compile for {target} ({status.name})",
                f"use a GPU or an NVRTC that the other knows ({_version(nvrtc)} is installed), or report this",
                said,
            )
        cubin = bytearray(_checked(nvrtc, nvrtc.nvrtcGetCUBINSize(program)))
        _checked(nvrtc, nvrtc.nvrtcGetCUBIN(program, cubin))
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return Module(source, target, bytes(cubin), said)


def read_texts() -> dict[str, bytes]:
    """Every source and header of the package, by name."""
    folder = files("omni2_kernels") / "cuda"
    names = (item for item in folder.iterdir() if item.name.endswith((".cu", ".cuh")))
    return {item.name: item.read_bytes() for item in sorted(names, key=lambda item: item.name)}


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again, and kernels in it."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "omni2-engine" / "kernels"


def _key(source: str, target: str, texts: Mapping[str, bytes]) -> str:
    decides = [source, target, _version(_nvrtc()), OPTIONS, {name: text.decode() for name, text in texts.items()}]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:24]


def _load(entry: Path, source: str, target: str) -> Module | None:
    try:
        stored = entry.read_bytes()
    except OSError:
        return None
    checksum, body = stored[:CHECKSUM_BYTES], stored[CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest() != checksum:
        return None
    log, _, cubin = body.partition(b"\0")
    return Module(source, target, cubin, log.decode())


def _store(entry: Path, module: Module) -> None:
    """Write under another name and rename: a reader finds all of it or nothing."""
    body = module.log.encode() + b"\0" + module.cubin
    temporary = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=entry.parent, prefix=f"{entry.stem}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(hashlib.sha256(body).digest() + body)
        temporary.replace(entry)
    except OSError:  # a folder that cannot be written to costs a second at the next start, no more
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()  # the library itself is found at the first call
    except (ImportError, RuntimeError) as error:
        raise CompileError(
            f"NVRTC, which compiles the kernels, is not here ({error})", "pip install 'omni2-engine[tensorrt]'"
        ) from error
    return nvrtc


def _version(nvrtc: Any) -> str:
    _, major, minor = nvrtc.nvrtcVersion()
    return f"{major}.{minor}"


def _checked(nvrtc: Any, result: tuple[Any, ...]) -> Any:
    """What a call of NVRTC gave, after its status."""
    status, *values = result
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompileError(f"NVRTC {_version(nvrtc)} failed ({status.name})", "install another version of it")
    return values[0] if values else None
