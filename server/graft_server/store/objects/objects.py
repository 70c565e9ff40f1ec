"""Immutable objects by key, created once, on a local folder or a bucket.

Every object is sealed: the payload, then a line with a digest, so that a truncated or flipped object is
noticed when it is read, and JSON stays readable. The line also carries a random nonce of the writer: where
a bucket reports "already exists" after a time-out, the nonce tells whether our own attempt won.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, from_url

from graft_server.domain.errors import CorruptError, StoreError, StoreFullError
from graft_server.store.objects import formats, local_folder, local_listing
from graft_server.store.objects.local_listing import Listed

_log = logging.getLogger(__name__)
_SEAL = re.compile(rb"\n#sealed ([0-9a-f]{32}) ([0-9a-f]{16})\n")
_SEAL_BYTES = len("\n#sealed  \n") + 32 + 16
_NEWER_SEAL = re.compile(rb"\n#sealed/(\d{1,9}) [^\n]*\n\Z")
"""What a seal of another format is to look like."""
_LONGEST_SEAL = 512
_PIECE_BYTES = 1 << 20
# How obstore's local store tells of an operating system's error.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}

CLOCK = "handed-over/clock-"
"""The prefix of objects that are written to ask the store for its time: a crash may leave one, which is swept."""

OBJECT_MISSING = "OBJECT_MISSING"
"""The reason of an ObjectMissingError, by which it is known where it came from a worker."""

T = TypeVar("T")


class ObjectExistsError(StoreError):
    """The key to be created exists already."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Object {key} exists already.", reason="OBJECT_EXISTS", metadata={"object": key})


