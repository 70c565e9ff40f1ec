"""The catalogue: numbers, aliases, deletions; two servers at once; damage."""

import threading

import pytest

from graft_server.domain.errors import ConflictError, CorruptError, InvalidError, MissingError, StateError
from graft_server.domain.model import ManifestRef
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.objects.objects import Objects


@pytest.fixture
def objects():
    return Objects.open("memory:///")


def publish(catalogue, model, commit_id, **settings):
    return catalogue.publish(
        model=model,
        adaptation_id="job",
        commit_id=commit_id,
        manifest=ManifestRef(f"models/{model}/_/versions/{commit_id}/manifest.json", "0" * 64),
        summary={"accuracy": 0.5},
        **settings,
    ).number


def test_versions_count_from_one_and_live_follows(objects):
    catalogue = Catalogue(objects)
    assert [publish(catalogue, "a", it) for it in "xyz"] == [1, 2, 3]
    assert publish(catalogue, "a/b", "x") == 1
    model = catalogue.snapshot.model("a")
    assert model.latest_version == model.aliases["live"] == model.alias().number == 3
    assert model.version(2).summary == {"accuracy": 0.5}
    assert model.created == model.version(1).created


def test_a_restart_reads_the_same_state(objects):
    catalogue = Catalogue(objects)
    for commit in "xyz":
        publish(catalogue, "a", commit)
    catalogue.move_alias("a", "canary", 1)
    catalogue.delete_version("a", 2)
    assert Catalogue(objects).snapshot == catalogue.snapshot


def test_a_snapshot_never_changes(objects):
    catalogue = Catalogue(objects)
    publish(catalogue, "a", "x")
    before = catalogue.snapshot
    publish(catalogue, "a", "y")
    assert list(before.model("a").versions) == [1]
    with pytest.raises(TypeError):
        before.models["b"] = before.model("a")


def test_a_commit_is_published_once(objects):
    one, two = Catalogue(objects), Catalogue(objects)
    assert publish(one, "a", "x") == publish(one, "a", "x") == publish(two, "a", "x") == 1
    publish(one, "a", "y")
    one.delete_version("a", 1)
    assert publish(two, "a", "x") == 1
    assert list(two.snapshot.model("a").versions) == [2]


def test_racing_servers_get_distinct_numbers(tmp_path):
    catalogues = [Catalogue(Objects.open(tmp_path)) for _ in range(4)]
    numbers = []

    def work(n, catalogue):
        numbers.extend(publish(catalogue, "a", f"{n}-{it}") for it in range(6))

    threads = [threading.Thread(target=work, args=it) for it in enumerate(catalogues)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 25))
    states = {repr(it.refresh()) for it in [*catalogues, Catalogue(Objects.open(tmp_path))]}
    assert len(states) == 1


