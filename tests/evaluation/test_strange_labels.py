"""Figures on examples that carry labels which the version does not know: any number of them, in little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest

from graft_server.domain.examples import Example, Input, Share
from graft_server.evaluation import figures as single
from graft_server.evaluation import multi_label, single_label
from graft_server.evaluation.answered import Answered

KNOWN = ("a", "b", "c")
THRESHOLDS = np.array([0.5, 0.4, 0.6], np.float32)


def dense(examples: Sequence[Example], names: Sequence[str]) -> np.ndarray:
    """The share of each label in each target, shape (n, names)."""
    found = np.zeros((len(examples), len(names)), np.float32)
    for row, example in zip(found, examples, strict=True):
        for share in example.distribution or [Share(it, 1.0) for it in example.labels]:
            row[names.index(share.label)] = share.probability
    return found


def padded(output: np.ndarray, columns: int) -> np.ndarray:
    return np.pad(output, ((0, 0), (0, columns - output.shape[1])))


def test_one_label_is_measured_as_if_every_strange_label_had_a_column_of_its_own():
    rng = np.random.default_rng(0)
    names = (*KNOWN, "x", "y", "z")
    examples = [
        Example("", Input(""), label=str(rng.choice(names)), weight=float(rng.choice([0, 1, 2])))
        for _ in range(60)
    ]
    examples += [
        Example("", Input(""), distribution=(Share("a", 0.4), Share(strange, 0.6))) for strange in ("x", "z")
    ]
    probabilities = rng.dirichlet(np.ones(3), len(examples)).astype(np.float32)
    answered = Answered(KNOWN, examples, {"probabilities": probabilities})
    found = single_label.measure(answered)
    soft, wide = dense(examples, names), padded(probabilities, len(names))
    labels = soft.argmax(axis=1).astype(np.int32)
    expected = single.figures(wide, labels, answered.weights, soft, bound=answered.bound())
    for figure in ("accuracy", "macro_f1", "log_loss", "calibration_error"):
        assert getattr(found.figures, figure) == pytest.approx(getattr(expected, figure), abs=1e-6), figure
    assert {it.label: it.support for it in found.per_class} == {
        name: int((labels == place).sum()) for place, name in enumerate(names)
    }
    assert any(it.label == "x" for it in found.confusions)


def test_several_labels_are_measured_as_if_every_strange_label_had_a_column_of_its_own():
    rng = np.random.default_rng(1)
    names = (*KNOWN, "x", "y", "z")
    examples = [
        Example(
            "",
            Input(""),
            label_set=tuple(rng.choice(names, rng.integers(0, 4), replace=False).tolist()),
            weight=float(rng.choice([0, 1, 2])),
        )
        for _ in range(60)
    ]
    probabilities = rng.random((60, 3)).astype(np.float32)
    selected = probabilities >= THRESHOLDS
    answered = Answered(KNOWN, examples, {"probabilities": probabilities, "selected": selected})
    found = multi_label.measure(answered, THRESHOLDS)
    expected = multi_label.figures(
        padded(probabilities, 6), padded(selected, 6), dense(examples, names) > 0, answered.weights,
        bound=answered.bound(),
    )  # fmt: skip
    for figure in ("accuracy", "macro_f1", "log_loss", "calibration_error"):
        assert getattr(found.figures, figure) == pytest.approx(getattr(expected.figures, figure), abs=1e-6)
    for figure in ("micro_f1", "hamming_loss", "labels_per_example", "selected_per_example"):
        assert getattr(found.multi_label, figure) == pytest.approx(getattr(expected.further, figure)), figure
    by_name = {it.label: it for it in found.per_class}
    for place, name in enumerate(names):
        assert by_name[name].recall == pytest.approx(expected.recall[place])
        assert by_name[name].precision == pytest.approx(expected.precision[place])


@pytest.mark.parametrize("task", ["one label", "several"])
def test_thousands_of_strange_labels_take_no_memory_of_their_own(task):
    n = 12_000
    outputs = {"probabilities": np.full((n, 3), 1 / 3, np.float32), "selected": np.zeros((n, 3), bool)}
    targets = [
        {"label": f"own {it}"} if task == "one label" else {"label_set": (f"own {it}",)} for it in range(n)
    ]
    examples = [Example("", Input(""), **it) for it in targets]  # type: ignore[arg-type]
    answered = Answered(KNOWN, examples, outputs)
    tracemalloc.start()
    one = task == "one label"
    found = single_label.measure(answered) if one else multi_label.measure(answered, THRESHOLDS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.figures.accuracy == 0
    assert len(found.per_class) == n
    assert peak < 40e6
