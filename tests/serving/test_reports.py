"""Reports that were asked for: kept within a bound, and dropped with their versions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from graft_server.domain.model import Manifest, Version
from graft_server.domain.report import Evaluation, EvaluationMethod, HeadChoice, Report
from graft_server.serving.reports import Reports
from graft_server.store.catalogue.versions import REPORT, write_version
from graft_server.store.objects.formats import stamped
from graft_server.store.objects.objects import Objects


@pytest.fixture
def objects() -> Objects:
    return Objects.open("memory:///")


def written(objects: Objects, commit_id: str) -> Version:
    manifest = Manifest("m", "a", commit_id, "minilm", "e", (), (), 0, datetime(2026, 1, 2, tzinfo=UTC))
    report = Report(
        examples=3,
        validation_examples=0,
        classes=2,
        accuracy=0.5,
        macro_f1=0.5,
        log_loss=0.5,
        calibration_error=0.5,
        evaluation=Evaluation(EvaluationMethod.NONE, 0, 0),
        head=HeadChoice("logistic", "pooled", {}, 1.0),
        per_class=(),
        warnings=(commit_id * 100,),
    )
    ref = write_version(objects, manifest, {REPORT: stamped(report)})
    return Version("m", 1, "a", commit_id, ref, {}, manifest.created)


def test_a_report_that_was_read_is_known_until_its_version_is_gone(objects):
    reports, refs = Reports(objects), [written(objects, it) for it in "abc"]
    assert reports.known(refs[0]) is None
    read = [reports.read(it) for it in refs]
    objects.delete(objects.keys("models/"))
    assert [reports.known(it) for it in refs] == read
    reports.forget(refs[0])
    reports.keep_if(lambda it: it == refs[1])
    assert [reports.known(it) for it in refs] == [None, read[1], None]


def test_no_more_is_kept_than_the_bound_and_the_oldest_goes_first(objects):
    refs = [written(objects, it) for it in "abcd"]
    size = len(objects.get(refs[0].manifest.key.replace("manifest", "report")))
    reports = Reports(objects, kept_bytes=2 * size)
    for it in (refs[0], refs[1], refs[1], refs[2]):
        reports.read(it)
    assert [reports.known(it) is not None for it in refs] == [False, True, True, False]
    assert reports.known(refs[1]) is not None  # the last that was asked for
    reports.read(refs[3])
    assert [reports.known(it) is not None for it in refs] == [False, True, False, True]
