"""Heads without the features of some examples."""

import dataclasses

import numpy as np
import pytest

from graft_server.heads import KernelMap, LinearMap, Member, Novelty
from graft_server.heads.maps import JITTER, gaussian_kernel
from graft_server.heads.multi_label import MultiLabelHead
from graft_server.heads.redaction import coarsened, without
from graft_server.heads.regression import RegressionHead
from graft_server.heads.single_label import SingleLabelHead

D, K, M = 16, 3, 60


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def rows():
    return unit(np.random.default_rng(0).standard_normal((M, D))).astype(np.float16)


@pytest.fixture
def kernel(rows):
    """A map whose scores are smooth in the features, as a regression's are."""
    rng = np.random.default_rng(1)
    wide = rows.astype(np.float32)
    gram = gaussian_kernel(wide, wide, 1.0) + (JITTER + 0.1) * np.eye(M, dtype=np.float32)
    weight = np.linalg.solve(gram, np.tanh(wide @ rng.standard_normal((D, K)))).astype(np.float32)
    return KernelMap(rows, 1.0, weight, np.zeros(K, np.float32), 0.03)


def linear():
    return LinearMap(np.ones((D, K), np.float32), np.zeros(K, np.float32))


def novelty(anchors):
    steps = np.array([0, 1], np.float32)
    return Novelty(anchors.astype(np.float16), 1.0, 1.0, steps, steps)


def heads(kernel, anchors):
    told = novelty(anchors)
    return {
        "single": SingleLabelHead(
            "both", "pooled", (Member(linear(), 1.0, 0.5), Member(kernel, 1.0, 0.5)), 1.0, told
        ),
        "several": MultiLabelHead("both", "pooled", (linear(), kernel), np.ones(K, np.float32), True, told),
        "value": RegressionHead("kernel", "pooled", (kernel,), 1.0, 1.0, None, told),
    }


def kernel_of(head):
    maps = [it.map for it in head.members] if isinstance(head, SingleLabelHead) else head.maps
    return next(it for it in maps if isinstance(it, KernelMap))


@pytest.mark.parametrize("kind", ["single", "several", "value"])
def test_landmarks_and_anchors_of_erased_examples_go_and_the_others_stay(kind, kernel, rows):
    head = heads(kernel, rows[[0, 7, 9]])[kind]
    left = without(head, rows[[7, 20]].astype(np.float32))
    kept = [row for row in range(M) if row not in {7, 20}]
    assert (kernel_of(left).landmarks == rows[kept]).all()
    assert (left.novelty.anchors == rows[[0, 9]]).all()
    assert left.view == head.view
    assert left.kind == head.kind


def test_what_a_landmark_said_is_taken_over_by_its_neighbours(kernel, rows):
    wide = rows.astype(np.float32)
    left = kernel_of(without(heads(kernel, rows[:1])["single"], wide[[7]]))
    others = np.delete(np.arange(M), 7)
    dropped = dataclasses.replace(left, weight=kernel.weight[others])
    inputs = unit(wide[others] + wide[np.roll(others, 1)])
    off, off_if_dropped = (np.abs(it.scores(inputs) - kernel.scores(inputs)).mean() for it in (left, dropped))
    assert off < 0.5 * off_if_dropped
    # Of all functions of these landmarks it is the nearest: off by something that is orthogonal to each of them.
    assert np.abs(left.scores(wide[others]) - kernel.scores(wide[others])).max() < 0.02


def test_a_head_that_holds_none_of_them_is_left_as_it_is(kernel, rows):
    head = heads(kernel, rows[:2])["single"]
    strangers = unit(np.random.default_rng(5).standard_normal((4, D)))
    assert without(head, strangers) is None
    linear_alone = dataclasses.replace(head, members=head.members[:1])
    assert without(linear_alone, rows[[7]].astype(np.float32)) is None


def test_a_head_of_erased_examples_alone_holds_none_and_still_answers(kernel, rows):
    head = heads(kernel, rows[:2])["single"]
    left = without(head, rows.astype(np.float32))
    assert not kernel_of(left).landmarks.any()
    assert not left.novelty.anchors.any()
    assert np.isfinite(left.scores(rows[:3].astype(np.float32)).probabilities).all()


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_no_anchor_of_a_coarsened_head_is_what_it_was(count, kernel, rows):
    head = heads(kernel, rows[:count])["single"]
    after = coarsened(head).novelty.anchors.astype(np.float32)
    assert len(after) == max(1, count // 2)
    assert (after @ rows[:count].T.astype(np.float32)).max() < 0.999
    assert np.isfinite(after).all()
