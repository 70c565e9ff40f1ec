"""The warnings of a report for any task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import HeadChoice
from graft_server.domain.views import POOLED
from graft_server.evaluation.interval import LEAST_EVALUATED
from graft_server.training.examples.folded import Parts
from graft_server.training.examples.training_set import ExampleSet

FEW = 5
"""A class with fewer examples is warned of."""
MANY_COPIES = 0.1
"""The share of training examples that are copies of others from which they are warned of."""
MOSTLY = 0.5
"""The share of a class's examples; fewer that other classes have too are listed as conflicts without a warning."""
NAMED = 5
"""The most classes that a warning names."""


def enough(parts: Parts, rows: NDArray[np.int64]) -> bool:
    """Whether there are enough different inputs among some rows to state figures of them."""
    return len(np.unique(parts.copies.bound[rows])) >= LEAST_EVALUATED


def not_stated(parts: Parts, rows: NDArray[np.int64]) -> list[str]:
    """Returns a warning if there are too few examples to state figures, or too few held-out ones.

    Args:
        parts: What each example is for.
        rows: The training examples on which a head can be measured, by cross-validation.
    """
    needed = (
        f"at least {LEAST_EVALUATED} that differ are needed, and a figure of so few is still a rough estimate"
    )
    held_out = parts.held_out
    if enough(parts, held_out):
        return []
    if enough(parts, rows):
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


def warnings_of_all(train: ExampleSet, parts: Parts) -> list[str]:
    """Returns the warnings about the examples, and about the trained-on ones, for any task."""
    rows = parts.rows
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
    return warnings + _of_copies(parts)


def tight(classes: tuple[str, ...], parts: Parts) -> list[str]:
    """Returns a warning of classes whose examples are all about as close as near copies are."""
    if not len(parts.copies.tight):
        return []
    what = (
        "examples that are nearly the same to the backbone. If these are copies of one input, do not believe that "
        "{} recognised as well in others"
    )
    return [about(classes, parts.copies.tight, what)]


def _of_copies(parts: Parts) -> list[str]:
    """Returns the warnings about copies among the examples to train on, and between these and the held-out ones."""
    bound, warnings = parts.copies.bound[parts.rows], []
    spare = len(bound) - len(np.unique(bound))
    if spare and len(np.unique(parts.bound[parts.rows])) < 2:
        warnings.append(
            f"All {len(bound):,} training examples are copies or near copies of each other as the backbone reads them: "
            "how good the answers are for other inputs could not be measured."
        )
    elif spare > MANY_COPIES * len(bound):
        warnings.append(
            f"{spare:,} of {len(bound):,} training examples are copies or near copies of others, as the backbone reads "
            "them. Copies are held out together, so the figures do not rest on them."
        )
    if repeated := len(parts.repeated):
        held_out, left = repeated + len(parts.held_out), len(parts.held_out)
        what = f"{repeated:,} of {held_out:,} held-out validation examples are copies or near copies of training ones"
        figures = (
            f"the figures come from the other {left:,}"
            if left
            else "the figures come from the training examples"
        )
        warnings.append(f"{what}, which a model answers from memory: they were left out, and {figures}.")
    return warnings


def about(classes: tuple[str, ...], which: NDArray[np.int64], what: str) -> str:
    """Returns a sentence about some classes, naming the first few; "{}" in it becomes "it is" or "they are"."""
    names = ", ".join(classes[i] for i in which[:NAMED])
    more = f" and {len(which) - NAMED:,} more" if len(which) > NAMED else ""
    verb, subject = ("has", "it is") if len(which) == 1 else ("have", "they are")
    return f"{names}{more} {verb} {what.format(subject)}."
