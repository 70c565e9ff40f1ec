"""Writes an exported bundle to disk: checked, all or nothing, and nowhere but into its folder."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO, Self

from graft.errors import DataLossError
from graft.v1 import model_pb2


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model version on disk, which needs no server."""

    directory: Path
    """The folder of the bundle."""
    files: tuple[Path, ...]
    """Its files."""
    size: int
    """The total size of the files, in bytes."""

    @property
    def onnx(self) -> Path:
        """The graph, from token ids to calibrated probabilities."""
        return self.directory / "model.onnx"


@dataclass(slots=True)
class _File:
    """What there is of a file, from its beginning."""

    path: str
    size: int
    sha256: str
    received: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)


class BundleWriter:
    """Takes a bundle's pieces as they arrive. The files appear in the folder once all of them are verified.

    Until then they are in a temporary folder inside it, so that moving them is one step for each, and what
    was there before stays as it was if the export fails. A bundle may come by several calls: what an earlier one
    brought is kept where the later one is of the same bytes.

    Attributes:
        received: Bytes so far.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._existed = self._directory.exists()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._staging = Path(tempfile.mkdtemp(prefix=".graft-export-", dir=self._directory))
        self._stream: BinaryIO | None = None
        self._current: _File | None = None
        self._earlier: dict[str, _File] = {}
        """What earlier calls brought and this one has not named yet."""
        self._files: dict[str, _File] = {}
        """The files of this call, in their order."""
        self.received = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_stream()
        shutil.rmtree(self._staging, ignore_errors=True)
        if error is not None and not self._existed and not any(self._directory.iterdir()):
            self._directory.rmdir()

    @property
    def kept(self) -> tuple[model_pb2.ReceivedFile, ...]:
        """What need not be sent again."""
        files = (self._earlier | self._files).values()
        return tuple(model_pb2.ReceivedFile(path=it.path, sha256=it.sha256, size=it.received) for it in files)

    def begin(self) -> None:
        """Begins with the pieces of another call."""
        self._close_stream()
        self._current = None
        self._earlier |= self._files
        self._files = {}

    def write(self, piece: model_pb2.ExportModelResponse) -> None:
        """Takes the next piece.

        Raises:
            DataLossError: The previous file differs from the server's digest, or a path leads out of the folder.
        """
        if self._current is None or self._current.path != piece.path:
            self._close_current()
            self._current = self._open(piece)
        if self._stream is not None:
            self._stream.write(piece.chunk)
        self._current.digest.update(piece.chunk)
        self._current.received += len(piece.chunk)
        self.received += len(piece.chunk)

    def finish(self) -> Bundle:
        """Checks the last file and moves all files to their places.

        Raises:
            DataLossError: A file differs from the server's digest, or there is none.
        """
        self._close_current()
        if not self._files:
            raise DataLossError("The server sent no files.", reason="BUNDLE_EMPTY", domain="graft")
        files = [self._move(path) for path in self._files]
        size = sum(it.size for it in self._files.values())
        return Bundle(directory=self._directory, files=tuple(files), size=size)

    def _open(self, piece: model_pb2.ExportModelResponse) -> _File:
        if piece.path in self._files:
            raise _corrupt(piece.path, "was sent twice")
        staged = self._staging / _checked_path(piece.path)
        staged.parent.mkdir(parents=True, exist_ok=True)
        known = self._earlier.pop(piece.path, None)
        file = known or _File(path=piece.path, size=piece.size, sha256=piece.sha256)
        if piece.offset:
            if file.received != piece.offset or (file.size, file.sha256) != (piece.size, piece.sha256):
                raise _corrupt(piece.path, f"goes on at byte {piece.offset:,}, of which nobody asked")
            self._stream = staged.open("ab")
        else:
            self.received -= file.received  # its beginning comes again
            file = _File(path=piece.path, size=piece.size, sha256=piece.sha256)
            self._stream = staged.open("wb")
        self._files[piece.path] = file
        return file

    def _close_current(self) -> None:
        self._close_stream()
        if self._current is None:
            return
        current, self._current = self._current, None
        if current.received != current.size:
            raise _corrupt(current.path, f"has {current.received:,} bytes instead of {current.size:,}")
        if current.digest.hexdigest() != current.sha256:
            raise _corrupt(current.path, f"has SHA-256 {current.digest.hexdigest()}, not {current.sha256}")

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _move(self, path: str) -> Path:
        target = self._directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # An older symbolic link in the folder could still lead out of it.
        if not target.parent.resolve().is_relative_to(self._directory.resolve()):
            raise _corrupt(path, "leads out of the folder through a symbolic link")
        return (self._staging / path).replace(target)


def _checked_path(path: str) -> PurePosixPath:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path or ":" in path:
        raise _corrupt(path, "is not a path within the bundle")
    return pure


def _corrupt(path: str, what: str) -> DataLossError:
    return DataLossError(f"The exported file {path!r} {what}.", reason="BUNDLE_CORRUPT", domain="graft")
