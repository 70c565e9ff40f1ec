"""Charts as SVG text, to be put into a page whose style sheet includes `charts.css`.

They take their colours from the page, so that they follow it from light to dark. Every text that comes from
outside goes through `_text` or `_title`, which escape it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from graft._records.evaluation.reports import CurvePoint, MapPoint, PredictedValue, ReliabilityBin
from graft._report import words

HUES: Final = 8
"""Colours that are told apart; `.hue0` to `.hue7` in a page."""
STEPS: Final = 7
"""Colours from little to much, `.step0` to `.step6`."""


_WIDTH: Final = 520
_HEIGHT: Final = 320
_LEFT: Final = 46
_RIGHT: Final = 504
_TOP: Final = 30
_BOTTOM: Final = 276
_TICK_ROOM: Final = 46
"""Between labels along an axis."""
NO_LABEL: Final = "no label"
"""What a set without a label is called."""
_Z80: Final = 1.2816
"""Standard deviations within which 80% of a normal distribution lie."""


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places along an axis."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value is."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Grid:
    """A confusion matrix, or the part of one that matters. Shares are of the examples of the row's class."""

    labels: tuple[str, ...]
    """Of the rows and of the columns."""
    right: tuple[float, ...]
    """The share that was answered right, a class."""
    wrong: Mapping[tuple[int, int], int]
    """How many examples of a row's class were answered with a column's; only those above 0."""
    support: tuple[int, ...]
    """How many examples were evaluated, a class."""

    def share(self, row: int, column: int) -> float:
        """The share of the row's class that was answered with the column's."""
        if row == column:
            return self.right[row]
        return self.wrong.get((row, column), 0) / self.support[row] if self.support[row] else 0.0

    def other(self, row: int) -> float:
        """The share that was answered with a class that has no column, or too seldom to be listed."""
        if not self.support[row]:
            return 0.0
        rest = 1 - sum(self.share(row, column) for column in range(len(self.labels)))
        # Weighted examples make shares that do not add up to 1.
        return rest if rest > 1e-6 else 0.0


def reliability(bins: Sequence[ReliabilityBin], *, sets: bool = False) -> str:
    """Accuracy over confidence, with 80% intervals, and how many answers (or decisions, of sets) have each confidence.

    Most decisions about a label of many are sure to be against it: their counts are drawn as logarithms.
    """
    size = math.log1p if sets else float
    floor, base = 212, _BOTTOM
    across, up = Scale(0, 1, _LEFT, _RIGHT), Scale(0, 1, floor, _TOP)
    most = max((one.examples for one in bins), default=0) or 1
    parts = [_line(across(0), up(0), across(1), up(1), "ideal")]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.insert(0, _line(_LEFT, up(tick), _RIGHT, up(tick), "grid"))
        parts.append(_text(_LEFT - 8, up(tick) + 4, f"{tick:.0%}", "end"))
        parts.append(_text(across(tick), base + 17, f"{tick:.0%}", "mid"))
    along = "probability given to a label" if sets else "probability given to the answer"
    parts.append(_text((_LEFT + _RIGHT) / 2, base + 36, along, "mid"))
    parts.append(_text(0, 14, "share that applies" if sets else "share of answers that are right"))
    parts.append(_text(_LEFT - 8, base, "count", "end"))
    parts.append(_line(_LEFT, base, _RIGHT, base, "grid"))
    width = (_RIGHT - _LEFT) / (len(bins) or 1)
    shown = [(index, one) for index, one in enumerate(bins) if one.examples]
    for index, one in shown:
        height = max((base - floor - 14) * size(one.examples) / size(most), 1)
        parts.append(
            _rect(
                _LEFT + index * width + 1.5,
                base - height,
                width - 3,
                height,
                kind="bar",
                title=_said(one, sets=sets),
            )
        )
    points = [(one, one.confidence or 0.0, one.accuracy or 0.0) for _, one in shown]
    for one, confidence, accuracy in points:
        low, high = wilson(accuracy, one.examples)
        parts.append(_line(across(confidence), up(low), across(confidence), up(high), "whisker"))
    for one, confidence, accuracy in points:
        radius = 3.5 + 5 * math.sqrt(size(one.examples) / size(most))
        title = _said(one, sets=sets)
        parts.append(_circle(across(confidence), up(accuracy), radius, "dot", title))
    return _svg(_WIDTH, _HEIGHT, "Accuracy over confidence", parts)