class ObjectMissingError(StoreError):
    """The key to be read does not exist."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Object {key} is missing.", reason=OBJECT_MISSING, metadata={"object": key})


def corrupt(key: str, what: str) -> CorruptError:
    """Returns the error for an object that differs from what was written."""
    return CorruptError(
        f"Object {key} of the store is damaged: {what}. Restore it from a copy of the store.",
        reason="OBJECT_CORRUPT",
        metadata={"object": key},
    )


class Objects:
    """The objects of one store. Thread-safe; several processes may use the same store at once.

    All methods raise StoreError where the store cannot be read or written.
    """

    def __init__(self, store: ObjectStore, root: Path | None = None) -> None:
        self._store = store
        self._root = root

    @classmethod
    def open(cls, location: str | Path) -> Objects:
        """Opens a local folder, which is made if it is missing, or a bucket by URL (s3, gs, az, ...)."""
        if isinstance(location, str) and "://" in location:
            # Callers wait: give up in seconds, not in obstore's default of three minutes.
            retry = {"max_retries": 5, "retry_timeout": timedelta(seconds=20)}
            return cls(from_url(location, retry_config=retry))  # type: ignore[call-overload]
        root = Path(location).absolute()
        try:
            local_folder.prepare(root)
        except OSError as error:
            # The one message that names a path: whoever starts the server reads it.
            raise StoreError(
                f"The store's folder {root} cannot be used by user id {os.geteuid()}: {error.strerror}. Give one that "
                "can be read and written.",
                reason="STORE_UNUSABLE",
            ) from error
        return cls(LocalStore(root), root)

    def create(self, key: str, data: bytes, *, lasting: bool = True) -> None:
        """Creates an object; it survives a power cut once this returns.

        If not lasting, a power cut may still remove it: for objects that can be derived again.

        Raises:
            ObjectExistsError: The key exists.
        """
        nonce = secrets.token_hex(8).encode()
        self._create(key, [data, _seal(_digest(nonce, data), nonce)], nonce, lasting=lasting)

    def create_of_file(self, key: str, path: Path) -> None:
        """Creates an object of a file's content, which can be derived again: see `create`.

        On a local folder it takes no memory, however large the file is.

        Raises:
            ObjectExistsError: The key exists.
            OSError: The file cannot be read.
        """
        nonce = secrets.token_hex(8).encode()
        seal = _seal(_digest_of_file(path, nonce), nonce)
        with path.open("rb") as file:
            self._create(key, chain(_pieces(file), [seal]), nonce, lasting=False)

    def fetch(self, key: str, path: Path) -> None:
        """Puts an object's payload into a file, which appears whole or not at all. It takes no memory either.

        Raises:
            ObjectMissingError: There is no such key.
            CorruptError: The object is not what was written.
            NewerError: A newer release sealed it.
            OSError: The file cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with temporary.open("w+b") as file:
                try:
                    with _faults(key):
                        for piece in obstore.get(self._store, key).stream(min_chunk_size=_PIECE_BYTES):
                            file.write(piece)
                except FileNotFoundError:
                    raise ObjectMissingError(key) from None
                size = max(file.tell() - _SEAL_BYTES, 0)
                file.seek(max(file.tell() - _LONGEST_SEAL, 0))
                _require_known_seal(key, file.read())
                file.seek(size)
                digest, nonce = _read_seal(key, file.read(), size)
                file.truncate(size)
            if _digest_of_file(temporary, nonce) != digest:
                raise corrupt(key, "its bytes do not match its digest")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _create(self, key: str, sealed: Iterable[bytes], nonce: bytes, *, lasting: bool) -> None:
        try:
            with _faults(key):
                if self._root is None:
                    obstore.put(self._store, key, b"".join(sealed), mode="create")
                else:
                    local_folder.create(self._root, key, sealed, lasting=lasting)
        except FileNotFoundError as error:
            raise _fault(key, error) from error  # the store's folder itself is gone
        except StoreError:
            if not self._has_nonce(key, nonce):
                raise

    def get(self, key: str) -> bytes:
        """Returns an object's payload.

        Raises:
            ObjectMissingError: There is no such key.
            CorruptError: The object is not what was written.
            NewerError: A newer release sealed it.
        """
        return self._read(key)[0]

    def exists(self, key: str) -> bool:
        """Whether the key exists; its object is not checked."""
        with suppress(FileNotFoundError), _faults(key):
            obstore.head(self._store, key)
            return True
        return False

    def keys(self, prefix: str) -> list[str]:
        """Returns all keys below a prefix that ends in "/", sorted."""
        return sorted(it.key for it in self._listed(prefix))

    def names_after(self, folder: str, name: str) -> list[str]:
        """Returns the names directly below a folder that ends in "/" and that come after a name, sorted.

        In a bucket only those are listed; a local folder is read whole, without a look at its files.
        """
        with _faults(folder):
            if self._root is not None:
                return sorted(it for it in local_folder.names(self._root / folder) if it > name)
            listed = obstore.list(self._store, folder, offset=f"{folder}{name}")
            names = (entry["path"].removeprefix(folder) for batch in listed for entry in batch)
            return sorted(it for it in names if "/" not in it)

    def mark(self, folder: str) -> int | None:
        """Returns a number that changes when names below a local folder are added or removed; None in a bucket.

        Two changes within some milliseconds may leave it the same.
        """
        if self._root is None:
            return None
        with _faults(folder):
            return local_folder.mark(self._root / folder)

    def now(self) -> datetime:
        """Returns the store's own time, whatever this machine's clock says: that of an object written for it."""
        key = f"{CLOCK}{secrets.token_hex(8)}"
        self.create(key, b"", lasting=False)
        try:
            with _faults(key):
                time: datetime = obstore.head(self._store, key)["last_modified"]
                return time
        except FileNotFoundError:
            raise ObjectMissingError(key) from None
        finally:
            self.delete([key])

    def age(self, key: str) -> timedelta:
        """Returns the age of an object, by the store's own time; raises ObjectMissingError if there is none."""
        try:
            with _faults(key):
                written: datetime = obstore.head(self._store, key)["last_modified"]
        except FileNotFoundError:
            raise ObjectMissingError(key) from None
        return self.now() - written

    def times(self, prefix: str) -> dict[str, datetime]:
        """Returns when each object below a prefix was written, by the store's own time, by key."""
        return {it.key: it.modified for it in self._listed(prefix)}

    def ages(self, prefix: str) -> dict[str, timedelta]:
        """Returns the age of each object below a prefix, by the store's own time, by key."""
        times = self.times(prefix)
        if not times:
            return {}
        now = self.now()
        return {key: now - time for key, time in times.items()}

    def sizes(self, prefix: str) -> dict[str, int]:
        """Returns the size in bytes of each object below a prefix, by key."""
        return {it.key: it.size for it in self._listed(prefix)}

    def folders(self, prefix: str) -> list[str]:
        """Returns the names one level below a prefix that ends in "/" that have keys below them, sorted.

        In a local folder, a name remains after its last key is deleted.
        """
        with _faults(prefix):
            if self._root is not None:
                return sorted(local_listing.folders(self._root, prefix))
            listed = obstore.list_with_delimiter(self._store, prefix)
        return sorted(path.rstrip("/").rpartition("/")[2] for path in listed["common_prefixes"])

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects for good; missing ones are passed over."""
        for key in keys:
            with suppress(FileNotFoundError), _faults(key):
                obstore.delete(self._store, key)
        if self._root is not None:
            local_folder.sync_parents(self._root, keys)

    def create_json(self, key: str, value: Any, *, format_number: int | None = None) -> None:
        """Creates an object from plain data, and its format, where that is not the one that its type says."""
        self.create(key, formats.stamped(value, format_number))

    def get_json(self, key: str, kind: type[T]) -> T:
        """Returns an object's payload as plain data of a type."""
        return decode_json(key, self.get(key), kind)

    def _listed(self, prefix: str) -> list[Listed]:
        with _faults(prefix):
            if self._root is not None:
                return list(local_listing.listed(self._root, prefix))
            batches = obstore.list(self._store, prefix)
            return [Listed(it["path"], it["size"], it["last_modified"]) for batch in batches for it in batch]

    def _read(self, key: str) -> tuple[bytes, bytes]:
        try:
            with _faults(key):
                sealed = obstore.get(self._store, key).bytes().to_bytes()
        except FileNotFoundError:
            raise ObjectMissingError(key) from None
        return _unseal(key, sealed)

    def _has_nonce(self, key: str, nonce: bytes) -> bool:
        with suppress(StoreError):
            return self._root is None and self._read(key)[1] == nonce
        return False


