"""Copies among the examples: what is found, what is bound in folds, and what is left out of the measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graft_server.domain.errors import StateError
from graft_server.domain.examples import Input, Kind
from graft_server.domain.report import EvaluationMethod
from graft_server.domain.wording import wording, wording_digest
from graft_server.training.examples.copies import copies_among
from graft_server.training.examples.folded import parts_of
from graft_server.training.examples.near import MAX_COMPARED, cells_of
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.tasks.multi_label.examples import MultiLabelSet
from graft_server.training.tasks.multi_label.selection import select_multi_label
from graft_server.training.tasks.regression.examples import RegressionSet
from graft_server.training.tasks.regression.selection import select_regression
from graft_server.training.tasks.single_label.selection import select_single_label
from graft_server.training.tasks.single_label.tuning import prepare

MakeSet = Callable[..., Any]
RNG = np.random.default_rng

ROUNDING, NEAR, APART = 1e-5, 0.005, 0.2
"""Deviations of a copy's features in each of 64 dimensions: read alike, a near copy, and another input."""


def doubled(train: Any, targets: str, noise: float, *, seed: int = 1) -> Any:
    """Every example twice, the second time with features a little off, as another input with the same target."""
    n = len(train)
    features = train.features["pooled"].astype(np.float32)
    off = features + noise * RNG(seed).standard_normal(features.shape)
    both = np.concatenate([features, off]).astype(np.float16)
    changes: dict[str, Any] = {
        name: np.concatenate([getattr(train, name)] * 2) for name in (targets, "weights", "validation")
    }
    return replace(
        train,
        **changes,
        groups=np.arange(2 * n),
        ids=tuple(f"id-{i}" for i in range(2 * n)),
        origins=tuple(("writer", i) for i in range(2 * n)),
        input_digests=tuple(f"input {i}".encode() for i in range(2 * n)),
        features={"pooled": both},
    )


def by_chance(n: int, *, classes: int = 2, seed: int = 0) -> ClassifiedSet:
    """Examples whose labels have nothing to do with their features."""
    rng = RNG(seed)
    features = rng.standard_normal((n, 64)) / 8
    return ClassifiedSet(
        classes=tuple(f"class {c}" for c in range(classes)),
        descriptions=("",) * classes,
        labels=rng.integers(0, classes, n).astype(np.int32),
        weights=np.ones(n),
        validation=np.zeros(n, bool),
        groups=np.arange(n),
        ids=tuple(f"id-{i}" for i in range(n)),
        origins=tuple(("writer", i) for i in range(n)),
        input_digests=tuple(f"input {i}".encode() for i in range(n)),
        features={"pooled": features.astype(np.float16)},
    )


@pytest.mark.parametrize("noise", [0, ROUNDING, NEAR])
def test_copies_of_examples_labelled_by_chance_give_chance(noise: float) -> None:
    train = doubled(by_chance(100), "labels", noise)
    report = select_single_label(train, seed=0).report
    assert report.accuracy < 0.66
    assert report.data is not None
    assert report.data.bound_examples == 200
    assert report.data.exact_duplicates == 0
    assert report.data.read_alike == (0 if noise == NEAR else 100)
    assert report.data.near_duplicates == (100 if noise == NEAR else 0)
    assert any("100 of 200 training examples are copies" in warning for warning in report.warnings)


def test_other_inputs_are_not_bound() -> None:
    report = select_single_label(doubled(by_chance(100), "labels", APART), seed=0).report
    assert report.data is not None
    assert (report.data.bound_examples, report.data.read_alike, report.data.near_duplicates) == (0, 0, 0)
    assert report.warnings == ()


def test_copies_of_label_sets_by_chance_give_chance(make_labelled_set: Callable[..., MultiLabelSet]) -> None:
    train = make_labelled_set(100, (0.5, 0.5))
    rng = RNG(0)
    train = replace(
        train,
        features={"pooled": (rng.standard_normal((100, 64)) / 8).astype(np.float16)},
        targets=rng.random((100, 2)) < 0.5,
    )
    report = select_multi_label(doubled(train, "targets", NEAR), seed=0).report
    assert report.accuracy < 0.45
    assert report.data is not None
    assert report.data.bound_examples == 200


def test_copies_of_values_by_chance_explain_nothing(make_valued_set: Callable[..., RegressionSet]) -> None:
    train = make_valued_set(100)
    rng = RNG(0)
    train = replace(
        train,
        features={"pooled": (rng.standard_normal((100, 64)) / 8).astype(np.float16)},
        values=rng.standard_normal(100),
    )
    report = select_regression(doubled(train, "values", NEAR), seed=0).report
    assert report.regression is not None
    assert report.regression.r2 < 0.15


