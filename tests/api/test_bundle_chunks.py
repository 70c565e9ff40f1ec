"""A bundle's file in chunks, from where its caller is on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from graft_server.api.models import CHUNK_BYTES, chunks_of
from graft_server.domain.model import BundleChunk, BundleFile, ReceivedFile

CONTENT = b"graph" * (CHUNK_BYTES // 4)
DIGEST = "d" * 64


def chunks(folder: Path, content: bytes, received: ReceivedFile | None = None) -> list[BundleChunk]:
    place = folder / "model.onnx"
    place.write_bytes(content)
    file = BundleFile("model.onnx", len(content), DIGEST, place)

    async def read() -> list[BundleChunk]:
        return [it async for it in chunks_of(file, 7, received)]

    return asyncio.run(read())


def test_chunks_say_where_they_begin_and_of_which_version_they_are(tmp_path: Path) -> None:
    found = chunks(tmp_path, CONTENT)
    assert b"".join(it.chunk for it in found) == CONTENT
    assert [it.offset for it in found] == [0, CHUNK_BYTES]
    assert {(it.path, it.size, it.sha256, it.version) for it in found} == {
        ("model.onnx", len(CONTENT), DIGEST, 7)
    }


@pytest.mark.parametrize(
    ("received", "begins"),
    [
        (ReceivedFile(DIGEST, 1000), 1000),
        (ReceivedFile(DIGEST, len(CONTENT)), len(CONTENT)),
        (ReceivedFile(DIGEST, len(CONTENT) + 1), 0),
        (ReceivedFile(DIGEST, -1), 0),
        (ReceivedFile("e" * 64, 1000), 0),
    ],
)
def test_what_the_caller_has_of_the_same_file_is_not_sent_again(
    tmp_path: Path, received: ReceivedFile, begins: int
) -> None:
    found = chunks(tmp_path, CONTENT, received)
    assert found[0].offset == begins
    assert b"".join(it.chunk for it in found) == CONTENT[begins:]


def test_an_empty_file_and_one_that_ends_with_a_chunk_come_whole(tmp_path: Path) -> None:
    assert [it.chunk for it in chunks(tmp_path, b"")] == [b""]
    assert [len(it.chunk) for it in chunks(tmp_path, b"x" * CHUNK_BYTES)] == [CHUNK_BYTES]