def decode_json(key: str, data: bytes, kind: type[T]) -> T:
    """Returns plain data of a type, or raises CorruptError, or NewerError if this release does not know its form."""
    formats.require_known(key, data)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise formats.unknown(key, str(error)) from None
    except msgspec.DecodeError as error:
        raise corrupt(key, str(error)) from None


def _seal(digest: bytes, nonce: bytes) -> bytes:
    """What ends an object."""
    return b"\n#sealed %b %b\n" % (digest, nonce)


def _unseal(key: str, sealed: bytes) -> tuple[bytes, bytes]:
    data = sealed[:-_SEAL_BYTES]
    _require_known_seal(key, sealed[-_LONGEST_SEAL:])
    digest, nonce = _read_seal(key, sealed[-_SEAL_BYTES:], len(data))
    if _digest(nonce, data) != digest:
        raise corrupt(key, "its bytes do not match its digest")
    return data, nonce


def _require_known_seal(key: str, end: bytes) -> None:
    """Raises NewerError if an object ends in a seal that says that it has another format."""
    if match := _NEWER_SEAL.search(end):
        raise formats.newer(key, int(match[1]))


def _read_seal(key: str, seal: bytes, before: int) -> tuple[bytes, bytes]:
    """Digest and nonce of what ends an object, after so many bytes of payload."""
    match = _SEAL.fullmatch(seal)
    if match is None:
        raise corrupt(key, f"its {before + len(seal):,} bytes do not end in a seal, so its end was lost")
    return match[1], match[2]


def _digest(nonce: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16, key=nonce).hexdigest().encode()


def _digest_of_file(path: Path, nonce: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16, key=nonce)
    with path.open("rb") as file:
        for piece in _pieces(file):
            digest.update(piece)
    return digest.hexdigest().encode()


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


@contextmanager
def _faults(key: str) -> Iterator[None]:
    """Turns the exceptions of a store's client, except FileNotFoundError, into StoreErrors."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (AlreadyExistsError, FileExistsError):
        raise ObjectExistsError(key) from None
    except (BaseError, OSError) as error:
        raise _fault(key, error) from error


def _fault(key: str, error: Exception) -> StoreError:
    """Returns an error that names the object but no path, and says what to do; the log has the cause."""
    _log.error("store: %s: %s", key, str(error).partition("\n")[0])
    number = getattr(error, "errno", None)
    if match := _OS_ERROR.search(str(error)):
        number = int(match[1])
    metadata = {"object": key}
    if number in _FULL:
        return StoreFullError(
            f"The store has no space left for object {key}: free or add some. What was acknowledged is safe, and the "
            "rest goes on where it was once there is room.",
            reason="STORE_FULL",
            metadata=metadata,
        )
    if number in _FORBIDDEN or isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return StoreError(
            f"The server lacks permission on object {key} of its store: grant it reading and writing, then try again.",
            reason="STORE_FORBIDDEN",
            metadata=metadata,
        )
    return StoreError(
        f"The store failed or cannot be reached, at object {key}: try again; the server's log has the cause.",
        reason="STORE_UNAVAILABLE",
        metadata=metadata,
    )
