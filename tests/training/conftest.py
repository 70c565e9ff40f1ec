"""Synthetic training sets: unit-norm features around a direction of each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from graft_server.training.examples.training_set import ClassifiedSet, ExampleSet
from graft_server.training.tasks.multi_label.examples import MultiLabelSet
from graft_server.training.tasks.regression.examples import RegressionSet

S = TypeVar("S", bound=ExampleSet)


@pytest.fixture(scope="session")
def make_set() -> Callable[..., ClassifiedSet]:
    return training_set


def training_set(
    counts: Sequence[int], *, noise: float = 0.6, dimension: int = 32, seed: int = 0, **changes: Any
) -> ClassifiedSet:
    """`counts[c]` examples of class c."""
    directions = unit(np.random.default_rng(99).standard_normal((len(counts), dimension)))
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    spread = rng.standard_normal((len(labels), dimension)) * noise / np.sqrt(dimension)
    features = unit(directions[labels] + spread).astype(np.float16)
    train = ClassifiedSet(
        classes=tuple(f"class {c}" for c in range(len(counts))),
        descriptions=("",) * len(counts),
        labels=labels,
        **plain(features),
    )
    return replace(train, **changes)


@pytest.fixture
def make_labelled_set() -> Callable[..., MultiLabelSet]:
    return labelled_set


def labelled_set(
    n: int, shares: Sequence[float] = (0.5, 0.3, 0.1), *, noise: float = 0.6, seed: int = 0, **changes: Any
) -> MultiLabelSet:
    """`n` examples, each with any of the labels, which apply to the given shares; 32 dimensions."""
    directions = unit(np.random.default_rng(98).standard_normal((len(shares) + 1, 32)))
    rng = np.random.default_rng(seed)
    targets = rng.random((n, len(shares))) < shares
    spread = rng.standard_normal((n, 32)) * noise / np.sqrt(32)
    features = unit(directions[-1] + targets @ directions[:-1] + spread).astype(np.float16)
    train = MultiLabelSet(
        classes=tuple(f"label {c}" for c in range(len(shares))),
        descriptions=("",) * len(shares),
        targets=targets,
        **plain(features),
    )
    return replace(train, **changes)


@pytest.fixture
def make_valued_set() -> Callable[..., RegressionSet]:
    return valued_set


def valued_set(n: int, *, noise: float = 1.0, seed: int = 0, **changes: Any) -> RegressionSet:
    """`n` examples whose value is linear in 16 dimensions, 100 on average, plus noise; a deviation of 5 without."""
    weight = 20 * unit(np.random.default_rng(97).standard_normal((1, 16)))[0]
    rng = np.random.default_rng(seed)
    features = unit(rng.standard_normal((n, 16))).astype(np.float16)
    values = 100 + features.astype(np.float64) @ weight + noise * rng.standard_normal(n)
    return replace(RegressionSet(values=values, **plain(features)), **changes)


def plain(features: np.ndarray) -> dict[str, Any]:
    """What every set of examples with these features has, none of it remarkable."""
    n = len(features)
    return {
        "weights": np.ones(n),
        "validation": np.zeros(n, bool),
        "groups": np.arange(n),
        "ids": tuple(f"id-{i}" for i in range(n)),
        "origins": tuple(("writer", i) for i in range(n)),
        "input_digests": tuple(f"input {i}".encode() for i in range(n)),
        "features": {"pooled": features},
    }


def rows_of(train: S, target: str, rows: np.ndarray) -> S:
    """Some rows, each an example of its own however often it is taken; `target` names the array of what they are."""
    places = [int(row) for row in rows]
    changes: dict[str, Any] = {
        name: getattr(train, name)[rows] for name in (target, "weights", "validation", "groups")
    }
    return replace(
        train,
        **changes,
        ids=tuple(f"{train.ids[row]}/{i}" for i, row in enumerate(places)),
        origins=tuple(train.origins[row] for row in places),
        input_digests=tuple(train.input_digests[row] for row in places),
        features={view: features[rows] for view, features in train.features.items()},
    )


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
