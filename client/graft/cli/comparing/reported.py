"""Two versions by what is stored of them: their reports, and the examples that they were made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from graft._client.sync import Client
from graft._records.records import Version
from graft._records.stored_examples import StoredExample
from graft._report import words
from graft.cli.showing import phrases
from graft.errors import GraftError

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class ExamplesChanged:
    """How the examples of the second version differ from those of the first."""

    added: int
    """Examples that only the second was made of."""
    removed: int
    """Those that only the first was made of."""
    relabelled: int
    """Those with another target in the second."""
    moved: int
    """Those of another split in the second."""
    same: int
    """Those of both that are the same in both."""
    held_out_alike: bool
    """Whether both hold out the same examples, with the same targets."""


def changed_examples(client: Client, first: Version, second: Version) -> ExamplesChanged | None:
    """How the examples of two versions differ; None where they cannot be read.

    They are told by their ids, or by their texts where no id is in both, as of files without ids that were sent twice.
    """
    try:
        before, after = (
            {it.id: it for it in client.examples(version.model, version=version.version)}
            for version in (first, second)
        )
        if before and after and not before.keys() & after.keys():
            before, after = (_by_text(client, version) for version in (first, second))
    except GraftError:
        return None
    both = before.keys() & after.keys()
    relabelled = sum(_target(before[it]) != _target(after[it]) for it in both)
    moved = sum((before[it].split == "validation") != (after[it].split == "validation") for it in both)
    same = sum(
        _target(before[it]) == _target(after[it])
        and (before[it].split == "validation") == (after[it].split == "validation")
        for it in both
    )
    return ExamplesChanged(
        added=len(after.keys() - both),
        removed=len(before.keys() - both),
        relabelled=relabelled,
        moved=moved,
        same=same,
        held_out_alike=_held_out(before) == _held_out(after),
    )


def _by_text(client: Client, version: Version) -> dict[str, StoredExample]:
    found = client.examples(version.model, version=version.version, include_inputs=True)
    return {it.id if it.text is None else f"text {it.text}": it for it in found}


def _held_out(examples: Mapping[str, StoredExample]) -> dict[str, Any]:
    return {key: _target(it) for key, it in examples.items() if it.split == "validation"}


def _target(example: StoredExample) -> Any:
    labels = None if example.labels is None else frozenset(example.labels)
    shares = None if example.distribution is None else tuple(sorted(example.distribution.items()))
    return example.label, labels, example.value, shares


def comparable(first: Version, second: Version, examples: ExamplesChanged | None) -> str:
    """Whether the figures of two reports can be set side by side, in one sentence."""
    one, other = first.report, second.report
    if not (words.stated(one) and words.stated(other)):
        missing = [it.version for it in (first, second) if not words.stated(it.report)]
        return f"version {' and '.join(map(str, missing))} was not measured: it had too few examples"
    if one.evaluation != other.evaluation:
        return (
            f"the figures cannot be set side by side: version {first.version} was measured by {words.measured(one)}, "
            f"version {second.version} by {words.measured(other)}"
        )
    if examples is None:
        return "whether the figures were measured on the same examples is not known: these cannot be read"
    alike = not (examples.added or examples.removed or examples.relabelled or examples.moved)
    return {
        ("held_out", True): "the figures were measured on the same held-out examples",
        ("held_out", False): "the figures cannot be set side by side: the held-out examples differ",
        ("cross_validation", True): "the figures were measured on the same examples, by cross-validation",
    }.get(
        (one.evaluation, examples.held_out_alike if one.evaluation == "held_out" else alike),
        "the figures cannot be set side by side: each was measured on its own examples, and these differ",
    )


def as_plain(first: Version, second: Version, examples: ExamplesChanged | None) -> dict[str, Any]:
    """Both for programs."""
    added, removed = _labels_changed(first, second)
    return {
        "first": first,
        "second": second,
        "examples": examples,
        "labels_added": added,
        "labels_removed": removed,
        "comparable": comparable(first, second, examples),
    }


def show(terminal: Terminal, first: Version, second: Version, examples: ExamplesChanged | None) -> None:
    """Shows both versions, what differs, and how to measure the difference."""
    facts = [_facts(it) for it in (first, second)]
    names = dict.fromkeys((*facts[0], *facts[1]))
    rows = [(name, facts[0].get(name, ""), facts[1].get(name, "")) for name in names]
    terminal.table(("", f"version {first.version}", f"version {second.version}"), rows)
    told = {"examples": _examples(examples), "labels": _labels(first, second)}
    terminal.facts({name: text for name, text in told.items() if text})
    said = comparable(first, second, examples)
    terminal.line(
        f"{said[0].upper()}{said[1:]}. To measure the difference: graft compare {first.model} {first.version} "
        f"{second.version} FILE, with labelled examples that neither was trained on."
    )


def _facts(version: Version) -> dict[str, str]:
    report = version.report
    return {
        "published": phrases.time(version.create_time),
        "aliases": ", ".join(version.aliases),
        "trained on": words.plural(report.examples, "example"),
        **(
            {"held out": words.plural(report.validation_examples, "example")}
            if report.validation_examples
            else {}
        ),
        "measured by": words.measured(report),
        **phrases.figures(report),
        "labels": f"{len(version.labels):,}" if version.labels else "",
        "backbone": report.backbone,
        "method": report.method,
        "head": words.head(report.head.kind, report.head.view, report.head.settings),
        "seed": str(report.seed),
    }


def _examples(found: ExamplesChanged | None) -> str:
    if found is None:
        return "cannot be read"
    if not found.same and not found.relabelled and not found.moved:
        return f"{found.added:,} and {found.removed:,} without an id or a text in common"
    counts = {
        "added": found.added,
        "removed": found.removed,
        "relabelled": found.relabelled,
        "moved into or out of what is held out": found.moved,
        "the same": found.same,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def _labels_changed(first: Version, second: Version) -> tuple[list[str], list[str]]:
    before, after = ({it.name for it in version.labels} for version in (first, second))
    return sorted(after - before), sorted(before - after)


def _labels(first: Version, second: Version) -> str:
    added, removed = _labels_changed(first, second)
    said = [
        f"{what} {', '.join(labels[:_NAMED])}{f' and {len(labels) - _NAMED} more' if len(labels) > _NAMED else ''}"
        for what, labels in (("added", added), ("removed", removed))
        if labels
    ]
    return "; ".join(said)
