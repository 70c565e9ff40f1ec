"""What a newer release wrote is named as that, and stays as it is; what it added to known formats is passed over."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from graft_server.backbones.tuning_objects import TunedParts, read_probabilities, write_probabilities
from graft_server.domain.adaptation import AdaptationSettings, PublishPolicy, Start
from graft_server.domain.errors import CorruptError, NewerError
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.model import LIVE, Manifest, ManifestRef
from graft_server.domain.report import Report
from graft_server.store.adaptations.compaction import FAN_IN, compact
from graft_server.store.adaptations.erasure import Wanted, erase, give_up, sweep
from graft_server.store.adaptations.events import EventLog
from graft_server.store.adaptations.features import encode_features
from graft_server.store.adaptations.listing import Beginnings, deleted_adaptations
from graft_server.store.adaptations.segments import Record, Segment, encode_segment, read_segment
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.entries import MoveAlias
from graft_server.store.catalogue.versions import ADAPTER, HEAD, TOP, read_manifest, write_version
from graft_server.store.objects.formats import ADAPTED, FIRST, FORMAT, MATCHED, stamped
from graft_server.store.objects.objects import Objects

START = Start(AdaptationSettings("minilm"), datetime(2026, 1, 2, tzinfo=UTC))
FOLDER = "models/m/_/adaptations/job/"


@pytest.fixture
def objects() -> Objects:
    return Objects.open("memory:///")


def rewritten(objects: Objects, key: str, data: bytes) -> None:
    """Puts another payload under a key, sealed as it must be."""
    objects.delete([key])
    objects.create(key, data)


def of_next_release(objects: Objects, key: str) -> bytes:
    """Makes an object of the format after ours, and returns its payload."""
    data = objects.get(key)
    if key.endswith(".json"):
        assert json.loads(data)["format"] == FIRST
        data = json.dumps({**json.loads(data), "format": FORMAT + 1}).encode()
    else:
        known = msgspec.msgpack.decode(data)
        assert known["format"] == FIRST
        data = msgspec.msgpack.encode({**known, "format": FORMAT + 1})
    rewritten(objects, key, data)
    return data


def adaptation(objects: Objects, segments: int = 1) -> AdaptationStore:
    store = AdaptationStore.create(objects, "m", "job", START)
    for number in range(segments):
        example = Example(f"e{number}", Input("a lock"), "lock", subject="their")
        segment = store.writer("w").append([Record(number + 1, Change(upsert=example))])
        store.write_features(segment, "e", {"pooled": np.ones((1, 2), np.float16)})
    return store


def load(objects: Objects) -> AdaptationStore:
    return AdaptationStore.load(objects, "m", "job")


def publish(catalogue: Catalogue, model: str, commit_id: str = "c") -> int:
    ref = ManifestRef(f"models/{model}/_/versions/{commit_id}/manifest.json", "0" * 64)
    return catalogue.publish(
        model=model, adaptation_id="job", commit_id=commit_id, manifest=ref, summary={}
    ).number


def named_as_newer(error: NewerError, key: str) -> bool:
    told = error.message
    return (
        f"Object {key} of the store was written by a newer release of Graft (format {FORMAT + 1}; "
        f"this release reads up to {FORMAT}): upgrade this server"
        in told
        and "damaged" not in told
        and "estore" not in told.replace("the store", "")
        and error.reason == "OBJECT_NEWER"
        and error.metadata["object"] == key
    )


def read_segments(objects: Objects) -> object:
    return load(objects).writer("w")


def read_outcomes(objects: Objects) -> object:
    return load(objects).outcomes


KINDS: dict[str, tuple[str, Callable[[Objects], object]]] = {
    "start": ("start.json", load),
    "segment": (f"writers/w/{0:020d}.seg", read_segments),
    "generation": (f"generations/{1:020d}.json", load),
    "commit": (f"commits/{1:020d}.json", load),
    "closing": ("closing.json", load),
    "outcome": (f"outcomes/{1:020d}.json", read_outcomes),
    "event": (f"events/{1:020d}.json", lambda it: EventLog(it, f"{FOLDER}events/").read()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_an_adaptations_objects_says_its_format_and_is_left_where_that_is_newer(kind, objects):
    store = adaptation(objects, segments=2)
    erase(objects, store, Wanted(frozenset({"e1"})))
    store.commit("c", {"w": 2}, close=True)
    store.finish("c", version=1)
    path, read = KINDS[kind]
    before = of_next_release(objects, FOLDER + path)
    with pytest.raises(NewerError) as raised:
        read(objects)
    assert named_as_newer(raised.value, FOLDER + path)
    assert objects.get(FOLDER + path) == before


def test_what_has_no_format_is_of_the_first_one(objects):
    adaptation(objects).commit("c", {"w": 1})
    for key in objects.keys(FOLDER):
        data = objects.get(key)
        if key.endswith(".json"):
            plain = {name: it for name, it in json.loads(data).items() if name != "format"}
            rewritten(objects, key, json.dumps(plain).encode())
        elif key.endswith(".seg"):
            plain = {name: it for name, it in msgspec.msgpack.decode(data).items() if name != "format"}
            rewritten(objects, key, msgspec.msgpack.encode(plain))
    assert list(load(objects).commits) == ["c"]
    assert load(objects).writer("w").next_sequence == 1


def test_what_a_newer_release_adds_to_a_known_format_is_passed_over(objects):
    adaptation(objects).commit("c", {"w": 1})
    for key in objects.keys(FOLDER):
        data = objects.get(key)
        if key.endswith(".json"):
            rewritten(objects, key, json.dumps({**json.loads(data), "more": {"a": [1]}}).encode())
        elif key.endswith(".seg"):
            more = {**msgspec.msgpack.decode(data), "more": {"a": [1]}}
            rewritten(objects, key, msgspec.msgpack.encode(more))
    assert list(load(objects).commits) == ["c"]
    assert load(objects).writer("w").next_sequence == 1


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "split_model", "time": "2026-01-02T00:00:00Z", "model": "a", "into": ["b", "c"]},
        {"type": "publish", "model": "b", "format": FORMAT + 1},
        {"format": "two"},
    ],
    ids=["another type", "a newer format", "a format that is no number"],
)
def test_an_entry_of_a_newer_release_is_left_and_what_is_known_is_served_but_not_changed(
    payload, tmp_path, caplog
):
    objects = Objects.open(tmp_path)
    catalogue = Catalogue(objects)
    publish(catalogue, "a")
    key = f"catalogue/{2:020d}.json"
    objects.create(key, json.dumps(payload).encode())
    before = (tmp_path / key).read_bytes()
    for known in (catalogue, Catalogue(objects)):
        for _ in range(3):
            known.refresh()
        assert list(known.snapshot.models) == ["a"]
        assert (known.snapshot.newer, known.snapshot.damaged) == ((key,), ())
        for change in (
            lambda it: publish(it, "a", "another"),
            lambda it: publish(it, "new"),
            lambda it: it.move_alias("a", "stable", 1),
            lambda it: it.delete_model("a"),
            lambda it: it.cancel_adaptation("a", "job"),
            lambda it: it.erase_examples("a", {}, lambda _: True),
        ):
            with pytest.raises(NewerError, match=key) as raised:
                change(known)
            assert raised.value.reason == "CATALOGUE_NEWER"
            assert "upgrade this server" in raised.value.message
            assert "damaged" not in raised.value.message
        assert known.move_alias("a", LIVE, 1).aliases == {LIVE: 1}  # nothing to change
    assert objects.keys("catalogue/") == [f"catalogue/{1:020d}.json", key]
    assert (tmp_path / key).read_bytes() == before
    assert len([it for it in caplog.records if it.levelname == "ERROR"]) == 2  # once each, not at each look
    assert not [it for it in caplog.records if "damaged" in it.getMessage()]


def test_the_parts_of_a_version_that_a_newer_release_wrote_are_named(objects):
    manifest = Manifest("m", "job", "c", "minilm", "e", (), (), 0, datetime(2026, 1, 2, tzinfo=UTC))
    ref = write_version(objects, manifest, {"report.json": stamped({"format_of": "a report"})})
    with pytest.raises(NewerError, match=r"report\.json .* does not know its form"):
        objects.get_json(ref.key.replace("manifest", "report"), Report)
    of_next_release(objects, ref.key)
    with pytest.raises(NewerError) as raised:
        objects.get_json(ref.key, Manifest)
    assert named_as_newer(raised.value, ref.key)
    with pytest.raises(CorruptError):  # it is not the one that the catalogue names
        read_manifest(objects, ref)


def test_newer_features_are_not_computed_again_over_what_is_there(objects):
    store = adaptation(objects)
    segment = store.segment("w", 0)
    key = f"{FOLDER}features/e/w/{segment.name}.bin"
    header = msgspec.msgpack.encode({"format": FORMAT + 1, "views": {"pooled": [1, 2, "bfloat16"]}})
    whole = len(header).to_bytes(4, "little") + header + b"1234"
    trailer = encode_features({"pooled": np.ones((1, 2), np.float16)})
    assert trailer.count(b"format\x01") == 1
    for data in (whole, trailer.replace(b"format\x01", b"format\x04"), b"\x00\x00\x00\x01of no form"):
        rewritten(objects, key, data)
        with pytest.raises(NewerError, match=key):
            store.features(segment, "e")
        assert store.missing_features("e") == []
        assert objects.get(key) == data
    with pytest.raises(NewerError):  # erasing must not leave the erased example's features in it
        erase(objects, store, Wanted(frozenset({"e0"})))
    assert objects.get(key) == data


def test_segments_that_have_a_newer_one_among_them_are_not_put_together(objects):
    store = adaptation(objects, FAN_IN + 2)
    of_next_release(objects, f"{FOLDER}writers/w/{5:020d}.seg")
    before = objects.keys(FOLDER)
    with pytest.raises(NewerError):
        compact(objects, store, "e")
    assert objects.keys(FOLDER) == before


def test_names_that_only_a_newer_release_gives_are_not_swept(objects, monkeypatch):
    store = adaptation(objects, 2)
    strange = [
        f"{FOLDER}writers/w/{7:020d}-{1:020d}-v2.seg",
        f"{FOLDER}writers/w/{0:020d}.seg2",
        f"{FOLDER}writers/w/index/{0:020d}.seg",
        f"{FOLDER}writers/w/bloom",
        f"{FOLDER}features/e/w/{0:020d}.f32",
        f"{FOLDER}features/index.bin",
        f"{FOLDER}features/e/w/deeper/{0:020d}.bin",
    ]
    for key in strange:
        objects.create(key, b"of tomorrow")
    erase(objects, store, Wanted(frozenset({"e1"})))
    late = objects.now().replace(year=2050)
    monkeypatch.setattr(objects, "now", lambda: late)
    give_up(objects, store)
    garbage = sweep(objects, store)
    assert len(garbage) == 2  # the replaced segment and its features
    assert not set(strange) & set(garbage)


def test_a_deletion_of_a_model_leaves_an_adaptation_that_a_newer_release_began_and_lists_it(objects):
    adaptation(objects)
    of_next_release(objects, f"{FOLDER}start.json")
    assert deleted_adaptations(objects, "m", 5) == []
    assert Beginnings(objects).of("m") == {"job": None}


def test_what_a_newer_tuning_left_is_named(objects):
    weight = np.ones((2, 2), np.float32)
    parts = TunedParts(np.ones((1, 2), np.float16), (weight, weight[0]))
    key = parts.write(objects, "tunings/m/0/c/", b"graph")
    assert TunedParts.read(objects, key).features.tolist() == [[1, 1]]
    measured = write_probabilities(objects, "tunings/m/0/c/", weight)
    assert read_probabilities(objects, measured).tolist() == weight.tolist()
    rewritten(objects, key, _npz(features=np.ones(1), format=np.array(FORMAT + 1)))
    with pytest.raises(NewerError) as raised:
        TunedParts.read(objects, key)
    assert named_as_newer(raised.value, key)


def _npz(**arrays: np.ndarray) -> bytes:
    import io  # noqa: PLC0415

    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def test_a_seal_of_another_format_is_a_newer_releases(tmp_path):
    objects = Objects.open(tmp_path)
    for seal in (b"\n#sealed/2 0123 sha256=" + b"a" * 64 + b"\n", b"\n#sealed/17 x\n"):
        (tmp_path / "a").write_bytes(b"some payload" + seal)
        with pytest.raises(NewerError, match=r"Object a .* newer release"):
            objects.get("a")
        with pytest.raises(NewerError, match=r"Object a .* newer release"):
            objects.fetch("a", tmp_path / "copy")
        assert not (tmp_path / "copy").exists()


def test_a_segment_carries_its_format_first(objects):
    segment = Segment("w", 0, 0, (Record(1),))
    data = encode_segment(segment)
    assert next(iter(msgspec.msgpack.decode(data).items())) == ("format", FIRST)
    objects.create("f/x.seg", data)
    assert read_segment(objects, "f/", "x") == segment


def test_only_what_an_older_release_would_misread_has_the_newer_format():
    def number(records: list[Record]) -> int:
        return msgspec.msgpack.decode(encode_segment(Segment("w", 0, 0, tuple(records))))["format"]  # type: ignore[no-any-return]

    change = Change(upsert=Example("e", Input("text"), "label"))
    assert number([Record(1, change=change)]) == FIRST
    for matched in (
        Record(1, unchanged="e"),
        Record(1, change=change, by_content=True),
        Record(1, change=change, renames="a/w/0"),
    ):
        assert number([Record(1, change=change), matched]) == MATCHED
    for pinned, expected in ((False, FIRST), (True, MATCHED)):
        assert json.loads(stamped(MoveAlias(START.created, "m", "live", 1, pinned)))["format"] == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (AdaptationSettings("minilm"), FIRST),
        (AdaptationSettings("minilm", base_alias="live", match_content=True), MATCHED),
        (AdaptationSettings("minilm", publish=PublishPolicy(promote=False)), MATCHED),
    ],
)
def test_an_adaptation_has_the_newer_format_where_an_older_release_would_do_something_else(
    objects, settings, expected
):
    AdaptationStore.create(objects, "m", "a", replace(START, settings=settings))
    (key,) = [it for it in objects.keys("") if it.endswith("start.json")]
    assert json.loads(objects.get(key))["format"] == expected


def test_a_version_with_an_adapter_is_not_for_releases_that_would_serve_it_without(objects):
    def number(parts: dict[str, bytes]) -> int:
        manifest = Manifest("m", "a", "c", "minilm", "e", (), (), 0, START.created)
        return json.loads(objects.get(write_version(objects, manifest, parts).key))["format"]  # type: ignore[no-any-return]

    assert [number({HEAD: b"", it: b""}) for it in (TOP, ADAPTER)] == [FIRST, ADAPTED]
