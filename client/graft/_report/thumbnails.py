"""Pictures and clips of examples within a page: small ones as they are, larger pictures made small where Pillow is."""

from __future__ import annotations

import base64
import io
from typing import Final

from graft._records.inputs.media import media_message

_MOST_BYTES: Final = 64 * 1024
"""Of a file that is shown as it is."""
_SIDE: Final = 160
"""The longer side of a picture that is made small, in pixels: twice what is shown, for fine screens."""
_MIMES: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
_CLIPS: Final = ((b"RIFF", "audio/wav"), (b"fLaC", "audio/flac"), (b"OggS", "audio/ogg"))


def shown_content(content: bytes) -> str:
    """The markup of a picture or a clip; "" if it is too large to be shown, or is neither."""
    try:
        kind = media_message(content).WhichOneof("kind")
    except ValueError:
        return ""
    if kind == "audio":
        data = _data(content, _CLIPS, "audio/mpeg") if len(content) <= _MOST_BYTES else ""
        return f'<audio controls preload="none" src="{data}"></audio>' if data else ""
    small = content if len(content) <= _MOST_BYTES else _reduced(content)
    return f'<img class="thumb" alt="" src="{_data(small, _MIMES, "image/png")}">' if small else ""


def _data(content: bytes, mimes: tuple[tuple[bytes, str], ...], other: str) -> str:
    mime = next((mime for beginning, mime in mimes if content.startswith(beginning)), other)
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _reduced(content: bytes) -> bytes:
    """The picture with few pixels; b"" without Pillow, or if it cannot be read."""
    try:
        from PIL import Image  # noqa: PLC0415 (it need not be there)
    except ModuleNotFoundError:
        return b""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.draft("RGB", (_SIDE, _SIDE))  # a JPEG is decoded small
            small = image.convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            written = io.BytesIO()
            small.save(written, "JPEG", quality=80)
    except (OSError, ValueError, Image.DecompressionBombError):
        return b""
    return written.getvalue()
