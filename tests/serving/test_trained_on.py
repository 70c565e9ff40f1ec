"""Which of a caller's examples are copies of what a version was trained on, by their features."""

import numpy as np
import pytest

from graft_server.domain.examples import Example, Input, Kind
from graft_server.domain.wording import wording_digest
from graft_server.serving.trained_on import NearCopies, TrainedOn, TrainedRows

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
