"""The version that an adaptation goes on from."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime

import pytest

from graft_server.adapting.basing import base_of, live_version
from graft_server.adapting.starting import require_same
from graft_server.domain.adaptation import AdaptationSettings, Start, StartRequest
from graft_server.domain.errors import InvalidError, MissingError, StateError
from graft_server.domain.examples import Task
from graft_server.domain.extension import Extension
from graft_server.domain.model import Manifest, Source
from graft_server.domain.report import DataReport, Evaluation, EvaluationMethod, HeadChoice, Report
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.versions import REPORT, write_version
from graft_server.store.objects.formats import stamped
from graft_server.store.objects.objects import Objects

SOURCES = (Source("job", {"w": 7}),)
REPORT_OF_SIX = Report(
    examples=4,
    validation_examples=1,
    classes=2,
    accuracy=0.5,
    macro_f1=0.5,
    log_loss=1.0,
    calibration_error=0.0,
    evaluation=Evaluation(EvaluationMethod.NONE, 0, 0),
    head=HeadChoice("logistic", "pooled", {}, 1.0),
    per_class=(),
    data=DataReport(0, 0, 0, unlabelled_examples=1),
)


@pytest.fixture
def objects():
    return Objects.open("memory:///")


def published(objects, **changes):
    """A catalogue with one version."""
    manifest = Manifest(
        model="m",
        adaptation_id="job",
        commit_id="c",
        backbone="older",
        encoder_id="e",
        labels=(),
        sources=SOURCES,
        seed=0,
        created=datetime.now(UTC),
    )
    ref = write_version(objects, dataclasses.replace(manifest, **changes), {REPORT: stamped(REPORT_OF_SIX)})
    catalogue = Catalogue(objects)
    figures = {"examples": 4, "validation_examples": 1}
    catalogue.publish(model="m", adaptation_id="job", commit_id="c", manifest=ref, summary=figures)
    return catalogue


def base(objects, catalogue, **settings):
    request = StartRequest("m", "next", "w", AdaptationSettings("", **settings))
    return asyncio.run(base_of(objects, catalogue, request))


def test_a_version_is_found_by_number_and_by_alias_with_its_backbone_and_its_examples(objects):
    catalogue = published(objects)
    found = base(objects, catalogue, base_version=1)
    assert found == base(objects, catalogue, base_alias="live")
    assert (found.backbone, found.lineage, found.extension) == ("older", SOURCES, Extension(1, 6))
    assert base(objects, catalogue) is None


def test_of_a_version_that_extends_another_the_examples_are_known(objects):
    catalogue = published(objects, extension=Extension(3, 400, added=12, deleted=2, replaced_by_id=5))
    assert base(objects, catalogue, base_version=1).extension == Extension(1, 410)


def test_an_alias_that_another_server_moved_is_followed(objects):
    catalogue = published(objects)
    Catalogue(objects).move_alias("m", "champion", 1)
    assert base(objects, catalogue, base_alias="champion").extension.base_version == 1


def test_a_version_of_which_nothing_says_what_it_was_trained_on_is_refused(objects):
    with pytest.raises(StateError, match="send all examples") as refused:
        base(objects, published(objects, sources=()), base_alias="live")
    assert (refused.value.reason, refused.value.field) == ("BASE_WITHOUT_EXAMPLES", "start.base_alias")


def test_what_there_is_not_and_what_does_not_fit_is_refused(objects):
    catalogue = published(objects)
    with pytest.raises(MissingError, match="champion"):
        base(objects, catalogue, base_alias="champion")
    with pytest.raises(MissingError, match="version 2"):
        base(objects, catalogue, base_version=2)
    with pytest.raises(InvalidError, match=r"which is version 1, whose task is single-label"):
        base(objects, catalogue, base_alias="live", task=Task.REGRESSION)


def test_the_live_version_is_known_with_its_examples(objects):
    catalogue = published(objects)
    live = live_version(catalogue.snapshot, "m")
    assert (live.version, live.examples) == (1, 5)
    assert live_version(catalogue.snapshot, "other") is None


def test_an_adaptation_is_resumed_by_its_alias_or_by_what_it_pointed_at():
    known = Start(
        AdaptationSettings("b", base_alias="live"), datetime.now(UTC), SOURCES, base=Extension(4, 6)
    )

    def resume(**settings):
        require_same(known, StartRequest("m", "next", "w", AdaptationSettings("b", **settings)))

    resume(base_alias="live")
    resume(base_version=4)
    for other in ({"base_version": 5}, {"base_alias": "champion"}, {}):
        with pytest.raises(StateError, match="another base_"):
            resume(**other)
