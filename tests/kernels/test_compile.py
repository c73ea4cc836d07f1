"""NVRTC makes every kernel for every architecture, within its registers; what it made is kept, and mistrusted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from omni2_kernels import compile as compiler
from omni2_kernels.compile import (
    ARCHITECTURES,
    OPTIONS,
    CompileError,
    Module,
    architecture,
    cache_folder,
    compile_kernels,
    compile_source,
    compile_text,
    read_texts,
)
from omni2_kernels.registry import KERNELS, SOURCES

SMALL = "continue.cu"


@pytest.fixture(scope="module")
def nvrtc() -> Any:
    return pytest.importorskip("cuda.bindings.nvrtc", reason="needs NVRTC; pip install '.[tensorrt]' to run this test")


@pytest.fixture
def runs(nvrtc: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every (source, architecture) that NVRTC is set to work on."""
    calls: list[tuple[str, str]] = []
    real = compiler.compile_text

    def noted(source: str, target: str, texts: Mapping[str, bytes]) -> Module:
        calls.append((source, target))
        return real(source, target, texts)

    monkeypatch.setattr(compiler, "compile_text", noted)
    return calls


@pytest.mark.parametrize("target", ARCHITECTURES)
def test_every_kernel_builds_without_spills(nvrtc: Any, tmp_path: Path, target: str) -> None:
    modules = compile_kernels(target, tmp_path)
    assert set(modules) == set(SOURCES)
    built = {}
    for source, module in modules.items():
        assert module.cubin.startswith(b"\x7fELF")
        assert "warning" not in module.log
        built |= dict.fromkeys(module.usage, source)
        for kernel, usage in module.usage.items():
            assert (usage.spills, usage.stack) == (0, 0), kernel
            assert 0 < usage.registers <= 64, kernel  # 1024 threads of a multiprocessor have 64 each
            assert usage.shared <= 12 << 10, kernel
            assert kernel.encode() in module.cubin
    assert built == {kernel.name: kernel.source for kernel in KERNELS.values()}


def test_arithmetic_is_the_hosts(nvrtc: Any) -> None:
    """Not one fused multiply-add, division as IEEE has it, denormals kept."""
    texts = read_texts()
    found = ""
    for source in SOURCES:
        found += intermediate_code(nvrtc, source, texts, OPTIONS)
    assert "fma." not in found and ".ftz" not in found and ".approx" not in found
    for rounded in ("mul.rn.f32", "add.rn.f32", "div.rn.f32"):
        assert rounded in found
    fused = [option for option in OPTIONS if "fmad" not in option]
    assert "fma.rn.f32" in intermediate_code(nvrtc, "choose.cu", texts, fused)  # without it, it would be otherwise


def intermediate_code(nvrtc: Any, source: str, texts: Mapping[str, bytes], options: Any) -> str:
    """PTX, in which every operation has its rounding."""
    headers = {name: text for name, text in texts.items() if name.endswith(".cuh")}
    names = [name.encode() for name in headers]
    _, program = nvrtc.nvrtcCreateProgram(texts[source], source.encode(), len(headers), list(headers.values()), names)
    flags = [b"--gpu-architecture=compute_89", *(option.encode() for option in options if "ptxas" not in option)]
    assert nvrtc.nvrtcCompileProgram(program, len(flags), flags)[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS
    code = bytearray(nvrtc.nvrtcGetPTXSize(program)[1])
    nvrtc.nvrtcGetPTX(program, code)
    return bytes(code).decode()


def test_what_was_made_is_found_again(runs: list[tuple[str, str]], tmp_path: Path) -> None:
    made = compile_source(SMALL, "sm_89", tmp_path)
    assert compile_source(SMALL, "sm_89", tmp_path) == made
    assert runs == [(SMALL, "sm_89")]
    compile_source(SMALL, "sm_86", tmp_path)
    compile_source("choose.cu", "sm_89", tmp_path)
    assert len(runs) == 3
    assert len(list(tmp_path.iterdir())) == 3  # nothing else is left lying about


def test_another_source_or_option_is_another_entry(
    runs: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_source(SMALL, "sm_89", tmp_path)
    changed = {name: text + (b"\n" if name == "elements.cuh" else b"") for name, text in read_texts().items()}
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "read_texts", lambda: changed)
        compile_source(SMALL, "sm_89", tmp_path)
    assert len(runs) == 2
    monkeypatch.setattr(compiler, "OPTIONS", (*OPTIONS, "--extra-device-vectorization"))
    compile_source(SMALL, "sm_89", tmp_path)
    assert len(runs) == 3


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty", "not ours"])
def test_a_damaged_entry_is_made_again(runs: list[tuple[str, str]], tmp_path: Path, damage: str) -> None:
    made = compile_source(SMALL, "sm_89", tmp_path)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :]
    entry.write_bytes({"truncated": whole[:-9], "one bit": flipped, "empty": b"", "not ours": b"#!/bin/sh"}[damage])
    assert compile_source(SMALL, "sm_89", tmp_path).cubin == made.cubin
    assert len(runs) == 2
    assert compile_source(SMALL, "sm_89", tmp_path).cubin == made.cubin
    assert len(runs) == 2


def test_a_folder_that_cannot_be_written_to_costs_only_time(runs: list[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for _ in range(2):
        assert compile_source(SMALL, "sm_89", tmp_path / "file" / "cache").cubin
    assert len(runs) == 2


def test_errors_bring_the_compilers_words(nvrtc: Any) -> None:
    texts = {"broken.cu": b'#include "wrong.cuh"\n', "wrong.cuh": b"int f() { return nonsense; }\n"}
    with pytest.raises(CompileError, match=r"broken\.cu does not compile for sm_89") as caught:
        compile_text("broken.cu", "sm_89", texts)
    assert 'identifier "nonsense" is undefined' in caught.value.log
    assert caught.value.log in str(caught.value)


def test_an_unknown_architecture(nvrtc: Any, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="sm_12345") as caught:
        compile_source(SMALL, "sm_12345", tmp_path)
    assert "is installed" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_without_nvrtc_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(CompileError, match=r"NVRTC.*omni2-engine\[tensorrt\]"):
        compile_source(SMALL, "sm_89", tmp_path)


def test_compute_capabilities_have_names() -> None:
    assert architecture(8, 9) == "sm_89" and architecture(12, 0) == "sm_120"


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "omni2-engine" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "omni2-engine" / "kernels"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "omni2-engine" / "kernels"
