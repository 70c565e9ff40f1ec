"""How far a version's figure rests on inputs that look alike: the figure with whole series of them held out.

A photograph is answered well if others of the same object were trained on. A new object has none, so that accuracy
on it is lower than folds say that tear series apart. Series are found in the features (see `examples.series`), and a
head like the chosen one is measured again with each held out whole.

Whatever is held out together takes from its class more than single examples do, and what lies near most of all. So the
figure counts only where groups of the same sizes, of any members of the same classes, cost clearly less.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import DuplicateGroup, LookAlikes, Report
from graft_server.domain.views import POOLED
from graft_server.evaluation.interval import accuracy_interval
from graft_server.training.examples.folded import Examples, measurable
from graft_server.training.examples.folds import bound_together, stratified_folds
from graft_server.training.examples.series import series_among
from graft_server.training.reporting.data_quality import MAX_MEMBERS, groups_of_several, reference
from graft_server.training.search.candidates import Trial
from graft_server.training.search.refitted import on_other_folds

MAX_CELLS = 5_000_000
"""Examples times classes up to which heads are measured again."""
CLEAR = 2.0
"""Standard errors by which two figures have to differ."""
LEAST_FALL = 0.02
"""The least difference of two accuracies that is worth a warning."""
MAX_FOLDS = 10
LARGEST = 10

Bools = NDArray[np.bool_]


def with_look_alikes(report: Report, examples: Examples, chosen: Trial) -> Report:
    """Returns the report with the figure for whole groups of look-alikes held out, and a warning, if there are any.

    Args:
        report: What is known of the version.
        examples: What it was trained on.
        chosen: Its head.
    """
    bound = look_alikes_of(examples, chosen)
    if bound is None:
        return report
    found = measured_apart(report, examples, chosen, bound)
    if found is None:
        return report
    return replace(report, look_alikes=found, warnings=(warning(report.accuracy, found), *report.warnings))


def look_alikes_of(examples: Examples, chosen: Trial) -> NDArray[np.int64] | None:
    """Returns which examples are bound together if look-alikes are, shape (n,); None where there are no series."""
    train = examples.train
    if not train.recorded or len(examples.rows) * chosen.problem.classes > MAX_CELLS:
        return None
    # One stands for all that the backbone reads alike or that are of one group. Near copies are sought among: the
    # tightest members of a series may be taken for some.
    same = bound_together(train.groups, examples.parts.copies.alike)[examples.rows]
    first, of = np.unique(same, return_index=True, return_inverse=True)[1:]
    rows = examples.rows[first]
    views = [train.features[POOLED], *(them for view, them in train.features.items() if view != POOLED)]
    found = series_among([view[rows] for view in views], examples.labels[first], examples.seed)
    return None if found is None else bound_together(examples.bound, found[of])


def measured_apart(
    report: Report, examples: Examples, chosen: Trial, bound: NDArray[np.int64]
) -> LookAlikes | None:
    """Returns the figure with whole groups held out; None where it does not differ beyond noise.

    Args:
        report: What is known of the version.
        examples: What it was trained on.
        chosen: Its head.
        bound: shape (n,): equal for look-alikes.
    """
    right, known = _right(examples, chosen, bound)
    by_chance, also_known = _right(examples, chosen, _shuffled(bound, examples))
    both = known & also_known & examples.measured
    if not both.any():
        return None
    fall = by_chance[both].astype(np.float64) - right[both]
    weights = examples.weights[both]
    mean = float(weights @ fall / weights.sum())
    of_groups = np.bincount(np.unique(bound[both], return_inverse=True)[1], weights * (fall - mean))
    error = float(np.sqrt((of_groups**2).sum())) / float(weights.sum())
    weights = examples.weights[known]
    accuracy = float(weights @ right[known] / weights.sum())
    if min(mean, report.accuracy - accuracy) < max(LEAST_FALL, CLEAR * error):
        return None
    low, high = accuracy_interval(right[known], weights, bound[known], folds=_folds(examples, bound))
    groups = groups_of_several(bound)
    return LookAlikes(
        groups=len(groups),
        examples=sum(len(group) for group in groups),
        accuracy=accuracy,
        low=low,
        high=high,
        largest=tuple(_named(examples, group) for group in groups[:LARGEST]),
    )


def warning(stated: float, found: LookAlikes) -> str:
    """Returns both figures in a sentence, and what to do.

    Args:
        stated: The accuracy of the report.
        found: The look-alikes.
    """
    return (
        f"Accuracy is {stated:.0%} on inputs like these, but {found.accuracy:.0%} ({found.low:.0%} to "
        f"{found.high:.0%}) when whole groups of look-alikes are held out: {found.examples:,} of the examples are in "
        f"{found.groups:,} groups that look like one another, as frames of one video or photographs of one object do. "
        "Expect the lower figure on new ones. Give each example its group (the field `group`, --group COLUMN in "
        "files), and all figures are measured with groups held out."
    )


def _right(examples: Examples, chosen: Trial, bound: NDArray[np.int64]) -> tuple[Bools, Bools]:
    """Whether each example is answered right without what it is bound to, and whether its class is known then."""
    folds = _folds(examples, bound)
    fold_of = stratified_folds(examples.labels, bound, folds, examples.seed)
    known = measurable(examples.labels, fold_of, folds, chosen.problem.classes)
    trial = on_other_folds(chosen, examples, fold_of, folds, known)
    right: Bools = trial.probabilities.argmax(axis=1) == examples.labels
    return right, known


def _folds(examples: Examples, bound: NDArray[np.int64]) -> int:
    """As many as a typical class has groups, so that each fold holds some of each class."""
    pairs = np.unique(np.stack([examples.labels, bound]), axis=1)
    typical = int(np.median(np.unique(pairs[0], return_counts=True)[1]))
    return min(MAX_FOLDS, max(typical, 2), len(np.unique(bound)))


def _shuffled(bound: NDArray[np.int64], examples: Examples) -> NDArray[np.int64]:
    """Groups of the same sizes of other members of the same classes; what is bound otherwise stays together."""
    rng = np.random.default_rng(examples.seed)
    # Units are what shares a fold anyway; each gets the group of another unit of its class.
    first, of = np.unique(examples.bound, return_index=True, return_inverse=True)[1:]
    units, labels = bound[first], examples.labels[first]
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        units[places] = units[places][rng.permutation(len(places))]
    shuffled: NDArray[np.int64] = units[of]
    return shuffled


def _named(examples: Examples, group: NDArray[np.int64]) -> DuplicateGroup:
    """A group with its mean similarity."""
    features = examples.train.features[POOLED][examples.rows[group[:MAX_MEMBERS]]].astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    n = len(features)
    similarity = float(((features @ features.T).sum() - n) / (n * (n - 1)))
    references = tuple(reference(examples.train, examples.rows[i]) for i in group[:MAX_MEMBERS])
    return DuplicateGroup(references, len(group), min(similarity, 1.0))
