"""The reports asked for last, as they are stored: they are answered also while the store is not."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from graft_server.domain.model import Manifest, ManifestRef, Version
from graft_server.domain.report import Report
from graft_server.store.catalogue.versions import REPORT, read_manifest, read_part, version_folder
from graft_server.store.objects.objects import Objects, decode_json

KEPT_BYTES = 8 << 20
"""The most bytes that are kept: some hundred reports."""


@dataclass(frozen=True, slots=True)
class _Kept:
    version: Version
    manifest: Manifest
    report: bytes


class Reports:
    """Reads reports, and keeps those that were read last. Thread-safe."""

    def __init__(self, objects: Objects, kept_bytes: int = KEPT_BYTES) -> None:
        """Reads nothing yet."""
        self._objects = objects
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def known(self, version: Version) -> tuple[Manifest, Report] | None:
        """Returns a version's manifest and report if they are kept."""
        with self._lock:
            found = self._kept.get(version.manifest.key)
            if found is None:
                return None
            self._kept.move_to_end(version.manifest.key)
        return found.manifest, _decoded(version.manifest, found.report)

    def read(self, version: Version) -> tuple[Manifest, Report]:
        """Reads a version's manifest and report, or raises ObjectMissingError, CorruptError or NewerError."""
        ref = version.manifest
        manifest = read_manifest(self._objects, ref)
        data = read_part(self._objects, ref, manifest, REPORT)
        report = _decoded(ref, data)
        with self._lock:
            if ref.key not in self._kept:
                self._kept[ref.key] = _Kept(version, manifest, data)
                self._bytes += len(data)
            while self._bytes > self._kept_bytes:
                self._drop(next(iter(self._kept)))
        return manifest, report

    def forget(self, version: Version) -> None:
        """Drops the report of a version that is gone."""
        with self._lock:
            if version.manifest.key in self._kept:
                self._drop(version.manifest.key)

    def keep_if(self, exists: Callable[[Version], bool]) -> None:
        """Drops the reports of versions that are gone, or were written anew without erased examples."""
        with self._lock:
            for key in [key for key, it in self._kept.items() if not exists(it.version)]:
                self._drop(key)

    def _drop(self, key: str) -> None:
        self._bytes -= len(self._kept.pop(key).report)


def _decoded(ref: ManifestRef, data: bytes) -> Report:
    return decode_json(version_folder(ref) + REPORT, data, Report)
