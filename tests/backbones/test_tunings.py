"""What tunings leave in the store and in a cache, and how all of it goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from graft_server.backbones.tunings import OLDEST, Tunings, tuning_folder
from graft_server.jobs.job import Place
from graft_server.store.objects.objects import Objects


class Left:
    """A store and a cache in which commits left something: `left[model, erasure, commit]`."""

    def __init__(self, folder: Path) -> None:
        self.objects = Objects.open(folder / "store")
        self.place = Place(store=str(folder / "store"), cache=str(folder / "cache"))
        self.tunings = Tunings(self.objects, self.place)
        self.cases = [
            ("m", 3, "a"), ("m", 3, "b"), ("m", 7, "a"), ("m/sub", 3, "a"), ("other", 0, "a"),
        ]  # fmt: skip
        self.files = {it: self._leave(*it) for it in self.cases}

    def _leave(self, model: str, erasure: int, commit: str) -> tuple[Path, Path]:
        folder = tuning_folder(model, erasure, "adaptation", commit)
        self.objects.create(f"{folder}1/examples.npz", b"given")
        local = self.tunings.local(folder, "below-4") / "checkpoint.pt"
        local.write_bytes(b"made")
        return Path(self.place.store) / folder / "1" / "examples.npz", local

    @property
    def there(self) -> list[tuple[str, int, str]]:
        """What is left: of each in both places, or in none."""
        found = [[it.exists() for it in self.files[case]] for case in self.cases]
        assert all(len(set(it)) == 1 for it in found), found
        return [case for case, exists in zip(self.cases, found, strict=True) if all(exists)]


@pytest.fixture
def left(tmp_path: Path) -> Left:
    return Left(tmp_path)


def test_a_commit_with_an_outcome_leaves_nothing_and_others_stay(left):
    left.tunings.delete(tuning_folder("m", 3, "adaptation", "a"))
    assert left.there == left.cases[1:]


def test_what_was_made_before_an_erasure_goes_and_what_was_made_after_it_stays(left):
    left.tunings.forget("m", 7)
    assert left.there == left.cases[2:]


def test_of_a_commit_that_is_given_up_everything_goes(left):
    left.tunings.discard("m", "adaptation", ["a", "unknown"])
    assert left.there == [left.cases[1], *left.cases[3:]]
    left.tunings.discard("m", "another", ["b"])
    left.tunings.discard("m", "adaptation", [])
    assert left.there == [left.cases[1], *left.cases[3:]]


def test_at_start_goes_what_an_erasure_or_a_crash_left_for_good(left):
    long_ago = time.time() - OLDEST.total_seconds() - 60
    for path in left.files["other", 0, "a"]:
        for it in (path, path.parent, path.parent.parent):
            os.utime(it, (long_ago, long_ago))
    left.tunings.sweep({"m": 7, "m/sub": 2, "gone": 9})
    left.tunings.sweep_old(left.tunings.old())
    assert left.there == left.cases[2:4]


def test_what_looks_old_and_is_written_to_again_stays(left):
    stored, _ = left.files["other", 0, "a"]
    os.utime(stored, (0, 0))
    old = left.tunings.old()
    assert len(old.objects) == 1
    os.utime(stored)
    left.tunings.sweep_old(old)
    assert left.there == left.cases


def test_a_worker_of_its_own_cache_sweeps_that_one_alone(left):
    stored, local = left.files["other", 0, "a"]
    long_ago = time.time() - OLDEST.total_seconds() - 60
    for it in (local, local.parent, local.parent.parent, stored):
        os.utime(it, (long_ago, long_ago))
    left.tunings.sweep_cache()
    assert not local.exists()
    assert stored.exists()


def test_caches_of_two_stores_are_apart(left, tmp_path):
    place = Place(store="memory:///", cache=left.place.cache)
    Tunings(Objects.open(place.store), place).sweep({"m": 99})
    assert left.there == left.cases


@pytest.mark.parametrize(
    "sweep", [lambda it: it.sweep({}), lambda it: it.sweep_cache()], ids=["start", "job"]
)
def test_what_tunings_of_a_store_that_is_gone_left_in_a_cache_goes_once_it_is_old(left, tmp_path, sweep):
    place = Place(store="memory:///", cache=left.place.cache)
    others = Tunings(Objects.open(place.store), place)
    sweep(others)
    assert left.there == left.cases
    long_ago = time.time() - OLDEST.total_seconds() - 60
    for path in (tmp_path / "cache").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    sweep(others)
    assert not [it for it in (tmp_path / "cache").rglob("*") if it.is_file()]


def test_what_no_tuning_left_is_passed_over(left):
    strange = [
        Path(left.place.store) / "tunings" / "note.txt",
        Path(left.place.store) / "tunings" / "folder" / "of" / "notes" / "note.txt",
    ]
    for it in strange:
        it.parent.mkdir(parents=True, exist_ok=True)
        it.write_text("of somebody else")
    left.tunings.sweep({"m": 7})
    assert left.there == left.cases[2:]
    assert all(it.exists() for it in strange)
