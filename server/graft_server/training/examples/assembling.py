"""From a lineage's rows to a task's training set: the usable examples, with their targets as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import StateError
from graft_server.domain.examples import Example, Input, Kind, Split
from graft_server.domain.label_forms import looks_like_a_list, similar, spelled
from graft_server.domain.names import shown
from graft_server.domain.report import DataReport, SimilarLabels, UnlabelledReport
from graft_server.domain.wording import wording_digest
from graft_server.store.adaptations.training_rows import Rows
from graft_server.training.contract import LabelFeatures, Wanted
from graft_server.training.examples.training_set import ExampleSet

_NOTHING = "There is nothing to train on"
UNLABELLED = 2_000
"""The most inputs without a target that are looked at: the newest. With more, training takes more than twice as long on
77 classes; what they add falls with the logarithm of their number."""
NAMED = 5
"""The most groups of similar labels that a warning names."""

Shared = dict[str, Any]
"""The fields of an `ExampleSet`, by name, which the sets of all tasks have."""
Set = TypeVar("Set", bound=ExampleSet)
Set_co = TypeVar("Set_co", bound=ExampleSet, covariant=True)


class Build(Protocol[Set_co]):
    """Makes a task's set from examples that all have a target."""

    def __call__(self, examples: Sequence[Example], wanted: Wanted, shared: Shared, /) -> Set_co:
        """Returns the set, with the fields of all sets."""


