"""Which of a caller's examples are copies of what a version was trained on, by their features."""

from datetime import UTC, datetime

import numpy as np
import pytest

from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.examples import Change, Example, Input, Kind, Label, Split
from graft_server.domain.model import Manifest, Source
from graft_server.domain.wording import wording_digest
from graft_server.serving.trained_on import NearCopies, TrainedOn, TrainedRows, read_trained_on
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import Objects

RNG = np.random.default_rng(7)
DIMENSION = 64


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def clip(number):
    return Input(kind=Kind.AUDIO, data=b"%d" % number)


def labelled(number, label="one"):
    return Example(f"{number}", clip(number), label=label)


@pytest.fixture
def trained():
    """50 clips that a version was trained on, in two views."""
    digests = tuple(clip(number).digest() for number in range(50))
    views = {view: unit(RNG.normal(size=(50, DIMENSION))) for view in ("pooled", "patches")}
    return TrainedRows(digests, (b"",) * 50, views, (("one",), ("other",)) * 25)


def moved(rows, row, by):
    """Features of a row that are as far away as a share of what two rows are apart."""
    direction = RNG.normal(size=DIMENSION)
    off = by * 2**0.5 * direction / np.linalg.norm(direction)
    return {view: (array[row] + off).astype(np.float16) for view, array in rows.features.items()}


def test_what_is_near_is_a_copy_and_other_inputs_are_none(trained):
    near = NearCopies(trained)
    assert near.views == {"pooled", "patches"}
    near.add(3, labelled(100), moved(trained, 7, 0.0))
    near.add(5, labelled(101), moved(trained, 8, 0.05))
    near.add(6, labelled(102), moved(trained, 9, 0.5))
    near.add(9, labelled(103), moved(trained, 7, 1.0))
    half = moved(trained, 11, 0.02) | {"patches": moved(trained, 12, 0.02)["patches"]}
    near.add(10, labelled(104), half)
    assert near.found() == {3, 5}


def test_inputs_of_a_class_that_a_backbone_hardly_tells_apart_are_no_copies():
    centres = RNG.normal(size=(2, DIMENSION))
    rows = {"pooled": unit(np.repeat(centres, 25, axis=0) + 0.05 * RNG.normal(size=(50, DIMENSION)))}
    labels = (("one",),) * 25 + (("other",),) * 25
    near = NearCopies(TrainedRows(tuple(clip(i).digest() for i in range(50)), (b"",) * 50, rows, labels))
    others = unit(centres[[0, 1]] + 0.05 * RNG.normal(size=(2, DIMENSION)))
    near.add(0, labelled(100), {"pooled": others[0]})
    near.add(1, labelled(101, "other"), {"pooled": others[1]})
    near.add(2, labelled(102), {"pooled": (rows["pooled"][3] * np.float32(1.002)).astype(np.float16)})
    assert near.found() == {2}


def test_copies_of_each_other_alone_are_none(trained):
    near = NearCopies(trained)
    features = {view: unit(RNG.normal(size=(1, DIMENSION)))[0] for view in near.views}
    for place in range(3):
        near.add(place, labelled(100 + place), features)
    assert near.found() == set()


def test_what_has_other_views_is_not_compared(trained):
    near = NearCopies(trained)
    near.add(0, labelled(100), {"pooled": trained.features["pooled"][0]})
    assert near.found() == set()
    assert NearCopies(TrainedRows((), (), {}, ())).found() == set()


def test_the_same_input_or_wording_is_known_whatever_its_features():
    texts = ("Where is my card?", "!?")
    inputs = [Input(it) for it in texts]
    wordings = [wording_digest(it) for it in inputs]
    rows = TrainedRows(tuple(it.digest() for it in inputs), tuple(wordings), {}, (("one",),) * 2)
    trained = TrainedOn(rows, frozenset(rows.digests), frozenset(rows.wordings) - {b""}, complete=True)
    asked = ["where is  my CARD", "Where is my card?", "where is my car", "!?", "?!", ""]
    assert trained.knows([Input(it) for it in asked]) == [True, True, False, True, False, False]
    assert trained.knows([clip(1), Input("where is my card", Kind.TEXT_PAIR, "now")]) == [False, False]


def test_what_was_sent_and_not_trained_on_is_not_known():
    objects, now = Objects.open("memory:///"), datetime.now(UTC)
    store = AdaptationStore.create(
        objects, "m", "job", Start(AdaptationSettings("b", (Label("a"),), seed=1), now)
    )
    examples = [
        Example("1", Input("trained"), "a"),
        Example("2", Input("weightless"), "a", 0.0),
        Example("3", Input("held out"), "a", split=Split.VALIDATION),
        Example("4", Input("unlabelled")),
        Example("5", Input("of another label"), "b"),
    ]
    store.writer("w").append([Record(content_digest(it.id.encode()), Change(it)) for it in examples])
    manifest = Manifest("m", "job", "c", "b", "e", (Label("a"),), (Source("job", {"w": 5}),), 1, now)
    trained = read_trained_on(objects, manifest, len(examples), erased=False)
    assert trained.knows([it.input for it in examples]) == [True, False, False, False, False]
    assert trained.rows.labels == (("a",),)
    assert trained.complete
