"""Exported encoders in a cache, and by way of the store in other caches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graft_server.backbones.graphs.cache import GRAPH, NAMES, NOT_CACHED, EncoderCache
from graft_server.domain.errors import BackboneError
from graft_server.jobs.job import Place
from graft_server.store.objects.objects import Objects


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects.open(tmp_path / "store")


@pytest.fixture
def mine(tmp_path: Path, objects: Objects) -> EncoderCache:
    """A cache with an encoder that has been cut, and measured on this machine."""
    cache = EncoderCache(tmp_path / "mine", objects)
    with cache.new_entry("id") as entry:
        for name in (GRAPH, NAMES, "parity.json", "layout.json"):
            (entry / name).write_bytes(name.encode())
    cache.add(cache.below("id", 4), b"below")
    return cache


@pytest.fixture
def other(tmp_path: Path, objects: Objects) -> EncoderCache:
    return EncoderCache(tmp_path / "other", objects)


def stored(objects: Objects) -> set[str]:
    return {it.rpartition("/")[2] for it in objects.keys("encoders/id/")}


def test_what_was_shared_is_had_by_another_cache_but_for_what_was_measured_here(objects, mine, other):
    assert not other.fetch("id")
    assert mine.share("id")
    assert stored(objects) == {GRAPH, NAMES, "parity.json", "below-4.onnx"}
    assert other.require(other.graph("id")).read_bytes() == GRAPH.encode()
    assert other.below("id", 4).read_bytes() == b"below"
    here = {it.name for it in other.graph("id").parent.iterdir()}
    assert {it for it in here if not it.endswith(".digest")} == stored(objects)
    # A cut that is made later is added to what is there.
    mine.add(mine.above("id", 4), b"above")
    mine.share("id")
    assert other.require(other.above("id", 4)).read_bytes() == b"above"


def test_what_is_wanted_in_the_same_cache_is_not_copied(objects, mine, other):
    mine.give("id", cache=mine.identity)
    assert not stored(objects)
    mine.give("id", cache=other.identity)
    assert stored(objects)


def test_a_graph_that_nobody_has_is_named_with_its_encoder(mine, other):
    for cache, path in ((other, other.graph("id")), (mine, mine.above("id", 9))):
        with pytest.raises(BackboneError) as raised:
            cache.require(path)
        assert (raised.value.reason, raised.value.metadata) == (NOT_CACHED, {"encoder_id": "id"})
    assert not other.share("id")


def test_a_damaged_object_is_no_encoder_and_goes(objects, mine, other, tmp_path):
    mine.share("id")
    (tmp_path / "store" / "encoders" / "id" / GRAPH).write_bytes(b"half a graph")
    assert not other.fetch("id")
    assert not other.has("id")
    assert not stored(objects)
    assert mine.share("id")
    assert other.fetch("id")


def test_an_encoder_that_cannot_be_loaded_goes_from_the_store_too(objects, mine):
    mine.share("id")
    mine.discard("id")
    assert not mine.fetch("id")
    assert not stored(objects)


def test_without_a_store_there_is_the_cache_alone(mine, tmp_path):
    alone = EncoderCache.at(Place(cache=str(tmp_path / "mine")))
    assert alone.require(alone.graph("id")) == mine.graph("id")
    assert not alone.share("id")
    assert not alone.fetch("another")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_noticed_before_a_graph_is_used(mine, caplog):
    for path in (mine.graph("id"), mine.names("id"), mine.below("id", 4)):
        assert mine.intact(path)
        flip(path)
        assert not mine.intact(path)
        assert f"encoder id: {path.name} in the cache is damaged" in caplog.text
        with pytest.raises(BackboneError) as raised:
            mine.require(path)
        assert raised.value.reason == NOT_CACHED
        assert not path.exists()


def test_a_damaged_graph_comes_from_the_store_where_that_has_it_and_does_not_go_there(mine, other, objects):
    assert mine.share("id")
    flip(mine.graph("id"))
    assert mine.require(mine.graph("id")).read_bytes() == GRAPH.encode()
    assert other.fetch("id")
    objects.delete(objects.keys("encoders/"))
    flip(mine.graph("id"))
    assert not mine.share("id")
    assert objects.keys("encoders/") == []


def test_a_graph_of_an_older_release_gets_its_digest_at_its_first_use(mine):
    digest = mine.graph("id").with_name(GRAPH + ".digest")
    digest.unlink()
    assert mine.intact(mine.graph("id"))
    flip(mine.graph("id"))
    assert not mine.intact(mine.graph("id"))
    digest.write_bytes(b"\xff nonsense")
    assert not mine.intact(mine.graph("id"))


EXPORT = """
import os, signal, sys
import os
import subprocess
import sys
from pathlib import Path
from graft_server.backbones.graphs.cache import EncoderCache
with EncoderCache(Path(sys.argv[1])).new_entry("id") as entry:
    (entry / "encoder.onnx").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_export_left_is_swept_and_what_one_makes_meanwhile_is_not(tmp_path, mine, objects):
    folder = tmp_path / "mine"
    subprocess.run([sys.executable, "-c", EXPORT, str(folder)], check=False, timeout=60)
    other_release = folder / "encoders" / ".id.abcd"
    other_release.mkdir()
    os.utime(other_release, (0, 0))
    with mine.new_entry("other") as entry:
        (entry / GRAPH).write_bytes(b"graph")
        made = folder / "encoders" / ".temporary"
        assert len(list(made.glob("*/"))) == 2
        EncoderCache(folder, objects).sweep()
        assert [it.parent for it in made.glob("*/*/")] == [entry.parent]
    assert mine.has("other")
    assert not other_release.exists()
    assert mine.require(mine.graph("id")).read_bytes() == GRAPH.encode()
