"""Exported encoders in a cache, and by way of the store in other caches."""

from __future__ import annotations

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
    assert {it.name for it in other.graph("id").parent.iterdir()} == stored(objects)
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
