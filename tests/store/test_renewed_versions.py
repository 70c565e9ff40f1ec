"""A version that takes the place of another one, in the catalogue: once, with its aliases, unless it is overtaken."""

from __future__ import annotations

from typing import Any

import pytest

from graft_server.adapting.publishing.publisher import renewed_name
from graft_server.adapting.publishing.renewing import is_due
from graft_server.domain.errors import StateError
from graft_server.domain.model import LIVE, ManifestRef
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.objects.objects import Objects

NOW, BEFORE, OTHER = "b" * 32, "a" * 32, "c" * 32


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(Objects.open("memory:///"))


def publish(catalogue: Catalogue, commit_id: str, encoder_id: str = BEFORE, **settings: Any) -> int:
    return catalogue.publish(
        **{"adaptation_id": "job", **settings},
        model="m",
        commit_id=commit_id,
        manifest=ManifestRef(f"models/m/_/versions/{commit_id}{encoder_id}/manifest.json", "0" * 64),
        summary={"backbone": "minilm", "encoder_id": encoder_id},
    ).number


def aliases(catalogue: Catalogue) -> dict[str, int]:
    return dict(catalogue.snapshot.model("m").aliases)


def due(catalogue: Catalogue, encoder_id: str = NOW) -> int:
    model = catalogue.snapshot.model("m")
    number = model.latest_version
    return number if is_due(model.version(number), model, {"minilm": encoder_id}) else 0


def test_a_renewal_is_entered_once_and_what_points_at_the_newest_follows(catalogue):
    publish(catalogue, "one")
    publish(catalogue, "two")
    catalogue.move_alias("m", "old", 1)
    catalogue.move_alias("m", "beta", 2)
    assert (due(catalogue), due(catalogue, BEFORE)) == (2, 0)
    name = renewed_name("two", NOW)
    assert publish(catalogue, name, NOW, renews=2) == 3
    assert publish(catalogue, name, NOW, renews=2) == 3  # another server
    assert aliases(catalogue) == {"old": 1, "beta": 3, LIVE: 3}
    assert due(catalogue) == 0


def test_where_live_is_pinned_it_stays(catalogue):
    publish(catalogue, "one")
    publish(catalogue, "two")
    catalogue.move_alias("m", LIVE, 1)
    publish(catalogue, renewed_name("two", NOW), NOW, renews=due(catalogue))
    assert aliases(catalogue) == {LIVE: 1}


@pytest.mark.parametrize("what", ["newer", "deleted"])
def test_a_renewal_that_was_overtaken_is_none(what, catalogue):
    publish(catalogue, "one")
    publish(catalogue, "two", NOW)
    renewed = 1
    if what == "deleted":
        catalogue.delete_model("m")
    for adaptation_id in ("job", "another"):
        with pytest.raises(StateError) as raised:
            publish(catalogue, renewed_name("one", NOW), NOW, renews=renewed, adaptation_id=adaptation_id)
        assert raised.value.reason == "RENEWAL_SUPERSEDED"


def test_what_is_published_on_the_way_does_not_overtake_its_own_renewal(catalogue):
    publish(catalogue, "one/partial")
    name = renewed_name("one/partial", NOW)
    assert name == f"one/{NOW}"
    assert publish(catalogue, f"{name}/frozen", NOW, renews=1) == 2
    assert due(catalogue) == 0 or publish(catalogue, name, NOW, renews=1)
    publish(catalogue, name, NOW, renews=1)
    assert aliases(catalogue) == {LIVE: 3}


def test_a_commit_of_that_id_in_another_adaptation_is_another_one(catalogue):
    publish(catalogue, "publish", adaptation_id="first")
    publish(catalogue, "publish", NOW, adaptation_id="second")
    publish(catalogue, "later", adaptation_id="first")
    catalogue.move_alias("m", "second", 2)
    publish(catalogue, renewed_name("later", NOW), NOW, adaptation_id="first", renews=due(catalogue))
    assert aliases(catalogue) == {"second": 2, LIVE: 4}


def test_servers_of_two_encoders_do_not_renew_each_others_renewals_for_ever(catalogue):
    publish(catalogue, "one")
    publish(catalogue, renewed_name("one", NOW), NOW, renews=1)
    assert (due(catalogue, BEFORE), due(catalogue, NOW)) == (0, 0)
    assert due(catalogue, OTHER) == 2
    assert publish(catalogue, renewed_name(f"one/{NOW}", OTHER), OTHER, renews=2) == 3
    assert [due(catalogue, it) for it in (BEFORE, NOW, OTHER)] == [0, 0, 0]


def test_a_version_of_a_cancelled_adaptation_is_renewed_and_nothing_else_of_it_published(catalogue):
    publish(catalogue, "one")
    catalogue.cancel_adaptation("m", "job")
    assert publish(catalogue, renewed_name("one", NOW), NOW, renews=1) == 2
    with pytest.raises(StateError) as raised:
        publish(catalogue, "two")
    assert raised.value.reason == "ADAPTATION_CANCELLED"
    catalogue.erase_examples("m", {}, lambda _: False)


def test_what_another_server_has_as_a_backbone_is_not_due(catalogue):
    publish(catalogue, "one")
    model = catalogue.snapshot.model("m")
    assert not is_due(model.version(1), model, {"other": NOW})
