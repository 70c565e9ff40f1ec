"""Cancelling an adaptation while something of it is published, here or by another server."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.adapting.conftest import Bench

from graft_server.adapting.publishing.queue import CANCELLED
from graft_server.domain.errors import StateError
from graft_server.domain.model import Manifest, Version
from graft_server.domain.report import Evaluation, EvaluationMethod, HeadChoice, Report
from graft_server.store.catalogue.versions import REPORT, write_version
from graft_server.store.objects.formats import stamped

REPORTED = Report(
    3,
    0,
    2,
    0.5,
    0.5,
    0.5,
    0.5,
    Evaluation(EvaluationMethod.NONE),
    HeadChoice("logistic", "pooled", {}, 1.0),
    (),
)


def enter(it: Bench, commit_id: str, model: str = "m") -> Version:
    """Publishes a commit of a model's adaptation "a", as another server does that dies before it notes the outcome."""
    manifest = Manifest(model, "a", commit_id, "minilm", "e", (), (), 0, datetime(2026, 1, 2, tzinfo=UTC))
    ref = write_version(it.objects, manifest, {REPORT: stamped(REPORTED)})
    return it.others.publish(model=model, adaptation_id="a", commit_id=commit_id, manifest=ref, summary={})


def test_a_commit_that_was_published_before_its_cancellation_is_not_called_cancelled(bench):
    async def scenario(it: Bench) -> None:
        adaptation = await it.start("m")
        for commit_id in ("published", "waiting"):
            adaptation.store.commit(commit_id, {"w": 0})
        version = enter(it, "published")
        assert await adaptation.cancel() == (True, 1)
        outcomes = adaptation.store.outcomes
        assert (outcomes["published"].version, outcomes["published"].failure) == (version.number, None)
        assert outcomes["waiting"].failure is not None
        assert outcomes["waiting"].failure.reason == CANCELLED
        with pytest.raises(StateError) as raised:
            enter(it, "waiting")
        assert raised.value.reason == "ADAPTATION_CANCELLED"
        assert await adaptation.cancel() == (False, 0)

        # One that is over is left as it is.
        adaptation = await it.start("over")
        adaptation.store.commit("c", {"w": 0}, close=True, writer_id="w")
        adaptation.store.finish("c", version=enter(it, "c", "over").number)
        entries = it.catalogue.refresh().entries
        assert await adaptation.cancel() == (False, 0)
        assert adaptation.store.state == "closed"
        assert it.catalogue.refresh().entries == entries, "nothing is written"

    bench(scenario)
