"""Distinguishes images and clips by the beginning of the file, since names may be wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from graft.v1 import types_pb2

_IMAGES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_CLIPS: Final = (b"fLaC", b"OggS", b"ID3", b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00")
_RIFF: Final = {b"WEBP": "image", b"WAVE": "audio"}
# An MP3 without tags begins with a frame: eleven bits set, MPEG's layer III.
_MP3: Final = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xe3", b"\xff\xe2")

ENDINGS: Final = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
)
"""The endings of files that are images or clips, as far as a name says."""
_BEGINNING: Final = 64
"""The bytes that tell what a file is."""

_IMAGE: Final = "save it as JPEG or PNG"
_CLIP: Final = "convert it to WAV, FLAC, OGG or MP3"
_STILLS: Final = "take pictures or its sound from it"
_OTHERS: Final = (
    (b"II*\0", "a TIFF", _IMAGE),
    (b"MM\0*", "a TIFF", _IMAGE),
    (b"II+\0", "a TIFF", _IMAGE),
    (b"8BPS", "a Photoshop file", _IMAGE),
    (b"\x00\x00\x01\x00", "an icon", _IMAGE),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000", _IMAGE),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL", _IMAGE),
    (b"\xff\x0a", "a JPEG XL", _IMAGE),
    (b"BM", "a BMP", _IMAGE),
    (b"%PDF", "a PDF", "save its pages as PNG"),
    (b"FORM", "an AIFF", _CLIP),
    (b".snd", "an AU", _CLIP),
    (b"caff", "a CAF", _CLIP),
    (b"#!AMR", "an AMR", _CLIP),
    (b"\x30\x26\xb2\x75", "a WMA or WMV", _CLIP),
    (b"\xff\xf1", "an AAC", _CLIP),
    (b"\xff\xf9", "an AAC", _CLIP),
    (b"MThd", "a MIDI file", "render it to WAV"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video", _STILLS),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"version https://git-lfs", "a pointer of Git LFS, not its file", "fetch it with `git lfs pull`"),
)
"""How files begin that are not read, what they are, and what to do."""
_BRANDS: Final = {
    "a HEIC": (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"),
    "an AVIF": (b"avif", b"avis"),
}
_PAGES: Final = (
    (b"<!doctype html", b"<html"),
    "an HTML page",
    "whatever saved it was sent a page instead of the file",
)
_SVG: Final = (b"<svg", b"<?xml")


def media_message(value: bytes | bytearray | memoryview | os.PathLike[str]) -> types_pb2.Input:
    """Returns the protobuf form of an image or a clip, given as the content of a file or as its path.

    Raises:
        ValueError: It is neither an image nor a clip, or the file cannot be read.
    """
    if isinstance(value, os.PathLike):
        return _of_file(Path(value))
    kind = kind_of(bytes(value[:_BEGINNING]))
    if kind is None:
        raise ValueError(f"the {len(value):,} bytes are {_other(bytes(value[:_BEGINNING]))}{_NEITHER}")
    return _message(kind, bytes(value))


_NEITHER: Final = (
    "neither an image (JPEG, PNG, WebP, GIF) nor a clip (WAV, FLAC, OGG, MP3); a text is given as str"
)


def unusable(path: Path) -> str:
    """Says why a file is no image or clip that is read; empty if it begins as one."""
    try:
        with path.open("rb") as file:
            begin = file.read(_BEGINNING)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    if kind_of(begin) is not None:
        return ""
    if not begin:
        return "it is empty: it has 0 bytes"
    return f"it is {_other(begin)}{_NEITHER.partition(';')[0]}"


def kind_of(begin: bytes) -> str | None:
    """Returns "image" or "audio" by the first bytes of a file, or None."""
    if begin.startswith(_IMAGES):
        return "image"
    if begin.startswith((b"RIFF", b"RF64", b"BW64")):
        return _RIFF.get(begin[8:12])
    return "audio" if begin.startswith((*_CLIPS, *_MP3)) else None


def _of_file(path: Path) -> types_pb2.Input:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    kind = kind_of(data[:_BEGINNING])
    if kind is None:
        raise ValueError(f"{path} is {_other(data[:_BEGINNING])}{_NEITHER}")
    return _message(kind, data)


def _message(kind: str, data: bytes) -> types_pb2.Input:
    return types_pb2.Input(image=data) if kind == "image" else types_pb2.Input(audio=data)


def _other(begin: bytes) -> str:
    """What a file is that is not read, with what to do, before what it is not; empty if that is not known."""
    found = _known(begin)
    return f"{found[0]} ({found[1]}), " if found else ""


def _known(begin: bytes) -> tuple[str, str] | None:
    if not begin:
        return "empty", "it has 0 bytes"
    if begin[4:8] == b"ftyp":
        for name, brands in _BRANDS.items():
            if begin[8:12] in brands:
                return name, _IMAGE
        sound = begin[8:11] in (b"M4A", b"M4B")
        return ("an M4A", _CLIP) if sound else ("an MP4 or QuickTime video", _STILLS)
    text = begin.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES[0]):
        return _PAGES[1:]
    if text.startswith(_SVG):
        return "an SVG or another XML file", _IMAGE
    return next(((name, remedy) for start, name, remedy in _OTHERS if begin.startswith(start)), None)


def ending_of(content: bytes) -> str:
    """The ending of a file's name that fits its content, such as ".png"; ".bin" where that is not known."""
    if content.startswith(b"RIFF"):
        return ".webp" if content[8:12] == b"WEBP" else ".wav"
    return next((ending for beginning, ending in _BEGINNINGS if content.startswith(beginning)), ".bin")


_BEGINNINGS: Final = (
    *((it, ".mp3") for it in (b"ID3", *_MP3)),
    *((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG", ".png"), (b"GIF8", ".gif")),
    *((b"fLaC", ".flac"), (b"OggS", ".ogg")),
)