def learning_curve(
    points: Sequence[CurvePoint],
    now: tuple[int, float] | None,
    forecasts: Sequence[CurvePoint],
    measure: str = "accuracy",
) -> str:
    """The measured figure over examples, where the version is `now`, and what is forecast; 80% intervals."""
    everything = [*points, *forecasts]
    sizes = [max(point.examples, 1) for point in everything] + ([now[0]] if now else [])
    shares = [share for point in everything for share in (point.low, point.high, point.accuracy)]
    shares += [now[1]] if now else []
    ticks = percent_ticks(max(min(shares), 0.0), max(*shares, 0.0))
    along = Scale(math.log(min(sizes)), math.log(max(sizes)), _LEFT + 20, _RIGHT - 22)
    up = Scale(ticks[0], ticks[-1], _BOTTOM, _TOP)

    def place(examples: int, share: float) -> tuple[float, float]:
        return along(math.log(max(examples, 1))), up(max(share, ticks[0]))

    parts = [_line(_LEFT, up(tick), _RIGHT, up(tick), "grid") for tick in ticks]
    parts += [_text(_LEFT - 8, up(tick) + 4, f"{tick:.0%}", "end") for tick in ticks]
    # The version itself and its forecasts are labelled first, the parts where there is room left.
    wanted = ([now[0]] if now else []) + [point.examples for point in reversed(everything)]
    for size in _apart(wanted, lambda size: place(size, 0)[0]):
        parts.append(_text(place(size, 0)[0], _BOTTOM + 17, f"{size:,}", "mid"))
    parts.append(_text(0, 14, measure))
    parts.append(_text((_LEFT + _RIGHT) / 2, _BOTTOM + 36, "training examples", "mid"))
    for some, kind in ((points, ""), (forecasts, " ahead")):
        edge = [place(point.examples, point.high) for point in some]
        edge += [place(point.examples, point.low) for point in reversed(some)]
        parts.append(_polygon(edge, f"band{kind}") if len(some) > 1 else "")
    parts.append(_polyline([place(p.examples, p.accuracy) for p in points], "curve"))
    ahead = [place(p.examples, p.accuracy) for p in forecasts]
    parts.append(_polyline([*([place(*now)] if now else []), *ahead], "curve ahead"))
    for point in everything:
        kind = "dot open" if point in forecasts else "dot"
        interval = f"80% interval {point.low:.1%} to {point.high:.1%}"
        title = f"{point.accuracy:.1%} with {point.examples:,} examples, {interval}"
        parts.append(_circle(*place(point.examples, point.accuracy), 4.5, kind, title))
    if now:
        x, y = place(*now)
        parts.append(_circle(x, y, 7, "dot", f"now: {now[1]:.1%} with {now[0]:,} examples"))
        # Below and to the right: the measured part ends to the left, and what is forecast goes up.
        parts.append(_text(x + 2, y + 24, f"now {now[1]:.1%}", "strong"))
    if forecasts:
        x, y = place(forecasts[-1].examples, forecasts[-1].accuracy)
        parts.append(_text(min(x + 10, _RIGHT), y - 12, f"{forecasts[-1].accuracy:.1%}", "end strong"))
    return _svg(_WIDTH, _HEIGHT, f"{measure[0].upper()}{measure[1:]} over training examples", parts)


