"""What to label next: the choice covers what is common and unknown, and leaves out outliers and copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graft_server.serving.suggesting import choosing
from graft_server.serving.suggesting.choosing import LeftError, choose

D = 32


def unit(rows: Any) -> NDArray[np.float32]:
    array = np.asarray(rows, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def clusters(
    sizes: list[int], seed: int = 0, spread: float = 0.05
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Rows around as many centres as there are sizes, shuffled, and the centre of each row."""
    rng = np.random.default_rng(seed)
    centres = np.eye(D)[: len(sizes)]
    of = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return unit(centres[of] + spread * rng.normal(size=(len(of), D))), of


def nothing() -> NDArray[np.float32]:
    return np.zeros((0, D), np.float32)


def test_the_first_choices_are_of_every_cluster_the_largest_first():
    rows, of = clusters([60, 30, 40, 20, 50])
    choice = choose(rows, nothing(), None, 5)
    assert of[choice.rows].tolist() == [0, 4, 2, 1, 3]
    assert choice.gains[0] == 1
    assert (np.diff(choice.gains) <= 0).all()
    assert choice.similar.tolist() == pytest.approx([60, 50, 40, 30, 20], abs=3)


def test_what_is_labelled_is_covered():
    rows, of = clusters([60, 30, 40])
    known = rows[of == 0][:2]
    assert set(of[choose(rows[of >= 0], known, None, 2).rows]) == {1, 2}


def test_what_the_version_is_sure_of_comes_last():
    rows, of = clusters([50, 50])
    uncertainty = np.where(of == 0, 0.0, 1.0).astype(np.float32)
    assert of[choose(rows, nothing(), uncertainty, 1).rows].tolist() == [1]


def test_outliers_are_not_among_the_first():
    rows, _ = clusters([50, 50, 50], spread=0.1)
    outliers = unit(np.random.default_rng(1).normal(size=(20, D)))
    pool = np.concatenate([outliers, rows])
    choice = choose(pool, nothing(), np.ones(len(pool), np.float32), 10)
    assert (choice.rows >= len(outliers)).all()


def test_copies_are_not_chosen_of_what_is_labelled_nor_of_each_other():
    rows, _ = clusters([1] * 6)
    copies = np.repeat(rows, 5, axis=0)
    choice = choose(copies, rows[:2], None, 30)
    assert sorted(choice.rows // 5) == [2, 3, 4, 5]


def test_a_pool_of_one_and_a_count_beyond_the_pool_are_no_harm():
    rows, _ = clusters([1, 1, 1])
    assert choose(rows[:1], nothing(), None, 5).rows.tolist() == [0]
    assert sorted(choose(rows, nothing(), None, 100).rows.tolist()) == [0, 1, 2]
    assert choose(rows[:1], rows[:1], None, 5).rows.tolist() == []


def test_rows_that_are_all_alike_give_one():
    rows = np.repeat(unit(np.ones((1, D))), 30, axis=0)
    assert len(choose(rows, nothing(), None, 5).rows) == 1


def test_a_choice_is_the_same_again_also_of_a_pool_of_which_a_part_is_drawn(monkeypatch):
    monkeypatch.setattr(choosing, "CHOSEN_FROM", 100)
    monkeypatch.setattr(choosing, "COVERED", 80)
    rows, of = clusters([100, 60, 80])
    first, again = (choose(rows, nothing(), None, 3, seed=7) for _ in range(2))
    assert first.rows.tolist() == again.rows.tolist()
    assert set(of[first.rows]) == {0, 1, 2}
    assert first.similar.sum() == pytest.approx(240, abs=10)


def test_the_lazy_choice_is_the_one_that_computes_all_gains_anew():
    rows, _ = clusters([30, 20, 25, 5], spread=0.3)
    uncertainty = np.random.default_rng(3).uniform(size=len(rows)).astype(np.float32)
    greedy = choosing._Greedy(rows, rows, lambda: False)
    greedy.weigh(np.maximum(uncertainty, choosing.LEAST_WEIGHT))
    expected = []
    every = np.arange(len(rows))
    for _ in range(8):
        gains = np.where(greedy._barred, -1, greedy._gains(every)[0])
        expected.append(int(gains.argmax()))
        bounds = gains.astype(np.float32)
        greedy._take(expected[-1], bounds)
        greedy._barred |= bounds < 0
    assert choose(rows, nothing(), uncertainty, 8).rows.tolist() == expected


def test_nothing_is_computed_for_a_caller_who_has_left():
    rows, _ = clusters([20])
    with pytest.raises(LeftError):
        choose(rows, nothing(), None, 1, left=lambda: True)


def test_rows_are_compared_by_their_direction_whatever_their_length_and_precision():
    rows, of = clusters([60, 30, 40])
    lengths = np.random.default_rng(2).uniform(0.5, 3, size=(len(rows), 1))
    longer = (rows * lengths).astype(np.float16)
    expected = choose(rows.astype(np.float16), rows[of == 0][:2], None, 5)
    choice = choose(longer, longer[of == 0][:2], None, 5)
    assert choice.rows.tolist() == expected.rows.tolist()
    assert choice.gains == pytest.approx(expected.gains, abs=1e-2)
