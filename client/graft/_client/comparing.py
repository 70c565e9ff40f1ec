"""Compares two versions of a model on the same examples: each is asked about all, and both are measured on the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from graft._client.sync import Client
from graft._records.evaluation.comparisons import AnswerChange, ClassChange, Comparison, Difference
from graft._records.evaluation.paired import of_proportions, of_sums
from graft._records.inputs.examples import Example, example_messages
from graft._records.inputs.label_cells import cell_of
from graft._records.predicting.predictions import Prediction
from graft._records.records import Version
from graft.errors import FailedPreconditionError
from graft.v1 import types_pb2

Target = frozenset[str] | float

_INTERVAL: Final = 2
"""So many examples have a jackknife."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one version says of all examples."""

    version: Version
    """The version."""
    answers: Sequence[Prediction | None]
    """Its answer to each example; None where it was not asked."""
    trained_on: frozenset[int]
    """The places of the examples that it was trained on, or on copies of them."""
    incomplete: bool
    """Whether some of what it was trained on can no longer be read."""


@dataclass(frozen=True, slots=True)
class _Row:
    """An example with its right answer, and both given ones."""

    index: int
    truth: Target
    first: Target
    second: Target
    weight: float


def require_comparable(first: Version, second: Version) -> None:
    """Raises FailedPreconditionError if two versions answer with different kinds of things."""
    if first.task != second.task:
        raise FailedPreconditionError(
            f"version {first.version} answers with {first.task.replace('_', '-')}, version {second.version} with "
            f"{second.task.replace('_', '-')}: they cannot be compared on examples"
        )


def compared(examples: Sequence[Example], first: Side, second: Side) -> Comparison:
    """Compares two versions by their answers to the same examples.

    Args:
        examples: The examples.
        first: What the first version says of them.
        second: What the second one says.
    """
    task = first.version.task
    rows, unlabelled, unanswered = _rows(examples, first, second)
    found = Comparison(
        model=first.version.model,
        first=first.version.version,
        second=second.version.version,
        task=task,
        examples=len(rows),
        figure="mean absolute error" if task == "regression" else "accuracy",
        first_figure=0.0,
        second_figure=0.0,
        difference=None,
        trained_on_first=tuple(sorted(first.trained_on)),
        trained_on_second=tuple(sorted(second.trained_on)),
        unlabelled=tuple(unlabelled),
        unanswered=tuple(unanswered),
        training_examples_missing=first.incomplete or second.incomplete,
    )
    if not rows:
        return found
    return _of_numbers(found, rows) if task == "regression" else _of_labels(found, rows, first, second)


