"""What the host says of kernels and structs is what their sources say, and what compilers make of them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from omni2_kernels import decoding, launch, registry
from omni2_kernels.compile import read_texts
from omni2_kernels.registry import KERNELS, SIZES

STRUCTS = {
    "Row": decoding.ROW,
    "Report": decoding.REPORT,
    "Candidate": decoding.CANDIDATE,
    "Contest": decoding.CONTEST,
    "Batch": decoding.BATCH,
}
SIGNATURE = re.compile(r'extern "C" __global__ void __launch_bounds__\(kThreads\)\s*(\w+)\(([^)]*)\)')
ENUM = re.compile(r"enum (\w+) : int32_t {(.*?)};", re.DOTALL)


@pytest.mark.parametrize("name", STRUCTS)
def test_structs_have_the_fields_of_their_records(emulator: Any, name: str) -> None:
    layout, record = emulator.library.omni2_emulated_layout, STRUCTS[name]
    assert layout(name.encode()) == record.itemsize
    assert record.names is not None and record.fields is not None
    for field in record.names:
        assert layout(f"{name}.{field}".encode()) == record.fields[field][1], field
    declared = next(text.decode() for text in read_texts().values() if f"struct {name} {{".encode() in text)
    body = declared.partition(f"struct {name} {{")[2].partition("};")[0]
    parts = re.split(r"[;,]", re.sub(r"//[^\n]*", "", body))
    fields = [re.sub(r"\[.*", "", part).split()[-1].strip("*") for part in parts if part.split()]
    assert fields == list(record.names)


def test_enumerations_are_the_same() -> None:
    text = read_texts()["decoding.cuh"].decode()
    found = {name: dict(re.findall(r"k(\w+) = (\d+)", body)) for name, body in ENUM.findall(text)}
    for enum in (decoding.State, decoding.Stop, decoding.ElementType):
        ours = {member.name.replace("_", "").lower(): int(member) for member in enum}
        assert {name.lower(): int(value) for name, value in found[enum.__name__].items()} == ours


def test_constants_are_the_same() -> None:
    texts = read_texts()
    for name, source, value in [
        ("kThreads", "device.cuh", launch.THREADS),
        ("kBins", "decoding.cuh", decoding.BINS),
        ("kMostEnds", "decoding.cuh", decoding.MOST_ENDS),
    ]:
        assert re.search(rf"{name} = (\d+);", texts[source].decode())[1] == str(value)  # type: ignore[index]
    per_thread = re.search(r"kPerThread = (\d+);", texts["choose.cu"].decode())
    assert per_thread is not None and int(per_thread[1]) * launch.THREADS == registry.TILE


def test_every_kernel_of_the_sources_is_registered_with_its_parameters() -> None:
    found = {
        name: (source, [" ".join(parameter.split()) for parameter in parameters.split(",")])
        for source, text in read_texts().items()
        for name, parameters in SIGNATURE.findall(text.decode())
    }
    assert sum(text.count(b"__global__") for text in read_texts().values()) == len(found)
    registered = {
        name: (kernel.source, [f"{parameter.type} {parameter.name}" for parameter in kernel.parameters])
        for name, kernel in KERNELS.items()
    }
    assert registered == found


def test_the_emulator_has_every_kernel_with_parameters_of_the_same_size(emulator: Any) -> None:
    library = emulator.library
    names = []
    while (name := library.omni2_emulated_kernel(len(names))) is not None:
        names.append(name.decode())
    assert sorted(names) == sorted(KERNELS)
    for name, kernel in KERNELS.items():
        for index, parameter in enumerate(kernel.parameters):
            assert library.omni2_emulated_parameter_bytes(name.encode(), index) == parameter.dtype.itemsize
        assert library.omni2_emulated_parameter_bytes(name.encode(), len(kernel.parameters)) == 0


@pytest.mark.parametrize("name", KERNELS)
def test_floors_are_bytes_over_bandwidth(name: str) -> None:
    kernel = KERNELS[name]
    assert kernel.floor(SIZES) == kernel.moved(SIZES) / 864e9 > 0
    doubled = {size: 2 * value if size == kernel.sizes[0] else value for size, value in SIZES.items()}
    assert kernel.moved(doubled) == 2 * kernel.moved(SIZES)


def test_arguments_that_do_not_fit_are_refused() -> None:
    batch = np.zeros((), decoding.BATCH)
    resume, rank, sizes = KERNELS["resume"], KERNELS["rank_logits"], {"rows": 3, "vocab": 7}
    assert resume.launch(sizes, batch).arguments == (batch.tobytes(),)
    assert rank.launch(sizes, batch, 2).arguments == (batch.tobytes(), np.int32(2).tobytes())
    with pytest.raises(TypeError, match="resume takes batch"):
        resume.launch(sizes)
    with pytest.raises(TypeError, match="batch is Batch"):
        resume.launch(sizes, np.zeros((), decoding.ROW))
    for serve in (0.5, 2**31, [1, 2]):
        with pytest.raises(TypeError, match="serve is int32_t"):
            rank.launch(sizes, batch, serve)
