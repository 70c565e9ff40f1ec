"""A bundle is handed out only if it answers as the served version does, but for what rounding explains."""

import numpy as np
import pytest

from graft_server.domain.errors import FaultError
from graft_server.exporting.parity import require_same
from graft_server.heads.maps import LinearMap, Member
from graft_server.heads.novelty import Novelty
from graft_server.heads.single_label import SingleLabelHead

ROWS, DIMENSION = 12, 16


@pytest.fixture
def head():
    rng = np.random.default_rng(0)
    novelty = Novelty(
        np.eye(2, DIMENSION, dtype=np.float16), 1.0, 1.0, np.array([-9, 9], np.float32),
        np.array([0, 1], np.float32),
    )  # fmt: skip
    linear = LinearMap(rng.normal(size=(DIMENSION, 3)).astype(np.float32), np.zeros(3, np.float32))
    return SingleLabelHead("test", "pooled", (Member(linear, 1.0, 1.0),), 1.0, novelty)


@pytest.fixture
def features():
    rows = np.random.default_rng(1).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def outputs(head, features, off=0.0):
    """What a bundle would give that reads these features; each probability off by so much."""
    return [{"features": features, "probabilities": head.scores(features).probabilities + np.float32(off)}]


def moved(features, rows, by):
    """The features, some rows moved by a part of their norm."""
    found = features.copy()
    found[:rows] += np.float32(by) * np.roll(features[:rows], 1, axis=1)
    return found


@pytest.mark.parametrize("reduced", [False, True])
def test_what_is_as_served_passes(head, features, reduced):
    require_same(head, features, outputs(head, features), reduced=reduced)


@pytest.mark.parametrize("reduced", [False, True])
def test_other_answers_to_the_same_features_fail(head, features, reduced):
    with pytest.raises(FaultError, match="probabilities"):
        require_same(head, features, outputs(head, features, off=3e-4), reduced=reduced)


def test_a_reduced_encoder_may_round_a_row_another_way(head, features):
    found = outputs(head, moved(features, 1, 0.06))
    require_same(head, features, found, reduced=True)
    with pytest.raises(FaultError):
        require_same(head, features, found)


@pytest.mark.parametrize(("rows", "by"), [(1, 0.3), (ROWS, 1e-3), (1, np.nan)], ids=["far", "all", "nan"])
def test_a_reduced_encoder_that_reads_inputs_otherwise_fails(head, features, rows, by):
    with pytest.raises(FaultError, match="features differ"):
        require_same(head, features, outputs(head, moved(features, rows, by)), reduced=True)