def test_racing_publications_of_one_commit_get_one_number(tmp_path):
    catalogues = [Catalogue(Objects.open(tmp_path)) for _ in range(4)]
    numbers = []
    threads = [
        threading.Thread(target=lambda it=it: numbers.append(publish(it, "a", "x"))) for it in catalogues
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers == [1] * 4
    assert catalogues[0].refresh().entries == 1


def test_numbers_are_not_used_again(objects):
    catalogue = Catalogue(objects)
    for commit in "xy":
        publish(catalogue, "a", commit)
    catalogue.move_alias("a", "live", 1)
    assert catalogue.delete_version("a", 2).commit_id == "y"
    assert publish(catalogue, "a", "z") == 3
    assert set(catalogue.delete_model("a").versions) == {1, 3}
    assert "a" not in catalogue.snapshot.models
    again = Catalogue(objects)
    assert publish(again, "a", "x") == 4, "a new model's adaptations may use old ids"
    assert list(again.snapshot.model("a").versions) == [4]


def test_aliases_move_and_go(objects):
    catalogue = Catalogue(objects)
    for commit in "xy":
        publish(catalogue, "a", commit)
    assert catalogue.move_alias("a", "live", 1, expected_version=2).aliases == {"live": 1}
    assert catalogue.move_alias("a", "canary", 2, expected_version=0).aliases == {"live": 1, "canary": 2}
    entries = catalogue.snapshot.entries
    catalogue.move_alias("a", "canary", 2)
    assert catalogue.snapshot.entries == entries, "nothing moved, nothing written"
    assert catalogue.move_alias("a", "canary", 0).aliases == {"live": 1}


@pytest.mark.parametrize(
    ("act", "error", "reason"),
    [
        (lambda it: it.snapshot.model("b"), MissingError, "MODEL_NOT_FOUND"),
        (lambda it: it.snapshot.model("a").version(2), MissingError, "VERSION_NOT_FOUND"),
        (lambda it: it.snapshot.model("a").alias("none"), MissingError, "ALIAS_NOT_FOUND"),
        (lambda it: it.move_alias("b", "live", 1), MissingError, "MODEL_NOT_FOUND"),
        (lambda it: it.move_alias("a", "live", 2), MissingError, "VERSION_NOT_FOUND"),
        (lambda it: it.move_alias("a", "none", 0), MissingError, "ALIAS_NOT_FOUND"),
        (lambda it: it.move_alias("a", "live", 0), InvalidError, "ALIAS_REQUIRED"),
        (lambda it: it.move_alias("a", "live", 1, expected_version=0), ConflictError, "ALIAS_MOVED"),
        (lambda it: it.delete_version("a", 1), StateError, "VERSION_IN_USE"),
        (lambda it: it.delete_version("a", 2), MissingError, "VERSION_NOT_FOUND"),
        (lambda it: it.delete_model("b"), MissingError, "MODEL_NOT_FOUND"),
    ],
)
def test_what_cannot_be_is_refused_and_not_written(objects, act, error, reason):
    catalogue = Catalogue(objects)
    publish(catalogue, "a", "x")
    with pytest.raises(error) as caught:
        act(catalogue)
    assert caught.value.reason == reason
    assert catalogue.refresh().entries == 1


def test_an_alias_moved_by_another_server_is_a_conflict(objects):
    one, two = Catalogue(objects), Catalogue(objects)
    for commit in "xy":
        publish(one, "a", commit)
    two.move_alias("a", "live", 1, expected_version=2)
    with pytest.raises(ConflictError) as caught:
        one.move_alias("a", "live", 1, expected_version=2)
    assert caught.value.metadata == {"version": "1"}


def test_a_version_that_was_written_anew_has_its_new_parts_for_all_and_what_it_was_is_known(objects):
    one, two = Catalogue(objects), Catalogue(objects)
    publish(one, "a", "x")
    before = two.refresh().model("a").version(1)
    first, second = (ManifestRef(f"models/a/_/versions/{it}/manifest.json", "1" * 64) for it in "pq")
    assert one.redact(before, first)
    # Only who has read the newest parts replaces them.
    assert not two.redact(before, second)
    changed = two.snapshot.model("a").version(1)
    assert (changed.manifest, changed.redacted) == (first, True)
    assert two.redact(changed, second)
    assert publish(one, "a", "x") == 1
    for it in (one, two, Catalogue(objects)):
        snapshot = it.refresh()
        assert snapshot.model("a").version(1).manifest == second
        assert snapshot.replaced["a"] == (before.manifest, first)
    two.delete_model("a")
    assert not one.redact(changed, first)
    assert one.snapshot.replaced["a"] == (before.manifest, first)


def test_a_damaged_entry_is_named_and_the_rest_is_served_but_not_changed(tmp_path):
    catalogue = Catalogue(Objects.open(tmp_path))
    for model in ("a", "b", "c"):
        publish(catalogue, model, "x")
    entry = tmp_path / "catalogue" / f"{2:020d}.json"
    whole = entry.read_bytes()
    entry.write_bytes(whole[:-20])
    damaged = Catalogue(Objects.open(tmp_path))
    assert set(damaged.snapshot.models) == {"a", "c"}
    assert damaged.snapshot.damaged == (f"catalogue/{2:020d}.json",)
    with pytest.raises(CorruptError, match=damaged.snapshot.damaged[0]):
        publish(damaged, "a", "y")
    entry.write_bytes(whole)
    assert publish(Catalogue(Objects.open(tmp_path)), "b", "y") == 2


@pytest.mark.parametrize("missing", [(1,), (2,), (2, 3), (1, 3)])
@pytest.mark.parametrize("bucket", [False, True])
def test_an_entry_that_is_missing_is_named_and_nothing_is_written_over_those_after_it(
    tmp_path, missing, bucket
):
    objects = Objects.open("memory:///") if bucket else Objects.open(tmp_path)
    catalogue, behind = Catalogue(objects), Catalogue(objects)
    for commit in "wxyz":
        publish(catalogue, "a", commit)
    keys = [f"catalogue/{number:020d}.json" for number in missing]
    objects.delete(keys)
    for found in (behind, Catalogue(objects)):
        assert set(found.refresh().damaged) == set(keys)
        assert set(found.snapshot.model("a").versions) == {1, 2, 3, 4} - set(missing)
        with pytest.raises(CorruptError, match=keys[0]):
            publish(found, "a", "v")
    assert objects.keys("catalogue/") == sorted(
        f"catalogue/{it:020d}.json" for it in {1, 2, 3, 4} - set(missing)
    )
    assert publish(catalogue, "a", "v") == 5  # it has read them all


def test_what_is_no_entry_is_passed_over(tmp_path):
    catalogue = Catalogue(Objects.open(tmp_path))
    publish(catalogue, "a", "x")
    (tmp_path / "catalogue" / "lost+found").mkdir()
    (tmp_path / "catalogue" / "copy of 1.json").write_text("{}")
    assert publish(Catalogue(Objects.open(tmp_path)), "a", "y") == 2