def predictions(values: Sequence[PredictedValue]) -> str:
    """Predicted values over true ones, on one scale, each with its interval; those that miss stand out."""
    height, floor = 460, 416
    everything = [it for one in values for it in (one.value, one.predicted)]
    ticks = number_ticks(min(everything), max(everything))
    across, up = Scale(ticks[0], ticks[-1], _LEFT + 8, _RIGHT), Scale(ticks[0], ticks[-1], floor, _TOP)
    parts = []
    for tick in ticks:
        parts.append(_line(across(ticks[0]), up(tick), _RIGHT, up(tick), "grid"))
        parts.append(_text(across(ticks[0]) - 8, up(tick) + 4, words.number(tick), "end"))
        parts.append(_text(across(tick), floor + 17, words.number(tick), "mid"))
    parts.append(_line(across(ticks[0]), up(ticks[0]), across(ticks[-1]), up(ticks[-1]), "ideal"))
    parts.append(_text(0, 14, "predicted"))
    parts.append(_text((_LEFT + _RIGHT) / 2, floor + 36, "true value", "mid"))
    inside = sorted(values, key=lambda one: not _missed(one), reverse=True)
    for one in inside:
        ends = [up(min(max(end, ticks[0]), ticks[-1])) for end in (one.low, one.high)]
        far = " far" if _missed(one) else ""
        parts.append(_line(across(one.value), ends[0], across(one.value), ends[1], f"whisker thin{far}"))
    for one in inside:
        far = " far" if _missed(one) else ""
        interval = f"{words.number(one.low)} to {words.number(one.high)}"
        title = f"{one.id}: {words.number(one.value)}, predicted {words.number(one.predicted)} ({interval})"
        parts.append(_circle(across(one.value), up(one.predicted), 3.4, f"dot small{far}", title))
    return _svg(_WIDTH, height, "Predicted over true values", parts)


