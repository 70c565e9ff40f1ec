"""The catalogue's stored state: a start reads it and what came after, and nothing is lost where it cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from graft_server.domain.errors import CorruptError
from graft_server.domain.model import ManifestRef
from graft_server.store.catalogue import stored_state
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.objects.objects import Objects


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """The state is stored after every four entries."""
    monkeypatch.setattr(stored_state, "EVERY", 4)


def publish(catalogue: Catalogue, model: str, commit_id: str) -> int:
    manifest = ManifestRef(f"models/{model}/_/versions/{commit_id}/manifest.json", "0" * 64)
    return catalogue.publish(
        model=model,
        adaptation_id="job",
        commit_id=commit_id,
        manifest=manifest,
        summary={"accuracy": 0.5, "nested": {"a": [1, None]}},
    ).number


def entry(folder: Path, number: int) -> Path:
    return folder / "catalogue" / f"{number:020d}.json"


def state(folder: Path, entries: int) -> Path:
    return folder / stored_state.FOLDER / f"{entries:020d}-{stored_state.FORMAT}.msgpack"


@pytest.fixture
def filled(tmp_path: Path) -> Catalogue:
    """A catalogue with entries of every kind, of which the state was stored on the way."""
    catalogue = Catalogue(Objects.open(tmp_path))
    for n in range(3):
        publish(catalogue, "a", f"c{n}")
        publish(catalogue, "b/c", f"c{n}")
    catalogue.move_alias("a", "canary", 1)
    catalogue.erase_examples("a", {"job": 3}, lambda it: it.number == 1)
    catalogue.redact(catalogue.snapshot.model("a").version(1), ManifestRef("anew", "1" * 64))
    catalogue.delete_version("a", 2)
    catalogue.cancel_adaptation("b/c", "other")
    publish(catalogue, "gone", "c0")
    catalogue.delete_model("gone")
    return catalogue


def test_a_start_reads_the_state_and_the_entries_after_it_alone(tmp_path, filled, monkeypatch):
    assert [it.name for it in sorted((tmp_path / stored_state.FOLDER).iterdir())] == [
        state(tmp_path, 8).name,
        state(tmp_path, 12).name,
    ]
    read: list[str] = []
    get = Objects.get

    def noted(self: Objects, key: str) -> bytes:
        read.append(key)
        return get(self, key)

    monkeypatch.setattr(Objects, "get", noted)
    again = Catalogue(Objects.open(tmp_path))
    assert again.snapshot == filled.snapshot
    entries = [it for it in read if it.startswith("catalogue/")]
    assert entries == [f"catalogue/{number:020d}.json" for number in (12, 13, 14)]  # 14: there is none
    assert publish(again, "gone", "c1") == 2  # numbers go on
    assert publish(again, "a", "c1") == 2  # it was published, and deleted since


def test_nothing_depends_on_the_state(tmp_path, filled):
    for file in (tmp_path / stored_state.FOLDER).iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    assert Catalogue(Objects.open(tmp_path)).snapshot == filled.snapshot
    for file in (tmp_path / stored_state.FOLDER).iterdir():
        file.unlink()
    assert Catalogue(Objects.open(tmp_path)).snapshot == filled.snapshot


def test_a_state_that_cannot_be_decoded_is_passed_over(tmp_path, filled):
    objects = Objects.open(tmp_path)
    stored_state.write(objects, 13, b"\x81\xa3new\x01")
    assert Catalogue(objects).snapshot == filled.snapshot


def test_a_state_of_another_log_is_passed_over(tmp_path, filled):
    other = tmp_path / "other"
    catalogue = Catalogue(Objects.open(other))
    for n in range(14):
        publish(catalogue, "another", f"c{n}")
    (tmp_path / stored_state.FOLDER / state(other, 12).name).unlink()
    state(other, 12).rename(state(tmp_path, 12))
    assert Catalogue(Objects.open(tmp_path)).snapshot == filled.snapshot


def test_a_last_entry_that_is_missing_is_known_from_the_state(tmp_path, filled):
    entry(tmp_path, 13).unlink()
    entry(tmp_path, 12).unlink()
    again = Catalogue(Objects.open(tmp_path))
    assert again.snapshot.damaged == (f"catalogue/{12:020d}.json",)
    assert {"a", "b/c", "gone"} == set(again.snapshot.models)  # entry 13 deleted the last
    with pytest.raises(CorruptError, match=r"12\.json"):
        publish(again, "a", "c9")
    assert not entry(tmp_path, 12).exists()


def test_a_server_that_only_follows_stores_the_state_if_nobody_else_does(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_state, "EVERY", 1_000)
    one, follower = Catalogue(Objects.open(tmp_path)), Catalogue(Objects.open(tmp_path))
    for n in range(9):
        publish(one, "m", f"c{n}")
    monkeypatch.setattr(stored_state, "EVERY", 4)
    follower.refresh()
    assert stored_state.stored(Objects.open(tmp_path)) == [9]
    assert Catalogue(Objects.open(tmp_path)).snapshot == one.snapshot


def test_a_store_that_takes_no_state_takes_publications(tmp_path, filled):
    blocked = tmp_path / stored_state.FOLDER
    for file in blocked.iterdir():
        file.unlink()
    blocked.rmdir()
    blocked.write_text("a file in the way of the folder")
    catalogue = Catalogue(Objects.open(tmp_path))
    assert [publish(catalogue, "a", f"d{n}") for n in range(6)] == [4, 5, 6, 7, 8, 9]