@dataclass(frozen=True, slots=True)
class NothingToTrainOn:
    """The failure of a commit whose examples cannot be trained on."""

    needed: str
    """The task's minimum, as the beginning of a sentence."""
    reason: str = "TOO_FEW_CLASSES"
    metadata: Mapping[str, str] = field(default_factory=dict)
    target: str = "label"
    """The target that an example has to carry."""

    def error(self, examples: int, labelled: int, refused: Mapping[str, int]) -> StateError:
        """Returns the error.

        Args:
            examples: The number of examples.
            labelled: The number of those with a target.
            refused: The number of refused ones, by the reason.
        """
        count = sum(refused.values())
        if count and not examples:
            what = "The only example was refused" if count == 1 else f"All {count:,} examples were refused"
            found = f"{what} ({reasons(refused)})"
        elif labelled:
            found = (
                f"{_NOTHING}: none of the {labelled:,} labelled examples carries a label of the closed set"
            )
        elif examples:
            found = f"{_NOTHING}: none of the {examples:,} examples carries a {self.target}"
        else:
            found = f"{_NOTHING}: no example came in"
        return StateError(
            f"{found}. {self.needed}: send some, then commit again.",
            reason=self.reason,
            metadata=dict(self.metadata),
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What the examples of a commit show before any of them is trained on."""

    unlabelled: int = 0
    """Examples without a target."""
    others: int = 0
    """Labelled examples whose labels are not among the closed ones."""
    replaced: int = 0
    """See `Rows`."""
    overruled: int = 0
    """Examples whose confirmed target was replaced by one that is not confirmed."""
    similar: tuple[SimilarLabels, ...] = ()
    """Labels that a person would read as one."""
    lists: tuple[str, ...] = ()
    """Labels that look like lists of labels."""
    target: str = "label"
    """What an example of the task carries."""

    def warnings(self, tried: UnlabelledReport | None = None) -> list[str]:
        """The same in sentences.

        Args:
            tried: What training made of examples without a target.
        """
        warnings = []
        if self.unlabelled and (tried is None or not tried.kept):
            in_vain = ", and did not make the head better" if tried is not None and tried.used else ""
            warnings.append(
                f"{self.unlabelled:,} examples were left out: they have no {self.target}{in_vain}."
            )
        if self.others:
            others = "their labels are not among the closed ones"
            warnings.append(f"{self.others:,} examples were left out: {others}.")
        if self.replaced:
            warnings.append(
                f"{self.replaced:,} examples were replaced by later ones with the same id and another input: if these "
                "are no corrections, give each input an id of its own, or none."
            )
        if self.overruled:
            warnings.append(
                f"{self.overruled:,} {self.target}s that a person had confirmed were replaced by others that nobody "
                "confirmed, as an older file has them: 'graft review' asks about those that are doubtful."
            )
        if self.similar:
            warnings.append(_asked(self.similar))
        if self.lists:
            found = f"{len(self.lists):,} labels look like lists of labels, such as {self.lists[0]}"
            warnings.append(f"{found}: each counts as one label. If they are lists, send sets of labels.")
        return warnings

    def within(self, data: DataReport | None) -> DataReport | None:
        """The findings in the data, with these among them."""
        if data is None:
            return None
        return replace(data, unlabelled_examples=self.unlabelled, similar_labels=self.similar)


def assembled(rows: Rows, wanted: Wanted, build: Build[Set], nothing: NothingToTrainOn) -> tuple[Set, Seen]:
    """Returns the labelled examples as arrays, and what was seen of all.

    Args:
        rows: The rows of a lineage.
        wanted: The adaptation's settings for its targets.
        build: Makes the task's set from some examples.
        nothing: The failure if none can be trained on.

    Raises:
        StateError: No example can be trained on (TOO_FEW_CLASSES, TOO_FEW_EXAMPLES).
    """
    labelled = [i for i, it in enumerate(rows.examples) if it.labelled]
    kept = labelled
    if wanted.closed_labels:
        allowed = {label.name for label in wanted.labels}
        kept = [i for i in labelled if allowed.issuperset(rows.examples[i].labels)]
    if not kept:
        raise nothing.error(len(rows.examples), len(labelled), rows.refused)
    examples = [rows.examples[i] for i in kept]
    shared: Shared = {
        "weights": np.array([it.weight for it in examples], np.float64),
        "validation": np.array([it.split is Split.VALIDATION for it in examples]),
        "groups": _groups(examples),
        "ids": tuple(it.id for it in examples),
        "origins": tuple(rows.origins[i] for i in kept),
        "input_digests": tuple(it.input.digest() for it in examples),
        "features": {view: array[kept] for view, array in rows.features.items()},
        "confirmed": _confirmed(examples),
        "wordings": tuple(wording_digest(it.input) for it in examples),
        "recorded": all(it.input.kind in (Kind.IMAGE, Kind.AUDIO) for it in examples),
    }
    left_out = set(labelled) - set(kept)
    known = {*shared["input_digests"], *shared["wordings"]}.union(
        *(_same(rows.examples[i].input) for i in left_out)
    )
    shared["unlabelled"] = _unlabelled(rows, known) if len(labelled) < len(rows.examples) else {}
    seen = Seen(
        unlabelled=len(rows.examples) - len(labelled),
        others=len(labelled) - len(kept),
        replaced=rows.replaced,
        overruled=sum(it in rows.lineage.rows for it in rows.lineage.overruled),
        similar=similar_labels(examples, wanted),
        lists=_lists(examples),
        target=nothing.target,
    )
    return build(examples, wanted, shared), seen


def _unlabelled(rows: Rows, known: set[bytes]) -> dict[str, NDArray[np.float16]]:
    """Returns the features of the newest inputs without a target, oldest first, none of them a copy of another one.

    A copy of a labelled input says nothing new, and where it is held out, heads must not know where it lies.

    Args:
        rows: The rows of a lineage.
        known: Digests of the labelled inputs.
    """
    kept: list[int] = []
    for i in reversed(range(len(rows.examples))):
        it = rows.examples[i]
        if it.labelled or not it.weight > 0 or not known.isdisjoint(same := _same(it.input)):
            continue
        if not all(np.isfinite(array[i]).all() for array in rows.features.values()):
            continue
        known |= same
        kept.append(i)
        if len(kept) == UNLABELLED:
            break
    return {view: array[kept[::-1]] for view, array in rows.features.items()} if kept else {}


def _same(value: Input) -> set[bytes]:
    """Digests of which copies share one."""
    return {value.digest(), wording_digest(value)} - {b""}


def reasons(refused: Mapping[str, int]) -> str:
    """Says how many examples were refused for each reason."""
    return ", ".join(f"{reason} {count:,}" for reason, count in refused.items())


def came_in(rows: Rows, target: str = "label") -> str:
    """Says in a sentence what came in: examples by their labels, unlabelled ones, and refused ones by the reason.

    Args:
        rows: The rows of a lineage.
        target: What an example of the task carries.
    """
    found = []
    unlabelled = sum(not it.labelled for it in rows.examples)
    if carrying := len(rows.examples) - unlabelled:
        counts = Counter(label for it in rows.examples for label in it.labels)
        named = ", ".join(f"{shown(label)} ({count:,})" for label, count in counts.most_common(NAMED))
        more = f" and {len(counts) - NAMED:,} more" if len(counts) > NAMED else ""
        labels = f", by label {named}{more}" if counts else ""
        found.append(f"{carrying:,} with a {target}{labels}")
    if unlabelled:
        found.append(f"{unlabelled:,} without a {target}")
    if rows.refused and found:  # else the error itself tells them
        found.append(f"{sum(rows.refused.values()):,} refused ({reasons(rows.refused)})")
    return f"Of the examples that came in: {'; '.join(found)}." if found else ""


def known_labels(examples: Sequence[Example], wanted: Wanted) -> dict[str, str]:
    """Returns every label with its description: the declared ones in order, then the examples' others, sorted."""
    known = {label.name: label.description for label in wanted.labels}
    seen = {label for it in examples for label in it.labels}
    return known | dict.fromkeys(sorted(seen - known.keys()), "")


def features_of_names(
    found: LabelFeatures | None, classes: tuple[str, ...], views: Collection[str]
) -> dict[str, NDArray[np.float16]] | None:
    """Returns features of the classes' names, (k, d) by view of the examples, if all names have features."""
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
    """Returns one number per group; an example without a group is a group of its own."""
    numbers: dict[tuple[str, int], int] = {}
    keys = ((it.group, -1) if it.group else ("", i) for i, it in enumerate(examples))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _confirmed(examples: Sequence[Example]) -> frozenset[str]:
    """Returns the ids of the examples that a person has confirmed, or another one of the same input and target."""
    kept = {(it.input.digest(), it.target) for it in examples if it.confirmed}
    if not kept:
        return frozenset()
    return frozenset(it.id for it in examples if (it.input.digest(), it.target) in kept)


def similar_labels(examples: Sequence[Example], wanted: Wanted) -> tuple[SimilarLabels, ...]:
    """Groups of labels, declared or carried by some example, that a person would read as one."""
    carried = Counter(dict.fromkeys((label.name for label in wanted.labels), 0))
    carried.update(label for it in examples for label in set(it.labels))
    return similar(carried)


def _lists(examples: Sequence[Example]) -> tuple[str, ...]:
    labels = dict.fromkeys(label for it in examples for label in it.labels)
    return tuple(label for label in labels if looks_like_a_list(label))


def _asked(groups: Sequence[SimilarLabels]) -> str:
    """The question whether similar labels are meant as one, naming the first groups."""
    named = "; ".join(
        " and ".join(f"{spelled(it.label)} ({it.examples:,})" for it in group.labels)
        for group in groups[:NAMED]
    )
    more = f"; and {len(groups) - NAMED:,} more groups" if len(groups) > NAMED else ""
    return (
        f"Labels differ only by case, spacing, punctuation or invisible characters: {named}{more}. If they are meant "
        "as one, give them one name: 'graft adapt --merge-labels' takes the most frequent."
    )
