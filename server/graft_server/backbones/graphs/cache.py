"""Exported encoders on disk, by encoder_id: made once, then loaded by every start.

An entry appears whole or not at all: it is written beside its place and renamed. Two processes that export the
same encoder at once make the same entry; the second rename loses, harmlessly.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GRAPH = "encoder.onnx"
NAMES = "names.onnx"
"""The text encoder of a backbone whose images share a space with texts."""
PARITY_RECORD = "parity.json"
"""What the export measured: `parity`, the largest relative difference to torch."""
HIDDEN = "hidden"
"""What the tensor at a cut is called in both parts of a graph; see `cutting`."""


class EncoderCache:
    """A folder of exported encoders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def graph(self, encoder_id: str) -> Path:
        """Where the encoder's graph is, or would be."""
        return self._folder / "encoders" / encoder_id / GRAPH

    def names(self, encoder_id: str) -> Path:
        """Where the graph is that encodes names of classes, for backbones that have one."""
        return self.graph(encoder_id).with_name(NAMES)

    def below(self, encoder_id: str, layer: int) -> Path:
        """Where the part of the graph below a cut after so many layers is, or would be."""
        return self.graph(encoder_id).with_name(f"below-{layer}.onnx")

    def above(self, encoder_id: str, layer: int) -> Path:
        """Where the part above it is, or would be."""
        return self.graph(encoder_id).with_name(f"above-{layer}.onnx")

    def has(self, encoder_id: str) -> bool:
        """Whether the encoder has been exported."""
        return self.graph(encoder_id).is_file()

    def parity(self, encoder_id: str) -> float:
        """What was measured when it was exported; 0: not known."""
        try:
            return float(json.loads((self.graph(encoder_id).parent / PARITY_RECORD).read_bytes())["parity"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0

    def discard(self, encoder_id: str) -> None:
        """Removes an entry that turned out to be unusable."""
        shutil.rmtree(self.graph(encoder_id).parent, ignore_errors=True)

    def add(self, path: Path, data: bytes) -> None:
        """Puts a file beside an encoder's graph; two processes that do so at once put the same one."""
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(data)
        Path(file.name).replace(path)

    @contextmanager
    def new_entry(self, encoder_id: str) -> Iterator[Path]:
        """Gives a folder to write the entry's files to; it becomes the entry if the block succeeds."""
        place = self.graph(encoder_id).parent
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{encoder_id}.", dir=place.parent))
        try:
            yield temporary
            for path in temporary.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            with suppress(OSError):  # somebody else was faster
                temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
