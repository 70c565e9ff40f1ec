"""Which files are images and which are clips: told by how they begin, as names may say anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from graft.v1 import types_pb2

_IMAGES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_CLIPS: Final = (b"fLaC", b"OggS", b"ID3")
_RIFF: Final = {b"WEBP": "image", b"WAVE": "audio"}
# An MP3 without tags begins with a frame: eleven bits set, MPEG's layer III.
_MP3: Final = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xe3", b"\xff\xe2")

ENDINGS: Final = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
)
"""What files of a folder tree are taken for images or clips; others are passed over."""


def media_message(value: bytes | bytearray | memoryview | os.PathLike[str]) -> types_pb2.Input:
    """The protobuf form of an image or a clip, given as what a file holds or as its path.

    Raises:
        ValueError: It is neither, or the file cannot be read.
    """
    if isinstance(value, os.PathLike):
        return _of_file(Path(value))
    kind = _kind(bytes(value[:16]))
    if kind is None:
        raise ValueError(f"the {len(value):,} bytes are {_NEITHER}")
    return _message(kind, bytes(value))


_NEITHER: Final = (
    "neither an image (JPEG, PNG, WebP, GIF) nor a clip (WAV, FLAC, OGG, MP3); a text is given as str"
)


def _of_file(path: Path) -> types_pb2.Input:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    kind = _kind(data[:16])
    if kind is None:
        raise ValueError(f"{path} is {_NEITHER}")
    return _message(kind, data)


def _message(kind: str, data: bytes) -> types_pb2.Input:
    return types_pb2.Input(image=data) if kind == "image" else types_pb2.Input(audio=data)


def _kind(begin: bytes) -> str | None:
    if begin.startswith(_IMAGES):
        return "image"
    if begin.startswith(b"RIFF"):
        return _RIFF.get(begin[8:12])
    return "audio" if begin.startswith((*_CLIPS, *_MP3)) else None


def class_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """The images and clips below folders that are named as their classes are, sorted: (file, class).

    What lies directly in the folder, hidden files and files with other endings are passed over.
    """
    for of_class in sorted(it for it in folder.iterdir() if it.is_dir() and not it.name.startswith(".")):
        for file in sorted(of_class.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(of_class).parts)
            if file.suffix.lower() in ENDINGS and file.is_file() and not hidden:
                yield file, of_class.name
