"""The warnings of a report for any task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import HeadChoice
from graft_server.domain.views import POOLED
from graft_server.evaluation.interval import LEAST_EVALUATED
from graft_server.training.examples.training_set import ExampleSet

FEW = 5
"""A class with fewer examples is warned of."""
MOSTLY = 0.5
"""The share of a class's examples; fewer that other classes have too are listed as conflicts without a warning."""
NAMED = 5
"""The most classes that a warning names."""


def enough(train: ExampleSet, rows: NDArray[np.int64]) -> bool:
    """Whether there are enough different inputs among some rows to state figures of them."""
    return len({train.input_digests[row] for row in rows}) >= LEAST_EVALUATED


def not_stated(train: ExampleSet, held_out: NDArray[np.int64], rows: NDArray[np.int64]) -> list[str]:
    """Returns a warning if there are too few examples to state figures, or too few held-out ones.

    Args:
        train: The examples.
        held_out: The rows marked for validation.
        rows: The other rows on which a head can be measured, by cross-validation.
    """
    needed = (
        f"at least {LEAST_EVALUATED} that differ are needed, and a figure of so few is still a rough estimate"
    )
    if enough(train, held_out):
        return []
    if enough(train, rows):
        few = f"{len(held_out):,} held-out examples are too few to measure on, so the figures are cross-validated"
        return [f"{few} on the training examples: {needed}."] if len(held_out) else []
    most = max(len(held_out), len(rows))
    return [f"No accuracy is stated: there are too few examples. {most:,} can be evaluated, and {needed}."]


def without_accuracies(choice: HeadChoice) -> HeadChoice:
    """The choice of a head where there are too few examples to state accuracies of what was tried."""
    return replace(
        choice, candidates=tuple(replace(it, accuracy=0.0, micro_f1=0.0) for it in choice.candidates)
    )


def contradicted(
    train: ExampleSet, rows: NDArray[np.int64], targets: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Returns whether another row has the same features as each, but another target, shape (n,)."""
    features = np.ascontiguousarray(train.features[POOLED][rows])
    whole = features.view(np.dtype((np.void, features.itemsize * features.shape[1])))[:, 0]
    _, same = np.unique(whole, return_inverse=True)
    pairs = np.unique(np.stack([same, targets]), axis=1)
    several: NDArray[np.bool_] = np.bincount(pairs[0]) > 1
    return several[same]


def contradictions(train: ExampleSet, rows: NDArray[np.int64], targets: NDArray[np.integer]) -> list[str]:
    """Returns a warning if most rows have the features of others with another target.

    Args:
        train: The examples.
        rows: The rows that were trained on, shape (n,).
        targets: shape (n,): equal for equal targets.
    """
    found = int(contradicted(train, rows, targets).sum())
    if found <= MOSTLY * len(rows):
        return []
    what = "have the same features as one with another target: nothing tells those apart"
    return [f"{found:,} of {len(rows):,} examples {what}."]


def warnings_of_all(train: ExampleSet, rows: NDArray[np.int64]) -> list[str]:
    """Returns the warnings about the examples, and about the trained-on ones, for any task."""
    finite = np.ones(len(train), bool)
    for features in train.features.values():
        finite &= np.isfinite(features).all(axis=1)
    warnings = []
    if not finite.all():
        warnings.append(f"{(~finite).sum():,} examples were left out: their features are not finite.")
    if (train.weights == 0).any():
        warnings.append(f"{(train.weights == 0).sum():,} examples were left out: their weight is 0.")
    if not np.ptp(train.features[POOLED][rows].astype(np.float32), axis=0).max() > 0:
        warnings.append("All examples have the same features: nothing tells them apart.")
    return warnings


def about(classes: tuple[str, ...], which: NDArray[np.int64], what: str) -> str:
    """Returns a sentence about some classes, naming the first few; "{}" in it becomes "it is" or "they are"."""
    names = ", ".join(classes[i] for i in which[:NAMED])
    more = f" and {len(which) - NAMED:,} more" if len(which) > NAMED else ""
    verb, subject = ("has", "it is") if len(which) == 1 else ("have", "they are")
    return f"{names}{more} {verb} {what.format(subject)}."
