"""A version's parts and manifest."""

from datetime import UTC, datetime

import pytest

from graft_server.domain.errors import CorruptError
from graft_server.domain.examples import Label
from graft_server.domain.model import Manifest, ManifestRef, Source
from graft_server.store.catalogue.versions import read_manifest, read_part, remove_version, write_version
from graft_server.store.objects.objects import ObjectMissingError, Objects

MANIFEST = Manifest(
    model="team/intents",
    adaptation_id="job",
    commit_id="one",
    backbone="minilm",
    encoder_id="e1",
    labels=(Label("yes", "it is so"), Label("no")),
    sources=(Source("base", {"w": 3}), Source("job", {"v": 1, "w": 2})),
    seed=7,
    created=datetime(2026, 1, 2, tzinfo=UTC),
)
PARTS = {"head.bin": b"head", "head.onnx": b"onnx", "report.json": b"{}"}


def test_a_version_reads_back():
    objects = Objects.open("memory:///")
    ref = write_version(objects, MANIFEST, PARTS)
    manifest = read_manifest(objects, ref)
    assert (manifest.labels, manifest.sources, manifest.created) == (
        MANIFEST.labels,
        MANIFEST.sources,
        MANIFEST.created,
    )
    assert {name: read_part(objects, ref, manifest, name) for name in manifest.parts} == PARTS
    assert ref.key.startswith("models/team/intents/_/versions/")


def test_two_attempts_do_not_touch_each_other():
    objects = Objects.open("memory:///")
    first, second = (write_version(objects, MANIFEST, PARTS) for _ in range(2))
    remove_version(objects, first)
    with pytest.raises(ObjectMissingError):
        read_manifest(objects, first)
    assert read_part(objects, second, read_manifest(objects, second), "head.bin") == b"head"


def test_a_manifest_or_part_that_was_exchanged_is_noticed():
    objects = Objects.open("memory:///")
    ref = write_version(objects, MANIFEST, PARTS)
    manifest = read_manifest(objects, ref)
    with pytest.raises(CorruptError):
        read_manifest(objects, ManifestRef(ref.key, "0" * 64))
    head = ref.key.replace("manifest.json", "head.bin")
    objects.delete([head])
    objects.create(head, b"other")
    with pytest.raises(CorruptError, match=r"head\.bin"):
        read_part(objects, ref, manifest, "head.bin")
