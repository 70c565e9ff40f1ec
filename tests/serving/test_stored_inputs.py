"""What a version has stored, for ranking what to label next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.examples import Change, Example, Input, Label
from graft_server.domain.model import Manifest, Source
from graft_server.domain.views import POOLED
from graft_server.domain.wording import wording_digest
from graft_server.serving.stored_inputs import read_stored
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.catalogue.versions import ADAPTER, TOP
from graft_server.store.objects.objects import Objects

ROWS = np.eye(3, dtype=np.float16)
EXAMPLES = (
    Example("1", Input("Labelled"), "a"),
    Example("2", Input("unlabelled")),
    Example("3", Input("another")),
)


@pytest.fixture(scope="module")
def stored() -> tuple[Objects, Manifest]:
    """A labelled example and two that are not, with their features by encoder "e"."""
    objects, now = Objects.open("memory:///"), datetime.now(UTC)
    settings = AdaptationSettings("b", (Label("a"),), seed=1)
    store = AdaptationStore.create(objects, "m", "job", Start(settings, now))
    records = [Record(content_digest(it.id.encode()), Change(it)) for it in EXAMPLES]
    segment = store.writer("w").append(records)
    store.write_features(segment, "e", {POOLED: ROWS})
    sources = (Source("job", {"w": len(EXAMPLES)}),)
    return objects, Manifest("m", "job", "c", "b", "e", (Label("a"),), sources, 1, now)


def test_what_is_labelled_and_what_is_not_comes_with_its_features(stored):
    found = read_stored(*stored, POOLED)
    np.testing.assert_array_equal(found.labelled, ROWS[:1])
    np.testing.assert_array_equal(found.features, ROWS[1:])
    assert [it.id for it in found.unlabelled] == ["2", "3"]
    assert found.knows(b"", wording_digest(Input("labelled!")))
    assert not found.knows(Input("another").digest(), wording_digest(Input("another")))


@pytest.mark.parametrize("part", [TOP, ADAPTER])
def test_features_of_the_frozen_backbone_are_not_taken_for_those_of_tuned_layers(stored, part):
    objects, manifest = stored
    found = read_stored(objects, replace(manifest, parts={part: "0" * 64}), POOLED)
    assert (found.labelled, found.features) == (None, None)
    assert [it.id for it in found.unlabelled] == ["2", "3"]