def test_copies_are_found_whatever_a_backbones_features_have_in_common() -> None:
    # An untrained backbone gives all inputs a cosine of 0.99 and more; a copy is closer by far.
    train = doubled(by_chance(100), "labels", NEAR)
    features = train.features["pooled"].astype(np.float32)
    features = 0.1 * features + np.ones(64, np.float32) / 8
    train = replace(train, features={"pooled": features.astype(np.float16)})
    apart = replace(train, features={"pooled": train.features["pooled"][:100].repeat(2, axis=0)})
    for one, found in ((train, 200), (apart, 200)):
        report = select_single_label(one, seed=0).report
        assert report.data is not None
        assert report.data.bound_examples == found
    alone = select_single_label(by_chance(100), seed=0).report.data
    assert alone is not None
    assert alone.bound_examples == 0


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_inputs_of_few_numbers_are_no_copies_for_being_many(dimension: int) -> None:
    train = by_chance(600)
    train = replace(train, features={"pooled": RNG(1).random((600, dimension)).astype(np.float16)})
    parts = parts_of(train, 0)
    assert len(np.unique(parts.copies.bound)) > 0.8 * len(np.unique(parts.copies.alike))


def test_a_chain_of_near_inputs_is_not_one_input() -> None:
    train = by_chance(400, classes=2)
    features = train.features["pooled"].astype(np.float32)
    steps = np.arange(200)[:, None] * np.float32(0.08)
    features[:200] = features[0] + steps * np.eye(64, dtype=np.float32)[0]
    copies = copies_among(replace(train, features={"pooled": features.astype(np.float16)}), np.arange(400), 0)
    sizes = np.bincount(copies.bound)
    assert sizes.max() < 20


def test_many_copies_of_one_input_are_one_group() -> None:
    train = by_chance(200)
    features = train.features["pooled"].astype(np.float32)
    features[:60] = features[0] + NEAR * RNG(2).standard_normal((60, 64))
    copies = copies_among(replace(train, features={"pooled": features.astype(np.float16)}), np.arange(200), 0)
    assert len(np.unique(copies.bound[:60])) == 1
    assert len(np.unique(copies.bound)) == 141