def compare(
    client: Client,
    first: Version,
    second: Version,
    examples: Sequence[Example],
    on_progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Asks two versions of a model about examples, and compares their answers.

    Args:
        client: The client.
        first: The first version.
        second: The second one.
        examples: The examples. Those that either version was trained on, or copies of them, are left out.
        on_progress: Called with the share of the work that is done, 0 to 1.

    Raises:
        GraftError: The versions answer with different kinds of things, or are gone.
    """
    require_comparable(first, second)
    total, done = max(1, 4 * len(examples)), 0

    def step(count: int = 1) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(min(1.0, done / total))

    trained: list[frozenset[int]] = []
    incomplete: list[bool] = []
    for version in (first, second):
        sent = 0

        def on_sent(count: int) -> None:
            nonlocal sent
            step(count - sent)
            sent = count

        result = client.evaluate(
            version.model, examples, version=version.version, all_places=True, on_progress=on_sent
        )
        trained.append(frozenset(result.trained_on))
        incomplete.append(result.training_examples_missing)
    asked = [index for index in range(len(examples)) if not any(index in it for it in trained)]
    sides = []
    for version, own, missing in zip((first, second), trained, incomplete, strict=True):
        answers: list[Prediction | None] = [None] * len(examples)
        inputs = (examples[index].input for index in asked)
        found = client.predict_stream(version.model, inputs, version=version.version, top_k=1)
        for index, answer in zip(asked, found, strict=True):
            answers[index] = answer
            step()
        sides.append(Side(version, answers, own, missing))
    return compared(examples, sides[0], sides[1])


def _rows(examples: Sequence[Example], first: Side, second: Side) -> tuple[list[_Row], list[int], list[int]]:
    """The examples that count, and the places of those without a target, and of those without an answer."""
    task = first.version.task
    rows: list[_Row] = []
    unlabelled: list[int] = []
    unanswered: list[int] = []
    targets = example_messages((replace(it, input="") for it in examples), task)
    for index, message in enumerate(targets):
        if index in first.trained_on or index in second.trained_on:
            continue
        truth = _truth(message)
        own, other = first.answers[index], second.answers[index]
        weight = message.weight if message.HasField("weight") else 1.0
        if truth is None or not weight:
            unlabelled.append(index)
        elif own is None or other is None or own.error is not None or other.error is not None:
            unanswered.append(index)
        else:
            rows.append(_Row(index, truth, _answer(own), _answer(other), weight))
    return rows, unlabelled, unanswered


def _truth(message: types_pb2.Example) -> Target | None:
    match message.WhichOneof("target"):
        case "label":
            return frozenset((message.label,))
        case "label_set":
            return frozenset(message.label_set.labels)
        case "distribution":
            best = max(message.distribution.labels, key=lambda it: it.probability)
            return frozenset((best.label,))
        case "value":
            return message.value
    return None


def _answer(prediction: Prediction) -> Target:
    return prediction.value if prediction.value is not None else frozenset(prediction.labels)


def _shown(target: Target) -> str:
    if isinstance(target, float):
        return f"{target:.6g}"
    return next(iter(target)) if len(target) == 1 else cell_of(sorted(target))


def _of_labels(found: Comparison, rows: Sequence[_Row], first: Side, second: Side) -> Comparison:
    """The comparison of answers that are labels."""
    pairs = [(row.first == row.truth, row.second == row.truth) for row in rows]
    weight = sum(row.weight for row in rows)
    shares = [
        sum(row.weight * pair[at] for row, pair in zip(rows, pairs, strict=True)) / weight for at in (0, 1)
    ]
    known = [{it.name for it in side.version.labels} for side in (first, second)]
    carried = {label for row in rows for label in _labels(row.truth)}
    several = found.task == "multi_label"
    f1 = _micro_f1(rows) if several else None
    return replace(
        found,
        first_figure=shares[0],
        second_figure=shares[1],
        difference=_of_shares(rows, pairs),
        micro_f1=None if f1 is None else f1[:2],
        micro_f1_difference=None if f1 is None else f1[2],
        changes=tuple(_changes(rows, pairs)),
        per_class=_per_class(rows),
        unknown_labels=tuple(sorted(it for it in carried if not all(it in names for names in known))),
    )


def _of_shares(rows: Sequence[_Row], pairs: Sequence[tuple[bool, bool]]) -> Difference | None:
    if all(row.weight == rows[0].weight for row in rows):
        counts = Counter(pairs)
        return of_proportions(
            counts[True, True], counts[True, False], counts[False, True], counts[False, False]
        )
    if len(rows) < _INTERVAL:
        return None
    sums = [(row.weight * (right[1] - right[0]), row.weight) for row, right in zip(rows, pairs, strict=True)]
    return of_sums(sums, lambda it: it[0] / it[1] if it[1] else 0.0)


def _changes(rows: Sequence[_Row], pairs: Sequence[tuple[bool, bool]]) -> Iterator[AnswerChange]:
    for row, (before, after) in zip(rows, pairs, strict=True):
        if row.first != row.second:
            kind = "mended" if after else "broken" if before else "other"
            yield AnswerChange(row.index, _shown(row.truth), _shown(row.first), _shown(row.second), kind)


def _labels(target: Target) -> frozenset[str]:
    return frozenset() if isinstance(target, float) else target


def _per_class(rows: Sequence[_Row]) -> tuple[ClassChange, ...]:
    """How often each label that examples carry is given to them; those first that changed most."""
    counts: dict[str, list[int]] = {}
    for row in rows:
        for label in _labels(row.truth):
            found = counts.setdefault(label, [0, 0, 0])
            found[0] += 1
            found[1] += label in _labels(row.first)
            found[2] += label in _labels(row.second)
    classes = [ClassChange(label, *found) for label, found in counts.items()]
    return tuple(sorted(classes, key=lambda it: (-abs(it.second_right - it.first_right), it.label)))


def _micro_f1(rows: Sequence[_Row]) -> tuple[float, float, Difference | None]:
    """The micro-averaged F1 of both, 2 TP / (2 TP + FP + FN), and the difference."""
    sums = [
        tuple(
            row.weight * count
            for given in (_labels(row.first), _labels(row.second))
            for count in (len(given & _labels(row.truth)), len(given) + len(_labels(row.truth)))
        )
        for row in rows
    ]

    def f1(hits: float, both: float) -> float:
        return 2 * hits / both if both else 0.0

    totals = [sum(column) for column in zip(*sums, strict=True)]
    difference = (
        of_sums(sums, lambda it: f1(it[2], it[3]) - f1(it[0], it[1])) if len(rows) >= _INTERVAL else None
    )
    return f1(totals[0], totals[1]), f1(totals[2], totals[3]), difference


def _of_numbers(found: Comparison, rows: Sequence[_Row]) -> Comparison:
    """The comparison of answers that are numbers, by how far they are off."""
    errors = [(_error(row.first, row.truth), _error(row.second, row.truth)) for row in rows]
    weight = sum(row.weight for row in rows)
    means = [
        sum(row.weight * error[at] for row, error in zip(rows, errors, strict=True)) / weight for at in (0, 1)
    ]
    sums = [
        (row.weight * (after - before), row.weight) for row, (before, after) in zip(rows, errors, strict=True)
    ]
    changes = [
        AnswerChange(
            row.index,
            _shown(row.truth),
            _shown(row.first),
            _shown(row.second),
            "nearer" if after < before else "farther",
        )
        for row, (before, after) in zip(rows, errors, strict=True)
        if row.first != row.second
    ]
    return replace(
        found,
        first_figure=means[0],
        second_figure=means[1],
        difference=of_sums(sums, lambda it: it[0] / it[1] if it[1] else 0.0)
        if len(rows) >= _INTERVAL
        else None,
        changes=tuple(changes),
    )


def _error(answer: Target, truth: Target) -> float:
    return abs(answer - truth) if isinstance(answer, float) and isinstance(truth, float) else 0.0
