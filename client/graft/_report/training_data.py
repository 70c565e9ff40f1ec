"""What the training examples themselves show, as sections of the report page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Final

from graft._records.evaluation.label_forms import spelled
from graft._records.evaluation.quotes import Quotes
from graft._records.evaluation.reports import (
    DuplicateGroup,
    ExampleRef,
    LabelError,
    MapPoint,
    Report,
    SimilarLabels,
)
from graft._report import charts, markup, words
from graft._report.thumbnails import shown_content

_ROOM: Final = 500
"""Characters of a text that is quoted."""
_MAX_COLOURED: Final = 16
"""Classes that each have a mark of their own on the map; of more, the worst are coloured."""


def feature_map(report: Report) -> str:
    """The examples on a plane."""
    points = report.feature_map
    if not points:
        return ""
    shown = f" A sample of {len(points):,} of {report.examples:,}." if len(points) < report.examples else ""
    drawn, legend = _map_of_values(points) if report.regression is not None else _map_of_classes(report)
    said = "Each point is a training example: the nearer, the more alike. Point at one for what it is."
    return markup.section(
        "How the examples lie",
        f'<p>{said}{shown}</p><div class="split"><figure class="wide">{drawn}</figure>'
        f'<div class="key">{legend}</div></div>',
    )


def _map_of_classes(report: Report) -> tuple[str, str]:
    """The map and its legend: the classes with the most errors, or the most frequent sets of labels, are coloured."""
    points = report.feature_map
    on_map, short = Counter(point.label for point in points), markup.shortened(report)
    errors = {entry.label: (1 - (entry.recall or 0.0)) * entry.support for entry in report.per_class}
    if report.multi_label is not None:
        errors = {label: float(count) for label, count in on_map.items()}
    coloured = sorted(on_map, key=lambda label: (-errors.get(label, 0.0), label))
    title = "Labels" if report.multi_label is not None else "Classes"
    if len(coloured) > _MAX_COLOURED:
        coloured = coloured[: charts.HUES]
        title = "Most frequent" if report.multi_label is not None else "Most errors"
    items = "".join(f"<li>{charts.swatch(index)}{short(label)}</li>" for index, label in enumerate(coloured))
    rest = len(on_map) - len(coloured)
    one, many = ("other set", "") if report.multi_label is not None else ("other class", "other classes")
    others = f'<li class="soft">grey: {words.plural(rest, one, many)}</li>'
    legend = f'<h3>{title}</h3><ul class="plain legend">{items}{others if rest else ""}</ul>'
    return charts.feature_map(points, coloured), legend


def _map_of_values(points: Sequence[MapPoint]) -> tuple[str, str]:
    """The map and its legend: equally many points have each colour, from small values to large ones."""
    values = [float(point.label) for point in points]
    ordered = sorted(values)
    edges = sorted({ordered[len(ordered) * step // charts.STEPS] for step in range(1, charts.STEPS)})
    steps = [sum(value >= edge for edge in edges) for value in values]
    items = []
    for step in sorted(set(steps)):
        inside = [value for value, place in zip(values, steps, strict=True) if place == step]
        low, high = words.number(min(inside)), words.number(max(inside))
        items.append(f"<li>{charts.swatch(step, step=True)}{low if low == high else f'{low} to {high}'}</li>")
    legend = f'<h3>Values</h3><ul class="plain legend">{"".join(items)}</ul>'
    return charts.feature_map(points, [], steps=steps), legend


def look_alikes(report: Report) -> str:
    """The largest groups of look-alikes, and the figure with such groups held out."""
    found = report.look_alikes
    if found is None:
        return ""
    said = (
        f"With whole groups of look-alikes held out, {words.percent(found.accuracy)} of the answers are right (95% "
        f"interval {words.interval(found.low, found.high)}). {words.plural(found.examples, 'example')} are in "
        f"{words.plural(found.groups, 'group')}; the largest:"
    )
    return markup.section(
        "Look-alikes", f"<p>{said}</p>{_groups(found.largest, 'Labels', report.quotes)}", kind="long"
    )


def findings(report: Report) -> str:
    """Duplicates, contradictions and labels worth a second look."""
    data = report.data
    if data is None:
        return ""
    conflicting = f"inputs {words.CONFLICTS[report.task]}"
    counts = {
        "labels worth a second look": f"{data.probable_label_errors:,}",
        conflicting: f"{data.conflicting_inputs:,}",
        "exact duplicates": f"{data.exact_duplicates:,}",
        "near duplicates": f"{data.near_duplicates:,}",
        "held out with their copies": f"{data.bound_examples:,}",
    }
    if report.regression is not None:
        del counts["labels worth a second look"]
    if data.confirmed_examples:
        counts["confirmed labels"] = f"{data.confirmed_examples:,}"
    if data.unlabelled_examples:
        counts["unlabelled examples"] = f"{data.unlabelled_examples:,}"
    labels = data.similar_labels or data.unlabelled_examples
    copies = data.exact_duplicates or data.near_duplicates or data.bound_examples or data.validation_copies
    if not (data.label_errors or data.conflicting_inputs or copies or labels):
        errors = "" if report.regression is not None else ", no labels worth a second look"
        return markup.section("What the data shows", f"<p>No duplicates, no contradictions{errors}.</p>")
    tiles = "".join(f"<div><dt>{name}</dt><dd>{count}</dd></div>" for name, count in counts.items())
    heads = ("Example", "Has the label", "Its probability", "More likely", "Its probability")
    if report.multi_label is not None:
        heads = ("Example", "Carries", "Probability", "More likely carries", "Probability")
    quotes = report.quotes
    errors = markup.folded_table(
        heads, [_error(one, quotes) for one in data.label_errors], numbers=(2, 4), extra=(2,)
    )
    kind = "Values" if report.regression is not None else "Labels"
    findings = [
        (
            "Similar labels",
            "They differ by case, spacing, punctuation or invisible characters only, and may be meant as one.",
            _similar(data.similar_labels),
        ),
        (
            "Labels worth a second look",
            "The most doubtful first. Some are wrong, others merely hard to see: look before you change one.",
            errors,
        ),
        (
            conflicting.capitalize(),
            f"The same input, with {'values' if report.regression else 'labels'} that contradict each other.",
            _groups(data.conflicts, kind, quotes, same=True),
        ),
        (
            "Exact duplicates",
            "What the backbone reads as one input.",
            _groups(data.duplicate_groups, kind, quotes, same=True),
        ),
        (
            "Near duplicates",
            "Different inputs that the backbone can hardly tell apart.",
            _groups(data.near_duplicate_pairs, kind, quotes),
        ),
        (
            "Held-out copies",
            "Validation examples that training examples are copies of: they are not measured on.",
            _groups(data.validation_copy_pairs, kind, quotes),
        ),
    ]
    lists = "".join(
        f'<h3>{title}</h3><p class="soft">{note}</p>{rows}' for title, note, rows in findings if rows
    )
    said = f'<p class="soft">{escape(quotes.said)}</p>' if quotes is not None and quotes.said else ""
    return markup.section("What the data shows", f'<dl class="counts">{tiles}</dl>{said}{lists}', kind="long")


def _similar(groups: Sequence[SimilarLabels]) -> str:
    rows = [
        [", ".join(f"{escape(spelled(it.label))} × {it.examples:,}" for it in group.labels)]
        for group in groups
    ]
    return markup.folded_table(("Labels and their examples",), rows, numbers=())


def _error(one: LabelError, quotes: Quotes | None) -> list[str]:
    return [
        _quoted([one.example], words.reference(one.example), quotes, same=True),
        markup.label(one.example.label),
        _probability(one.probability),
        f"<strong>{markup.label(one.suggested)}</strong>",
        _probability(one.suggested_probability),
    ]


def _quoted(examples: Sequence[ExampleRef], ids: str, quotes: Quotes | None, *, same: bool) -> str:
    """The examples' texts or pictures, where they may be read, with their ids and where they came from.

    Args:
        examples: The examples.
        ids: Their ids in words.
        quotes: What they are; None: nobody asked.
        same: Whether all have the same input, so that one is shown.
    """
    if quotes is None:
        return markup.name(ids)
    found = [quotes.of(it.id) for it in examples]
    shown: list[str] = []
    for quote in found:
        content = shown_content(quote.content) if quote.content else ""
        text = (
            f'<span class="quote">{markup.text(charts.cut(quote.text, _ROOM))}</span>' if quote.text else ""
        )
        if (content or text) and not (same and shown):
            shown.append(content + text)
    origins = ", ".join(dict.fromkeys(it.origin for it in found if it.origin))
    below = f"{markup.name(origins)} · {markup.name(ids)}" if origins else markup.name(ids)
    return "".join(shown) + (f'<span class="soft">{below}</span>' if shown or origins else below)


def _probability(value: float) -> str:
    return words.percent(value) if value >= 0.001 else "&lt;0.1%"


def _groups(
    groups: Sequence[DuplicateGroup], kind: str, quotes: Quotes | None = None, *, same: bool = False
) -> str:
    rows = []
    for group in groups:
        labels = Counter(example.label for example in group.examples)
        names = ", ".join(
            markup.label(label) + (f" × {count}" if count > 1 else "") for label, count in labels.items()
        )
        quoted = _quoted(group.examples, words.references(group), quotes, same=same)
        rows.append([quoted, names, f"{group.similarity:.3f}"])
    return markup.folded_table(("Examples", kind, "Similarity"), rows, numbers=(2,))
