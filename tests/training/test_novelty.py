"""How strange inputs of the known classes look to a head, and inputs of none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graft_server.heads import ABSTAIN_ABOVE
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.tasks.single_label.selection import select_single_label

MakeSet = Callable[..., ClassifiedSet]
CLASSES, EACH = 6, 60


def false_alarms(train: ClassifiedSet, make_set: MakeSet) -> float:
    """The share of 6,000 new inputs of the classes that the head abstains on."""
    fresh = make_set([1000] * CLASSES, noise=1.2, seed=21).features["pooled"].astype(np.float32)
    return float((select_single_label(train, seed=0).head.scores(fresh).novelty > ABSTAIN_ABOVE).mean())


def test_a_head_abstains_on_new_inputs_of_its_classes_as_often_as_it_states(make_set: MakeSet) -> None:
    found = [false_alarms(make_set([EACH] * CLASSES, noise=1.2, seed=seed), make_set) for seed in range(3)]
    assert np.mean(found) == pytest.approx(1 - ABSTAIN_ABOVE, abs=0.02)


def test_twins_among_the_examples_do_not_make_a_head_abstain_more_often(make_set: MakeSet) -> None:
    train = make_set([EACH] * CLASSES, noise=1.2)
    features = train.features["pooled"].copy()
    # Every fifth example is written after the template of the one before.
    copies = np.arange(4, len(train), 5)
    features[copies] = features[copies - 1] + np.random.default_rng(5).normal(0, 0.005, (len(copies), 32))
    with_twins = false_alarms(replace(train, features={"pooled": features}), make_set)
    without = false_alarms(replace(train, validation=np.arange(len(train)) % 5 == 4), make_set)
    assert with_twins == pytest.approx(without, abs=0.02)
