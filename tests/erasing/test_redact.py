"""The job that takes what versions hold of erased examples out of them."""

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.model import Source
from graft_server.domain.report import Report
from graft_server.erasing.contract import Redacting, Written
from graft_server.erasing.redact import redact
from graft_server.heads import decode
from graft_server.jobs.job import Place
from graft_server.store.adaptations.erasure import Wanted, erase, sweep
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.catalogue.versions import (
    HEAD,
    HEAD_ONNX,
    REPORT,
    TOP,
    read_manifest,
    read_part,
    write_version,
)
from graft_server.store.objects.objects import Objects
from graft_server.training.contract import Training
from graft_server.training.train import train

DIMENSION, COUNT = 24, 60


def ignore(_):
    pass


def rings():
    """Unit-norm features, and a label by the sign of a product, which no line tells: a kernel is chosen."""
    rng = np.random.default_rng(4)
    rows = 0.1 * rng.normal(size=(COUNT, DIMENSION))
    rows[:, :2] += rng.choice([-1, 1], size=(COUNT, 2))
    labels = ["alike" if row[0] * row[1] > 0 else "unlike" for row in rows]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16), labels


class Bench:
    """A store with a trained version, of which examples can be erased."""

    def __init__(self, location):
        self.place = Place(store=location)
        self.objects = Objects.open(location)
        start = Start(AdaptationSettings("minilm"), datetime(2026, 1, 2, tzinfo=UTC))
        self.store = AdaptationStore.create(self.objects, "m", "job", start)
        self.rows, labels = rings()
        # The last one cannot be read by this encoder, so it has no features.
        self.rows[-1] = np.nan
        examples = [Example(f"id-{n}", Input(f"text {n}"), label) for n, label in enumerate(labels)]
        records = [Record(content_digest(it.id.encode()), Change(it)) for it in examples]
        segment = self.store.writer("w").append(records)
        self.store.write_features(segment, "e", {"pooled": self.rows})
        payload = Training(
            model="m",
            adaptation_id="job",
            commit_id="c",
            backbone="minilm",
            encoder_id="e",
            sources=(Source("job", {"w": COUNT}),),
        )
        self.version = train(payload, self.place, ignore).manifest

    def part(self, ref, name):
        return read_part(self.objects, ref, read_manifest(self.objects, ref), name)

    def report(self, ref):
        return msgspec.json.decode(self.part(ref, REPORT), type=Report)

    def redacted(self, ref, *, before=False):
        payload = Redacting("m", ("job",), (Written(ref, redacted=before),))
        (found,) = redact(payload, self.place, ignore).versions
        return found

    def erase(self, *ids):
        erase(self.objects, self.store, Wanted(frozenset(ids)))


@pytest.fixture
def bench(tmp_path):
    return Bench(str(tmp_path / "store"))


def landmarks(bench, ref):
    head = decode(bench.part(ref, HEAD))
    return next(it.map.landmarks for it in head.members if hasattr(it.map, "landmarks"))


def test_a_version_is_written_anew_without_features_and_ids_of_what_was_erased(bench):
    assert len(landmarks(bench, bench.version)) == COUNT - 1
    bench.erase("id-3", f"id-{COUNT - 1}")
    after = bench.redacted(bench.version)
    left = landmarks(bench, after)
    assert (left == np.delete(bench.rows, [3, COUNT - 1], axis=0)).all()
    for name in (HEAD, HEAD_ONNX):
        assert bench.part(after, name) != bench.part(bench.version, name)
    ids = {it.id for it in bench.report(bench.version).feature_map}
    assert {it.id for it in bench.report(after).feature_map} == ids - {"id-3", f"id-{COUNT - 1}"}
    # All else that the manifest says stays.
    first, second = (read_manifest(bench.objects, it) for it in (bench.version, after))
    assert (first.sources, first.labels, first.commit_id) == (second.sources, second.labels, second.commit_id)
    # Once it is done there is nothing more to do.
    assert bench.redacted(after, before=True) is None


def test_where_nothing_of_it_is_held_nothing_is_written(bench):
    assert bench.redacted(bench.version) is None
    versions = bench.objects.keys("models/m/_/versions/")
    bench.erase("id-3")
    bench.objects.delete(sweep(bench.objects, bench.store))
    assert bench.redacted(bench.version) is None
    assert bench.objects.keys("models/m/_/versions/") == versions


def test_a_version_of_other_features_has_no_anchor_that_is_an_examples_own_and_is_changed_once(bench):
    manifest = read_manifest(bench.objects, bench.version)
    parts = {name: bench.part(bench.version, name) for name in (HEAD, HEAD_ONNX, REPORT)}
    tuned = write_version(bench.objects, manifest, {**parts, TOP: b"layers"})
    bench.erase("id-3")
    after = bench.redacted(tuned)
    before = decode(parts[HEAD]).novelty.anchors
    assert len(decode(bench.part(after, HEAD)).novelty.anchors) == len(before) // 2
    assert bench.part(after, TOP) == b"layers"
    assert bench.redacted(after, before=True) is None