@pytest.mark.parametrize("dimension", [1, 2, 64])
@pytest.mark.parametrize("size", [5, 12, 40])
def test_a_class_that_is_close_altogether_is_not_one_input(dimension: int, size: int) -> None:
    # A backbone that was never trained, or classes that have nothing in common: within a class all is close.
    train = by_chance(3 * size, classes=3)
    rng = RNG(3)
    labels = np.arange(3 * size, dtype=np.int32) % 3
    places = rng.standard_normal((3 * size, dimension)) / np.sqrt(dimension)
    features = np.eye(3, 64)[labels]
    features[:, 8 * (np.arange(dimension) // 8) + np.arange(dimension) % 8] += 0.06 * places
    train = replace(train, labels=labels, features={"pooled": features.astype(np.float16)})
    parts = parts_of(train, 0)
    for label in range(3):
        assert len(np.unique(parts.copies.bound[labels == label])) > 1
    assert parts.copies.tight.tolist() == [0, 1, 2]
    report = select_single_label(train, seed=0).report
    assert report.evaluation.examples == 3 * size
    assert any(
        "class 0, class 1, class 2 have examples that are nearly the same" in it for it in report.warnings
    )


def test_copies_are_found_in_a_class_that_is_close_altogether() -> None:
    labels = np.arange(80, dtype=np.int32) % 2
    features = np.eye(2, 64)[labels] + 0.06 * RNG(3).standard_normal((80, 64)) / 8
    train = replace(by_chance(80), labels=labels, features={"pooled": features.astype(np.float16)})
    copies = parts_of(doubled(train, "labels", 0.0004), 0).copies
    np.testing.assert_array_equal(copies.bound[:80], copies.bound[80:])
    assert len(np.unique(copies.bound)) == 80


def test_a_few_copies_of_one_input_are_no_class_to_measure() -> None:
    train = by_chance(60, classes=2)
    labels = np.where(np.arange(60) < 4, 2, train.labels).astype(np.int32)
    features = train.features["pooled"].astype(np.float32)
    features[:4] = features[0] + NEAR * RNG(2).standard_normal((4, 64))
    train = replace(
        train,
        classes=(*train.classes, "class 2"),
        descriptions=("",) * 3,
        labels=labels,
        features={"pooled": features.astype(np.float16)},
    )
    assert len(np.unique(parts_of(train, 0).copies.bound[:4])) == 1


def test_copies_are_found_among_more_examples_than_are_compared_at_once() -> None:
    n = MAX_COMPARED // 2 + 500
    train = doubled(by_chance(n), "labels", NEAR)
    bound = copies_among(train, np.arange(2 * n), 0).bound
    assert (bound[:n] == bound[n:]).mean() > 0.95
    assert len(np.unique(bound)) < 1.05 * n


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_cells_are_few_where_no_direction_tells_much_apart(spread: float) -> None:
    # Of many dimensions each is narrow: most rows are near the middle of any.
    projected = (spread * 0.036 * RNG(0).standard_normal((8 * MAX_COMPARED, 8))).astype(np.float32)
    cells = list(cells_of(projected))
    assert len(cells) <= 16
    assert max(map(len, cells)) <= MAX_COMPARED
    assert len(np.unique(np.concatenate(cells))) == len(projected)


def test_examples_that_are_all_copies_train_and_nothing_is_measured() -> None:
    train = by_chance(20)
    one = np.repeat(train.features["pooled"][:1], 20, axis=0)
    report = select_single_label(replace(train, features={"pooled": one}), seed=0).report
    assert report.evaluation.method is EvaluationMethod.NONE
    assert any("All 20 training examples are copies" in warning for warning in report.warnings)


def test_the_same_input_alone_is_refused() -> None:
    train = replace(by_chance(20), input_digests=(b"one",) * 20)
    with pytest.raises(StateError, match="at least 2"):
        select_single_label(train, seed=0)


@pytest.mark.parametrize("noise", [0, NEAR])
def test_validation_examples_that_are_copies_are_named_and_left_out(noise: float) -> None:
    train = doubled(by_chance(60), "labels", noise)
    held_out = np.arange(120) >= 90  # thirty copies of training examples, and ten others
    held_out[50:60] = True
    features = train.features["pooled"].copy()
    features[110:] = by_chance(10, seed=9).features["pooled"]
    train = replace(train, validation=held_out, features={"pooled": features})
    report = select_single_label(train, seed=0).report
    assert report.data is not None
    assert report.data.validation_copies == 20
    assert report.validation_examples == report.evaluation.examples == 20
    first = report.data.validation_copy_pairs[0]
    assert [one.id for one in first.examples] == ["id-90", "id-30"]
    assert any("20 of 40 held-out validation examples" in warning for warning in report.warnings)


def test_figures_come_from_training_examples_where_all_validation_examples_are_copies() -> None:
    train = doubled(by_chance(100), "labels", 0)
    report = select_single_label(replace(train, validation=np.arange(200) >= 100), seed=0).report
    assert report.evaluation.method is EvaluationMethod.CROSS_VALIDATION
    assert report.validation_examples == 0
    assert report.accuracy < 0.66
    assert any("100 of 100 held-out" in warning for warning in report.warnings)


def test_a_tuning_holds_out_copies_together() -> None:
    train = doubled(by_chance(150), "labels", NEAR)
    kept = prepare(select_single_label(train, seed=0), seed=0)
    assert kept is not None
    np.testing.assert_array_equal(kept.part[:150], kept.part[150:])


def test_texts_of_the_same_wording_are_bound_whatever_their_features() -> None:
    train = by_chance(60)
    wordings = tuple(f"{i // 2}".encode() for i in range(60))
    report = select_single_label(replace(train, wordings=wordings), seed=0).report
    assert report.data is not None
    assert (report.data.bound_examples, report.data.read_alike, report.data.near_duplicates) == (60, 0, 30)


@pytest.mark.parametrize(
    "other",
    [
        "Where is my card?  ",
        "where IS my card",
        "Where\u00a0is my card?",
        "Whe\u200bre is my card?",
        "\ufeffWhere is\u2009my card\u00ad?!",
        "\uff37here is my card\uff1f",
        "\u201cWhere is my card\u2026\u201d",
    ],
)
def test_wording_is_what_spacing_case_and_punctuation_leave(other: str) -> None:
    assert wording(other) == wording("Where is my card?")
    assert wording_digest(Input(other)) == wording_digest(Input("Where is my card?"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("set alarm 5", "set alarm 6"),
        ("1 > 2", "1 < 2"),
        ("good \U0001f600", "good \U0001f621"),
        ("का", "कि"),
    ],
)
def test_wording_keeps_what_tells_inputs_apart(one: str, other: str) -> None:
    assert wording(one) != wording(other)


def test_nothing_but_punctuation_is_no_wording() -> None:
    assert wording_digest(Input("...")) == wording_digest(Input(" ")) == b""
    assert wording_digest(Input(kind=Kind.IMAGE, data=b"abc")) == b""
    pair = Input("a", Kind.TEXT_PAIR, "bc")
    assert wording_digest(pair) != wording_digest(replace(pair, text="ab", second="c"))
