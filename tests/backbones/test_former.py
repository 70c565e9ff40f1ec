"""Encoders that a backbone had before: used only where all that comes before their graphs is the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.former import former, note
from graft_server.backbones.graphs.cache import GRAPH, EncoderCache
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, identified, open_backbone


@pytest.fixture(scope="module")
def present() -> Backbone:
    return open_backbone(DEFAULT_NAME, DEFAULT_SOURCE)


def other(backbone: Backbone, **identity: object) -> Backbone:
    """The backbone, where something of what decides its features was another thing."""
    whole = {**backbone.identity, **identity}
    return replace(
        backbone,
        encoder_id=identified(whole),
        identity=whole,
        pooling=str(whole["pooling"]),
        max_tokens=int(whole["max_tokens"]),  # type: ignore[call-overload]
    )


def cached(folder: Path, backbone: Backbone) -> EncoderCache:
    cache = EncoderCache(folder)
    with cache.new_entry(backbone.encoder_id) as entry:
        (entry / GRAPH).write_bytes(b"a graph")
    note(cache, backbone)
    return cache


def test_the_identity_of_a_backbone_is_what_its_encoder_id_is_the_digest_of(present):
    assert identified(present.identity) == present.encoder_id


@pytest.mark.parametrize(
    "within", [{"graph": "packed-text/1"}, {"pooling": "cls"}, {"weights": "0" * 64}, {"max_tokens": 128}]
)
def test_an_encoder_that_differs_within_its_graph_is_used_as_it_was(within, present, tmp_path):
    before = other(present, **within)
    found = former(cached(tmp_path, before), present, before.encoder_id)
    assert found == before
    assert found is not None
    assert found.folder == present.folder
    assert found.identity == before.identity


def test_an_encoder_that_reads_other_inputs_is_not(present, tmp_path):
    for another in ({"tokenizer": "0" * 64}, {"prompt": "query: "}):
        before = other(present, **another)
        assert former(cached(tmp_path, before), present, before.encoder_id) is None


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"{}",
        b'{"format":2}',
        lambda it: {**it, "format": 2},
        lambda it: {**it, "identity": {**it["identity"], "pooling": "last"}},
        lambda it: {**it, "architecture": "another"},
    ],
    ids=["empty", "nothing", "newer alone", "newer", "of another encoder", "of another architecture"],
)
def test_a_note_that_says_something_else_makes_no_encoder(spoilt, present, tmp_path):
    before = other(present, pooling="cls")
    cache = cached(tmp_path, before)
    path = cache.note(before.encoder_id)
    written = (
        spoilt if isinstance(spoilt, bytes) else json.dumps(spoilt(json.loads(path.read_bytes()))).encode()
    )
    path.write_bytes(written)
    assert former(cache, present, before.encoder_id) is None
    note(cache, before)  # which leaves what is there
    assert path.read_bytes() == written


def test_an_encoder_without_a_graph_or_a_note_is_none(present, tmp_path):
    before = other(present, pooling="cls")
    cache = EncoderCache(tmp_path)
    note(cache, before)
    assert former(cache, present, before.encoder_id) is None
    with cache.new_entry(before.encoder_id) as entry:
        (entry / GRAPH).write_bytes(b"a graph")
    assert former(cache, present, before.encoder_id) is None
