"""What a review goes through: examples of a version that a person should look at, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from graft._client.sync import Client
from graft._records.evaluation.reports import DuplicateGroup
from graft._records.inputs.label_cells import cell_of
from graft._records.records import Version
from graft._records.stored_examples import StoredExample

Target = str | tuple[str, ...] | float
"""A label, the labels that apply, or a number."""


@dataclass(frozen=True, slots=True)
class Item:
    """An example to look at."""

    example: StoredExample
    """The example, without its input."""
    suggested: Target | None = None
    """What it should probably be answered with; None: nothing is suggested."""
    probability: float | None = None
    """The probability of its own label, 0 to 1, where that is known."""
    suggested_probability: float | None = None
    """The probability of the suggested one."""
    note: str = ""
    """Why it is looked at, where that is not its doubtful label."""

    @property
    def target(self) -> Target:
        """Its label (of a distribution the likeliest), the labels that apply, or its number; "" where it has none."""
        found = self.example.target
        if isinstance(found, Mapping):
            return max(found, key=found.__getitem__, default="")
        return "" if found is None else found


def in_words(target: Target) -> str:
    """A target in one cell."""
    if isinstance(target, float):
        return f"{target:.6g}"
    return target if isinstance(target, str) else cell_of(target)


def errors_of(client: Client, version: Version) -> list[Item]:
    """The labels worth a second look, least likely first."""
    found = client.probable_errors(version.model, version.version, include_inputs=False)
    return [Item(it.example, it.suggested, it.probability, it.suggested_probability) for it in found]


def conflicts_of(client: Client, version: Version) -> list[Item]:
    """The examples whose input occurs under several labels: the ones that are not confirmed, group by group."""
    data = version.report.data
    items = []
    for group, examples in _groups(client, version, () if data is None else data.conflicts):
        labels = Counter(in_words(Item(it).target) for it in examples)
        confirmed = [it for it in examples if it.confirmed]
        usual = confirmed or [
            it for it in examples if in_words(Item(it).target) == labels.most_common(1)[0][0]
        ]
        clear = bool(confirmed) or len(set(labels.values())) > 1
        counts = ", ".join(f"{label} × {count}" for label, count in labels.most_common())
        for example in examples:
            suggested = Item(usual[0]).target
            other = suggested if clear and suggested != Item(example).target else None
            note = f"the same input has {counts}" + (
                f" (of {group.count:,})" if group.count > len(examples) else ""
            )
            if not example.confirmed:
                items.append(Item(example, other, note=note))
    return items


def duplicates_of(client: Client, version: Version) -> list[Item]:
    """The examples that repeat an earlier one, group by group; the first of a group is not asked about."""
    data = version.report.data
    groups = _groups(client, version, () if data is None else data.duplicate_groups)
    return [
        Item(example, note=f"the same input as {examples[0].origin or examples[0].id}")
        for _, examples in groups
        for example in examples[1:]
        if not example.confirmed
    ]


def _groups(
    client: Client, version: Version, groups: Sequence[DuplicateGroup]
) -> Iterator[tuple[DuplicateGroup, list[StoredExample]]]:
    ids = [one.id for group in groups for one in group.examples]
    found = {it.id: it for it in client.examples(version.model, version=version.version, ids=ids)}
    for group in groups:
        if examples := [found[one.id] for one in group.examples if one.id in found]:
            yield group, examples
