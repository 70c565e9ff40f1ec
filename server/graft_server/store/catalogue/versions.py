"""The parts of a model version, and the manifest that makes them one.

Parts are stored under a random name, and the manifest, written last, names them with their digests: a crash leaves
parts that nothing names, never a version that lacks one. The version has no number until the catalogue
gives it one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from graft_server.domain.model import Manifest, ManifestRef
from graft_server.domain.report import Report
from graft_server.store.objects.formats import ADAPTED, FIRST, stamped
from graft_server.store.objects.objects import Objects, corrupt, decode_json

HEAD = "head.bin"
"""The served parameters."""
HEAD_ONNX = "head.onnx"
REPORT = "report.json"
TOP = "top.onnx"
"""The tuned layers of the backbone, if any: a graph that ends in the features that the head reads."""
ADAPTER = "adapter.npz"
"""What is added to the backbone's layers instead, if it takes less to hold; see `backbones.graphs.adapters`."""


def model_folder(model: str) -> str:
    """Returns the prefix of a model's objects, without those of a model whose name begins with its name.

    "_" cannot be a segment of a name, so it marks the name's end.
    """
    return f"models/{model}/_/"


def write_version(objects: Objects, manifest: Manifest, parts: Mapping[str, bytes]) -> ManifestRef:
    """Writes the parts, then the manifest, which makes them readable."""
    folder = f"{versions_folder(manifest.model)}{secrets.token_hex(8)}/"
    for name, data in parts.items():
        objects.create(folder + name, data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
    written = dataclasses.replace(manifest, parts=digests)
    data = stamped(written, ADAPTED if ADAPTER in parts else FIRST)
    ref = ManifestRef(folder + "manifest.json", hashlib.sha256(data).hexdigest())
    objects.create(ref.key, data)
    return ref


def read_manifest(objects: Objects, ref: ManifestRef) -> Manifest:
    """Returns the manifest, or raises ObjectMissingError or CorruptError."""
    return decode_json(ref.key, _verified(objects, ref.key, ref.sha256), Manifest)


def read_head(objects: Objects, ref: ManifestRef) -> tuple[Manifest, bytes]:
    """Returns a version's manifest and its head, read at once; or raises ObjectMissingError or CorruptError."""
    key = version_folder(ref) + HEAD
    with ThreadPoolExecutor(1) as beside:
        data = beside.submit(objects.get, key)
        manifest = read_manifest(objects, ref)
    return manifest, _checked(key, data.result(), manifest.parts[HEAD])


def read_part(objects: Objects, ref: ManifestRef, manifest: Manifest, name: str) -> bytes:
    """Returns a part, or raises ObjectMissingError or CorruptError."""
    return _verified(objects, version_folder(ref) + name, manifest.parts[name])


def read_report(objects: Objects, ref: ManifestRef) -> tuple[Manifest, Report]:
    """Returns a version's manifest and report, or raises ObjectMissingError or CorruptError."""
    manifest = read_manifest(objects, ref)
    return manifest, decode_json(
        version_folder(ref) + REPORT, read_part(objects, ref, manifest, REPORT), Report
    )


def has_tuned_layers(manifest: Manifest) -> bool:
    """Whether the version's head reads features of tuned layers, in whatever form they are stored."""
    return TOP in manifest.parts or ADAPTER in manifest.parts


def remove_version(objects: Objects, ref: ManifestRef) -> None:
    """Deletes a version's objects, the manifest first. The catalogue must no longer name them."""
    objects.delete([ref.key])
    objects.delete(objects.keys(version_folder(ref)))


def versions_folder(model: str) -> str:
    """Returns the prefix of the parts of all versions of a model."""
    return f"{model_folder(model)}versions/"


def version_folder(ref: ManifestRef) -> str:
    """Returns the prefix of the parts of a version."""
    return ref.key.removesuffix("manifest.json")


def _verified(objects: Objects, key: str, sha256: str) -> bytes:
    return _checked(key, objects.get(key), sha256)


def _checked(key: str, data: bytes, sha256: str) -> bytes:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise corrupt(key, "it is not the object that was published")
    return data