def residuals(values: Sequence[PredictedValue]) -> str:
    """How many values are how far off their prediction."""
    off = sorted(one.value - one.predicted for one in values)
    # The outermost hundredth would stretch the axis: what is beyond counts in the outermost bars.
    edge = max(abs(off[len(off) // 100]), abs(off[-1 - len(off) // 100])) or 1.0
    ticks = number_ticks(-edge, edge)
    across = Scale(ticks[0], ticks[-1], _LEFT, _RIGHT)
    bars = 2 * min(15, max(5, round(math.sqrt(len(off)))))
    counts = [0] * bars
    for one in off:
        place = int((one - ticks[0]) / (ticks[-1] - ticks[0]) * bars)
        counts[min(max(place, 0), bars - 1)] += 1
    most = max(counts)
    up = Scale(0, most, _BOTTOM, _TOP)
    parts = []
    for tick in sorted({0, *(round(tick) for tick in number_ticks(0, most) if tick <= most)}):
        parts.append(_line(_LEFT, up(tick), _RIGHT, up(tick), "grid"))
        parts.append(_text(_LEFT - 8, up(tick) + 4, f"{tick:,}", "end"))
    parts += [_text(across(tick), _BOTTOM + 17, words.number(tick), "mid") for tick in ticks]
    parts.append(_text(0, 14, "examples"))
    parts.append(_text((_LEFT + _RIGHT) / 2, _BOTTOM + 36, "true value less the predicted one", "mid"))
    width = (_RIGHT - _LEFT) / bars
    step = (ticks[-1] - ticks[0]) / bars
    for index, count in enumerate(counts):
        if count:
            low, high = ticks[0] + index * step, ticks[0] + (index + 1) * step
            title = f"{count:,} examples: {words.number(low)} to {words.number(high)}"
            x, y = _LEFT + index * width, up(count)
            parts.append(_rect(x + 1, y, width - 2, _BOTTOM - y, kind="bar", title=title))
    parts.append(_line(across(0), _BOTTOM, across(0), _TOP, "zero"))
    return _svg(_WIDTH, _HEIGHT, "How far off values are", parts)


def _missed(one: PredictedValue) -> bool:
    return not one.low <= one.value <= one.high


def confusion_matrix(grid: Grid) -> str:
    """Rows are what the examples carry, columns what they were answered with; cells are % of the row."""
    count = len(grid.labels)
    cell = 64 if count <= 4 else 46 if count <= 8 else 36 if count <= 12 else 28
    short = without_common_start(grid.labels)
    longest = max((len(label) for label in short), default=0)
    left, top = 14 + 7.4 * min(longest, 25), 24 + 5.0 * min(longest, 22)
    others = [grid.other(row) for row in range(count)]
    rest = any(share > 0 for share in others)
    parts = []
    heads = [*zip(grid.labels, short, strict=True), *([("other classes", "other")] if rest else [])]
    for column, (label, shown) in enumerate(heads):
        x = left + (column + 0.5) * cell + (8 if column == count else 0)
        slant = f' transform="translate({x:.1f} {top - 8}) rotate(-45)"'
        parts.append(f"<text{slant}>{_title(label)}{escape(cut(shown, 22))}</text>")
    for row, label in enumerate(grid.labels):
        y = top + row * cell
        parts.append(
            f'<text class="end" x="{left - 8:.1f}" y="{y + cell / 2 + 4:.1f}">'
            f"{_title(label)}{escape(cut(short[row], 25))}</text>"
        )
        for column, answer in enumerate(grid.labels):
            share = grid.share(row, column)
            kind = "right" if row == column else "wrong"
            examples = grid.support[row]
            times = (
                f"{grid.wrong.get((row, column), 0):,} of {examples:,}" if row != column else f"{share:.1%}"
            )
            title = f"{label}: {times} answered with {answer}" if examples else f"{label}: not evaluated"
            parts.append(_cell(left + column * cell, y, cell, share=share, kind=kind, title=title))
        if rest:
            title = f"{label}: {others[row]:.1%} answered with other classes"
            parts.append(
                _cell(left + count * cell + 8, y, cell, share=others[row], kind="wrong", title=title)
            )
    # The last columns' names go on beyond them.
    beyond = max(
        5.0 * min(len(shown), 22) - (len(heads) - 1 - column) * cell
        for column, (_, shown) in enumerate(heads)
    )
    width = left + (count + rest) * cell + 8 + max(beyond, 0)
    return _svg(width, top + count * cell + 4, "Confusion matrix", parts, fixed=True)


def feature_map(
    points: Sequence[MapPoint], coloured: Sequence[str], *, steps: Sequence[int] | None = None
) -> str:
    """Examples on a plane; the classes in `coloured` have a colour each, and a shape for every `HUES` of them.

    With `steps`, a number for each point from 0 to STEPS - 1, these are the colours instead. The plane has neither top
    nor bottom: its longer side lies across.
    """
    width, height, edge = 720, 460, 14
    places = [(point.x, point.y) for point in points]
    if _span(y for _, y in places) > _span(x for x, _ in places):
        places = [(y, -x) for x, y in places]
    xs, ys = [x for x, _ in places], [y for _, y in places]
    span = max(_span(xs) / (width - 2 * edge), _span(ys) / (height - 2 * edge)) or 1.0
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    groups = [point.label for point in points] if steps is None else [f"step{step}" for step in steps]
    by_class: dict[str, list[tuple[float, float, str]]] = {}
    for (x, y), point, group in zip(places, points, groups, strict=True):
        label = point.label or NO_LABEL
        title = f"{label} · {point.id}" if point.id else label
        by_class.setdefault(group, []).append((x, y, title))
    order = [label for label in by_class if label not in coloured]
    order += [label for label in coloured if label in by_class]
    parts = [f'<rect class="empty" width="{width}" height="{height}" rx="8"/>']
    for label in order:
        number = coloured.index(label) if label in coloured else None
        hue = None if steps is None else label
        marks = [
            _mark(width / 2 + (x - middle_x) / span, height / 2 - (y - middle_y) / span, number, title, hue)
            for x, y, title in by_class[label]
        ]
        parts.append(f'<g class="class">{"".join(marks)}</g>')
    return _svg(width, height, "Training examples on a plane", parts)


def swatch(number: int, *, step: bool = False) -> str:
    """The mark of the class, or of the step, with this number, for a legend."""
    mark = _mark(6, 6, 0, "", f"step{number}") if step else _mark(6, 6, number, "")
    return f'<svg viewBox="0 0 12 12" class="swatch" aria-hidden="true">{mark}</svg>'


def number_ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose the two: four to eight."""
    if not high > low:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    size = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(times * size for times in (1, 2, 2.5, 5, 10, 20) if (high - low) / (times * size) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [tick * step for tick in range(first, last + 1)]


def percent_ticks(low: float, high: float) -> list[float]:
    """Round shares that enclose the two, within 0 and 1: at most eight."""
    step = next((s for s in (0.01, 0.02, 0.05, 0.1) if (high - low) / s <= 5), 0.2)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        first, last = first - 1, last + 1
    return [round(tick * step, 2) for tick in range(max(first, 0), min(last, round(1 / step)) + 1)]


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 80% interval of a share that was seen in `count` examples (Wilson 1927)."""
    spread = _Z80 * math.sqrt(share * (1 - share) / count + _Z80**2 / (4 * count**2))
    middle, scale = share + _Z80**2 / (2 * count), 1 + _Z80**2 / count
    return (middle - spread) / scale, (middle + spread) / scale


def _apart(sizes: Iterable[int], place: Callable[[int], float]) -> list[int]:
    """Those of the sizes whose labels do not run into the labels of earlier ones."""
    kept: list[int] = []
    for size in sizes:
        if all(abs(place(size) - place(other)) >= _TICK_ROOM for other in kept):
            kept.append(size)
    return kept


def _span(values: Iterable[float]) -> float:
    known = list(values)
    return max(known) - min(known)


def _said(one: ReliabilityBin, *, sets: bool) -> str:
    if sets:
        return f"{one.examples:,} labels: {one.confidence:.1%} probable on average, {one.accuracy:.1%} apply"
    return f"{one.examples:,} examples: {one.confidence:.1%} sure on average, {one.accuracy:.1%} right"


def _cell(x: float, y: float, size: int, *, share: float, kind: str, title: str) -> str:
    parts = [_rect(x + 1, y + 1, size - 2, size - 2, kind="empty", title=title)]
    if share > 0:
        # Even one example in a hundred has to be seen.
        depth = 0.12 + 0.88 * min(share, 1.0)
        shade = f' fill-opacity="{depth:.2f}" pointer-events="none"'
        parts.append(
            f'<rect class="{kind}" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{size - 2}" height="{size - 2}"{shade}/>'
        )
        text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
        onto = " onto" if depth > 0.6 else ""
        parts.append(_text(x + size / 2, y + size / 2 + 4, text, f"cell mid{onto}", ' pointer-events="none"'))
    return "".join(parts)


def _mark(x: float, y: float, number: int | None, title: str, kind: str | None = None) -> str:
    """A point; of `kind` if it is given, otherwise in the colour and shape of a class's number."""
    hue = kind or ("other" if number is None else f"hue{number % HUES}")
    name = _title(title) if title else ""
    if number is not None and number >= HUES:
        return (
            f'<rect class="point {hue}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" '
            f'transform="rotate(45 {x:.1f} {y:.1f})">{name}</rect>'
        )
    radius = 3.6 if number is None and kind is None else 4.6
    return f'<circle class="point {hue}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{name}</circle>'


def _svg(width: float, height: float, name: str, parts: Iterable[str], *, fixed: bool = False) -> str:
    size = f' style="width:{width:.0f}px"' if fixed else ""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(name)}"{size}>'
        f"{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, kind: str = "", more: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{more}>{escape(text)}</text>'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _rect(x: float, y: float, width: float, height: float, *, kind: str, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {place}>{_title(title)}</rect>'


def _circle(x: float, y: float, radius: float, kind: str, title: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{_title(title)}</circle>'


def _polyline(places: Sequence[tuple[float, float]], kind: str) -> str:
    return f'<polyline class="{kind}" points="{_places(places)}"/>' if len(places) > 1 else ""


def _polygon(places: Sequence[tuple[float, float]], kind: str) -> str:
    return f'<polygon class="{kind}" points="{_places(places)}"/>'


def _places(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def cut(text: str, limit: int) -> str:
    """The text with its middle left out: names often differ at their ends."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[-tail:]}"


def without_common_start(labels: Sequence[str]) -> list[str]:
    """Labels that are too long to be read without what all of them begin with, down to a word's beginning."""
    first, last = min(labels, default=""), max(labels, default="")
    start = first[
        : next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    ]
    while start and start[-1] not in "/_:. -":
        start = start[:-1]
    if len(labels) < 2 or len(start) < 4 or max(map(len, labels)) <= 22:
        return list(labels)
    return ["…" + label[len(start) :] for label in labels]
