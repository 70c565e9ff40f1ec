"""From examples with one label each, or a distribution over labels, to arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graft_server.domain.examples import Example
from graft_server.training.contract import Wanted
from graft_server.training.examples.assembling import Shared, features_of_names, known_labels
from graft_server.training.examples.training_set import ClassifiedSet


def assemble(examples: Sequence[Example], wanted: Wanted, shared: Shared) -> ClassifiedSet:
    """Returns the set of examples that all have a label or a distribution."""
    known = known_labels(examples, wanted)
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
    return ClassifiedSet(
        classes=tuple(known),
        descriptions=tuple(known.values()),
        labels=labels,
        soft=soft,
        label_features=features_of_names(wanted.label_features, tuple(known), shared["features"].keys()),
        label_scale=wanted.label_features.scale if wanted.label_features else 0.0,
        **shared,
    )


def nothing_yet(wanted: Wanted) -> ClassifiedSet | None:
    """Returns the declared labels without any example, if their names alone can classify inputs; otherwise None."""
    found, known = wanted.label_features, known_labels([], wanted)
    if found is None or not found.scale or len(known) < 2:
        return None
    features = features_of_names(found, tuple(known), found.views.keys())
    if features is None:
        return None
    return ClassifiedSet(
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
