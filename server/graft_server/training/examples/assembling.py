"""From a lineage's rows to a task's training set: which examples can be trained on, their targets as arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import StateError
from graft_server.domain.examples import Example, Split, Task
from graft_server.store.adaptations.training_rows import Rows
from graft_server.training.contract import LabelFeatures, Wanted
from graft_server.training.examples.training_set import ExampleSet, MultiLabelSet, RegressionSet, TrainingSet


def assembled(rows: Rows, wanted: Wanted) -> tuple[ExampleSet, list[str]]:
    """The labelled examples as arrays, and warnings about those that were left out.

    Raises:
        StateError: No example can be trained on (TOO_FEW_CLASSES, TOO_FEW_EXAMPLES).
    """
    labelled = [i for i, it in enumerate(rows.examples) if it.labelled]
    kept = labelled
    if wanted.closed_labels:
        allowed = {label.name for label in wanted.labels}
        kept = [i for i in labelled if allowed.issuperset(rows.examples[i].labels)]
    if not kept:
        raise _no_examples(wanted.task, len(rows.examples), len(labelled))
    examples = [rows.examples[i] for i in kept]
    shared: dict[str, Any] = {
        "weights": np.array([it.weight for it in examples], np.float64),
        "validation": np.array([it.split is Split.VALIDATION for it in examples]),
        "groups": _groups(examples),
        "ids": tuple(it.id for it in examples),
        "origins": tuple(rows.origins[i] for i in kept),
        "input_digests": tuple(it.input.digest() for it in examples),
        "features": {view: array[kept] for view, array in rows.features.items()},
    }
    build: dict[Task, Callable[[], ExampleSet]] = {
        Task.SINGLE_LABEL: lambda: _single_label(examples, wanted, shared),
        Task.MULTI_LABEL: lambda: _multi_label(examples, wanted, shared),
        Task.REGRESSION: lambda: _regression(examples, shared),
    }
    return build[wanted.task](), _left_out(len(rows.examples), len(labelled), len(kept))


def nothing_yet(wanted: Wanted) -> TrainingSet | None:
    """The declared labels without any example, where their names alone can tell inputs apart; otherwise None."""
    found, known = wanted.label_features, _known([], wanted)
    if wanted.task is not Task.SINGLE_LABEL or found is None or not found.scale or len(known) < 2:
        return None
    features = _of_names(found, tuple(known), found.views.keys())
    if features is None:
        return None
    return TrainingSet(
        classes=tuple(known),
        descriptions=tuple(known.values()),
        labels=np.empty(0, np.int32),
        weights=np.empty(0),
        validation=np.empty(0, bool),
        groups=np.empty(0, np.int64),
        ids=(),
        origins=(),
        input_digests=(),
        features={view: array[:0] for view, array in features.items()},
        label_features=features,
        label_scale=found.scale,
    )


def _single_label(examples: Sequence[Example], wanted: Wanted, shared: dict[str, Any]) -> TrainingSet:
    known = _known(examples, wanted)
    number = {name: i for i, name in enumerate(known)}
    soft = None
    if any(it.distribution is not None for it in examples):
        soft = np.zeros((len(examples), len(known)), np.float32)
        for row, example in zip(soft, examples, strict=True):
            if example.label is not None:
                row[number[example.label]] = 1
            for share in example.distribution or ():
                row[number[share.label]] = share.probability
        labels = soft.argmax(axis=1).astype(np.int32)
    else:
        labels = np.array([number[it.label] for it in examples if it.label is not None], np.int32)
    return TrainingSet(
        classes=tuple(known),
        descriptions=tuple(known.values()),
        labels=labels,
        soft=soft,
        label_features=_of_names(wanted.label_features, tuple(known), shared["features"].keys()),
        label_scale=wanted.label_features.scale if wanted.label_features else 0.0,
        **shared,
    )


def _multi_label(examples: Sequence[Example], wanted: Wanted, shared: dict[str, Any]) -> MultiLabelSet:
    known = _known(examples, wanted)
    number = {name: i for i, name in enumerate(known)}
    targets = np.zeros((len(examples), len(known)), bool)
    for row, example in zip(targets, examples, strict=True):
        row[[number[label] for label in example.labels]] = True
    return MultiLabelSet(
        classes=tuple(known),
        descriptions=tuple(known.values()),
        targets=targets,
        label_features=_of_names(wanted.label_features, tuple(known), shared["features"].keys()),
        **shared,
    )


def _regression(examples: Sequence[Example], shared: dict[str, Any]) -> RegressionSet:
    values = np.array([it.value for it in examples if it.value is not None], np.float64)
    return RegressionSet(values=values, **shared)


def _known(examples: Sequence[Example], wanted: Wanted) -> dict[str, str]:
    """Every label with its description: the declared ones in their order, then those that were seen, sorted."""
    known = {label.name: label.description for label in wanted.labels}
    seen = {label for it in examples for label in it.labels}
    return known | dict.fromkeys(sorted(seen - known.keys()), "")


def _of_names(
    found: LabelFeatures | None, classes: tuple[str, ...], views: Collection[str]
) -> dict[str, NDArray[np.float16]] | None:
    """Features of the classes' names, (k, d) by view, if all of them have some; of the examples' views."""
    place = {name: i for i, name in enumerate(found.names)} if found else {}
    if found is None or not place.keys() >= set(classes):
        return None
    rows = [place[name] for name in classes]
    return {
        view: np.frombuffer(data, np.float16).reshape(len(found.names), -1)[rows]
        for view, data in found.views.items()
        if view in views
    }


def _groups(examples: Sequence[Example]) -> NDArray[np.int64]:
    """One number a group; an example without one is a group of its own."""
    numbers: dict[tuple[str, int], int] = {}
    keys = ((it.group, -1) if it.group else ("", i) for i, it in enumerate(examples))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _left_out(examples: int, labelled: int, kept: int) -> list[str]:
    warnings = []
    if unlabelled := examples - labelled:
        warnings.append(f"{unlabelled:,} examples were left out: they have no label.")
    if others := labelled - kept:
        warnings.append(f"{others:,} examples were left out: their labels are not among the closed ones.")
    return warnings


def _no_examples(task: Task, examples: int, labelled: int) -> StateError:
    needed = "At least 2 classes need training examples"
    reason, metadata = "TOO_FEW_CLASSES", {"classes": "0", "needed": "2"}
    if task is Task.REGRESSION:
        needed, reason, metadata = "At least 2 examples with a value are needed", "TOO_FEW_EXAMPLES", {}
    if task is Task.MULTI_LABEL:
        needed = "At least one label needs examples that carry it, and others that do not"
        metadata = {"classes": "0", "needed": "1"}
    if labelled:
        found = f"none of the {labelled:,} labelled examples carries a label of the closed set"
    elif examples:
        found = (
            f"none of the {examples:,} examples carries a {'value' if task is Task.REGRESSION else 'label'}"
        )
    else:
        found = "there are no examples"
    return StateError(
        f"There is nothing to train on: {found}. {needed}: send some, then commit again.",
        reason=reason,
        metadata=metadata,
    )
