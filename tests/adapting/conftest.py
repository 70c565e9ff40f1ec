"""Synthetic training sets: unit-norm features around a direction of each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graft_server.adapting.training_set import TrainingSet


@pytest.fixture
def make_set() -> Callable[..., TrainingSet]:
    return training_set


def training_set(
    counts: Sequence[int], *, noise: float = 0.6, dimension: int = 32, seed: int = 0, **changes: Any
) -> TrainingSet:
    """`counts[c]` examples of class c."""
    directions = unit(np.random.default_rng(99).standard_normal((len(counts), dimension)))
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    spread = rng.standard_normal((len(labels), dimension)) * noise / np.sqrt(dimension)
    features = unit(directions[labels] + spread).astype(np.float16)
    n = len(labels)
    train = TrainingSet(
        classes=tuple(f"class {c}" for c in range(len(counts))),
        descriptions=("",) * len(counts),
        labels=labels,
        weights=np.ones(n),
        validation=np.zeros(n, bool),
        groups=np.arange(n),
        ids=tuple(f"id-{i}" for i in range(n)),
        origins=tuple(("writer", i) for i in range(n)),
        input_digests=tuple(f"input {i}".encode() for i in range(n)),
        features={"pooled": features},
    )
    return replace(train, **changes)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
