"""Audio containers that do not know their own length, as programs write them that cannot go back to the header.

A recorder that writes to a pipe, or that is killed, leaves the size of the samples at 0, at the largest number there
is, or at a guess. libsndfile takes some of these literally. Here the size becomes what really follows the header.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

WAVE64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")  # the GUID it begins with
HEADER = 16  # bytes that tell the containers apart
MOST_CHUNKS = 1000


@dataclass(frozen=True)
class Container:
    """How a file of chunks is laid out.

    Args:
        first: offset of the first chunk.
        name: bytes of a chunk's name.
        size: bytes of the size behind it.
        order: byte order of the size.
        padding: a chunk's length is rounded up to a multiple of it.
        inclusive: the size counts the chunk's own header.
    """

    first: int
    name: int
    size: int
    order: Literal["little", "big"]
    padding: int
    inclusive: bool = False

    @property
    def header(self) -> int:
        """Bytes of a chunk's header."""
        return self.name + self.size


@dataclass(frozen=True)
class ContainerChunk:
    """One chunk: its name, where its content begins, and how long that is by its header."""

    name: bytes
    begin: int
    length: int


RIFF = Container(12, 4, 4, "little", 2)
RIFX = Container(12, 4, 4, "big", 2)
W64 = Container(40, 16, 8, "little", 8, inclusive=True)
CAF = Container(8, 4, 8, "big", 1)
W64_SIZE = 16  # offset of the size of a whole Wave64 file


def corrections(file: BinaryIO) -> dict[int, bytes]:
    """What to write over a file's header so that the length it gives is that of its samples.

    Args:
        file: can be sought in; left at its beginning.

    Returns:
        Offset → bytes; empty where the header is right or the container is none of those known here.
    """
    total = file.seek(0, os.SEEK_END)
    try:
        file.seek(0)
        start = file.read(HEADER)
        container = _container(start)
        if container is None:
            return {}
        sizes: dict[bytes, ContainerChunk] = {}
        for chunk in _chunks(file, container, container.first, total):
            sizes[chunk.name[:4]] = chunk
            if chunk.name[:4] == b"data":
                break
        data = sizes.get(b"data")
        if data is None:
            return {}
        wide = sizes.get(b"ds64") if start[:4] in (b"RF64", b"BW64") else None
        return _corrected(file, container, data, wide, total)
    finally:
        file.seek(0)


def _container(start: bytes) -> Container | None:
    if start[:4] in (b"RIFF", b"RF64", b"BW64") and start[8:12] == b"WAVE":
        return RIFF
    if start[:4] == b"RIFX" and start[8:12] == b"WAVE":
        return RIFX
    if start == WAVE64:
        return W64
    return CAF if start[:4] == b"caff" else None


def _chunks(file: BinaryIO, container: Container, begin: int, total: int) -> Iterator[ContainerChunk]:
    """The chunks from an offset on whose headers lie in the file."""
    for _ in range(MOST_CHUNKS):
        file.seek(begin)
        header = file.read(container.header)
        if len(header) < container.header:
            return
        name, size = header[: container.name], int.from_bytes(header[container.name :], container.order)
        length = max(size - container.header, 0) if container.inclusive else size
        yield ContainerChunk(name, begin + container.header, length)
        begin += container.header + -(-length // container.padding) * container.padding
        if begin >= total:
            return


def _corrected(
    file: BinaryIO, container: Container, data: ContainerChunk, wide: ContainerChunk | None, total: int
) -> dict[int, bytes]:
    """See `corrections`; `wide` is the chunk of an RF64 file that holds the real sizes."""
    there, length = total - data.begin, data.length
    if wide is not None and length == 2**32 - 1:
        file.seek(wide.begin + 8)
        length = int.from_bytes(file.read(8), "little")
    if length <= there and (length or _is_chain(file, container, data.begin, total)):
        return {}
    place, most = data.begin - container.size, 2 ** (8 * container.size) - 1
    if wide is not None:
        sizes = (total - 8).to_bytes(8, "little") + there.to_bytes(8, "little")
        return {wide.begin: sizes, place: most.to_bytes(4, "little")}
    size = min(there + container.header if container.inclusive else there, most)
    whole = {W64_SIZE: total.to_bytes(8, "little")} if container is W64 else {}
    return {place: size.to_bytes(container.size, container.order), **whole}


def _is_chain(file: BinaryIO, container: Container, begin: int, total: int) -> bool:
    """Whether what lies behind an empty chunk is further chunks, or nothing: then it really is empty."""
    end = begin
    for chunk in _chunks(file, container, begin, total):
        if not chunk.name[:4].isascii() or not chunk.name[:4].decode("ascii").isprintable():
            return False
        end = chunk.begin + chunk.length
    return begin >= total or begin < end <= total + container.padding
