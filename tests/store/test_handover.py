"""Files that go from one cache to another, or stay where both are one."""

import os
import time
from datetime import timedelta

import pytest

from graft_server.domain.errors import CorruptError
from graft_server.store.handover import OLDEST, Handover, cache_identity
from graft_server.store.objects.objects import ObjectExistsError, ObjectMissingError, Objects

LARGE = bytes(range(256)) * 20_000


@pytest.fixture(params=["folder", "memory"])
def objects(request, tmp_path):
    return Objects.open(tmp_path / "store" if request.param == "folder" else "memory:///")


def written(handover, folder, **files):
    handover.local(folder).mkdir(parents=True)
    for name, data in files.items():
        (handover.local(folder) / name).write_bytes(data)


def test_a_file_becomes_an_object_and_an_object_a_file(objects, tmp_path):
    (tmp_path / "file").write_bytes(LARGE)
    objects.create_of_file("a/file", tmp_path / "file")
    assert objects.get("a/file") == LARGE
    objects.fetch("a/file", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == LARGE
    assert [it.name for it in (tmp_path / "new").iterdir()] == ["copy"]
    with pytest.raises(ObjectExistsError):
        objects.create_of_file("a/file", tmp_path / "file")
    objects.create("a/small", b"")
    objects.fetch("a/small", tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


def test_an_object_that_is_missing_or_damaged_becomes_no_file(tmp_path):
    objects = Objects.open(tmp_path / "store")
    objects.create("a/file", LARGE)
    stored = tmp_path / "store" / "a" / "file"
    for damage in (LARGE[:5000], stored.read_bytes().replace(b"\x05", b"\x06", 1), b""):
        stored.write_bytes(damage)
        with pytest.raises(CorruptError):
            objects.fetch("a/file", tmp_path / "copy")
    with pytest.raises(ObjectMissingError):
        objects.fetch("a/other", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert {it.name for it in tmp_path.iterdir()} == {"store"}


def test_where_both_have_one_cache_nothing_goes_through_the_store(objects, tmp_path):
    worker, server = (Handover(objects, tmp_path / "cache") for _ in range(2))
    folder = server.new_folder()
    written(worker, folder, model=LARGE)
    worker.give(folder, ["model"], cache=server.identity())
    assert objects.keys(folder) == []
    server.take(folder, ["model"])
    assert (server.local(folder) / "model").read_bytes() == LARGE


def test_another_cache_gets_the_files_by_way_of_the_store_and_nothing_is_left(objects, tmp_path):
    worker, server = Handover(objects, tmp_path / "theirs"), Handover(objects, tmp_path / "mine")
    assert worker.identity() != server.identity()
    folder = server.new_folder()
    for attempt in (b"of a process that died", LARGE):
        worker.drop(folder)
        written(worker, folder, model=attempt, labels=b"[]")
        worker.give(folder, ["model", "labels"], cache=server.identity())
    assert not worker.local(folder).exists()
    server.take(folder, ["model", "labels"])
    assert (server.local(folder) / "model").read_bytes() == LARGE
    assert objects.keys(folder) == []
    server.drop(folder)
    assert not server.local(folder).exists()


def test_what_nobody_took_is_swept_and_what_is_new_stays(tmp_path):
    objects = Objects.open(tmp_path / "store")
    handover = Handover(objects, tmp_path / "cache")
    old, new = handover.new_folder(), handover.new_folder()
    long_ago = time.time() - OLDEST.total_seconds() - 60
    for folder in (old, new):
        written(handover, folder, file=b"data")
        objects.create(folder + "file", b"data")
    for path in (handover.local(old), tmp_path / "store" / old / "file"):
        os.utime(path, (long_ago, long_ago))
    handover.sweep(handover.old())
    assert objects.keys("handed-over/") == [new + "file"]
    assert (handover.local(new) / "file").exists()
    assert not handover.local(old).exists()


@pytest.mark.parametrize("ahead", [timedelta(days=1, hours=1), timedelta(days=20_000)])
def test_a_clock_that_was_set_forward_takes_nothing_that_somebody_works_with(tmp_path, monkeypatch, ahead):
    objects = Objects.open(tmp_path / "store")
    handover = Handover(objects, tmp_path / "cache")
    forgotten, taken, written_to = (handover.new_folder() for _ in range(3))
    for folder in (forgotten, taken, written_to):
        written(handover, folder, file=b"data")
        objects.create(folder + "file", b"data")
    wall, now = time.time() + ahead.total_seconds(), objects.now() + ahead
    monkeypatch.setattr(objects, "now", lambda: now)
    monkeypatch.setattr(time, "time", lambda: wall)
    old = handover.old()
    assert set(old.objects) == {it + "file" for it in (forgotten, taken, written_to)}
    handover.drop(taken)
    objects.delete([taken + "file", written_to + "file"])
    objects.create(written_to + "file", b"data")
    os.utime(handover.local(written_to), (0, 0))
    handover.sweep(old)
    assert objects.keys("handed-over/") == [written_to + "file"]
    assert handover.local(written_to).exists()
    assert not handover.local(forgotten).exists()


def test_ages_go_by_the_stores_time_and_not_by_this_machines_clock(tmp_path, monkeypatch):
    objects = Objects.open(tmp_path / "store")
    objects.create("tunings/a", b"data")
    for error in (timedelta(hours=-1), timedelta(days=1)):
        monkeypatch.setattr(time, "time", lambda error=error: 1_780_000_000 + error.total_seconds())
        assert abs(objects.ages("tunings/")["tunings/a"]) < timedelta(minutes=10)
    assert objects.keys("handed-over/") == []  # what was written to ask for the time is gone
    assert objects.ages("nothing/") == {}


def test_what_ended_processes_wanted_goes_and_nothing_is_left_of_one_that_closes(tmp_path):
    objects = Objects.open(tmp_path / "store")
    living, closed = Handover(objects, tmp_path / "cache"), Handover(objects, tmp_path / "cache")
    for handover in (living, closed):
        written(handover, handover.new_folder(), file=b"data")
    closed.close()
    living.sweep_ended()
    left = [it for it in (tmp_path / "cache").rglob("*") if it.name == "file"]
    assert len(left) == 1
    living.close()
    assert not [it for it in (tmp_path / "cache").rglob("*") if it.is_file()]


def test_a_cache_is_told_from_others_by_what_is_made_once(tmp_path):
    first = cache_identity(tmp_path / "one")
    assert first == cache_identity(tmp_path / "one") != cache_identity(tmp_path / "other")
