"""Training examples that are longer than the backbone reads: how many, of which classes, and what helps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from graft_server.domain.report import ClassReport, Report
from graft_server.store.adaptations.training_rows import Rows
from graft_server.training.examples.folded import usable
from graft_server.training.examples.training_set import ExampleSet

NAMED = 3
"""The most classes that the warning names."""


def with_truncated(report: Report, train: ExampleSet, rows: Rows, longest: str) -> Report:
    """Returns the report with the numbers of truncated examples, and a warning if there are any.

    Args:
        report: The report of a head.
        train: The examples, of which those with `validation` were not trained on.
        rows: The rows of the lineage from which `train` was made.
        longest: What the backbone reads of an input at most, in words; "" if that is not known.
    """
    truncated = {it.id for it, cut in zip(rows.examples, rows.truncated, strict=True) if cut}
    if not truncated or not len(train):
        return report
    trained = np.flatnonzero(usable(train) & ~train.validation)
    cut = [row for row in trained if train.ids[row] in truncated]
    if not cut:
        return report
    of_class: Counter[str] = Counter()
    for row in cut:
        of_class.update(train.carried(int(row)))
    per_class = tuple(replace(it, truncated=of_class[it.label]) for it in report.per_class)
    return replace(
        report,
        truncated_examples=len(cut),
        per_class=per_class,
        warnings=(*report.warnings, _warning(len(cut), len(trained), per_class, longest)),
    )


def with_truncated_of(report: Report, other: Report) -> Report:
    """Returns a report with the numbers of truncated examples of another one on the same examples."""
    of_class = {it.label: it.truncated for it in other.per_class}
    per_class = tuple(replace(it, truncated=of_class.get(it.label, 0)) for it in report.per_class)
    return replace(report, truncated_examples=other.truncated_examples, per_class=per_class)


def _warning(cut: int, examples: int, per_class: tuple[ClassReport, ...], longest: str) -> str:
    reads = f"the {longest} that the backbone reads" if longest else "the backbone reads"
    whose = f"{cut:,} of {examples:,}" if cut < examples else f"All {examples:,}"
    return (
        f"{whose} training examples are longer than {reads}, so their end was cut off{_classes(cut, per_class)}: "
        "what stands there is not known to the model. Put what matters first, shorten or split long inputs, or take "
        "a backbone that reads more."
    )


def _classes(cut: int, per_class: tuple[ClassReport, ...]) -> str:
    """Names the classes with the largest shares, where the shares differ."""
    shares = sorted(
        ((it.truncated / it.examples, it) for it in per_class if it.truncated and it.examples),
        key=lambda found: (-found[0], -found[1].truncated),
    )
    least = min((it.truncated / it.examples for it in per_class if it.examples), default=0.0)
    if not shares or shares[0][0] <= least:
        return ""
    named = ", ".join(f"{it.label} {it.truncated:,} of {it.examples:,}" for _, it in shares[:NAMED])
    more = sum(it.truncated for _, it in shares) > sum(it.truncated for _, it in shares[:NAMED])
    return f" (most in {named})" if more and cut else f" ({named})"
