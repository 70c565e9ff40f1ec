"""The page and the figures that are made of the lines."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

from benchmarks.datasets import DRAWS
from benchmarks.fewshot import rows
from benchmarks.fewshot.measure import DEFAULT
from benchmarks.fewshot.rows import Line
from benchmarks.fewshot.sets import NAMES
from benchmarks.harness import Figure, at_least, at_most, hardware, save, table

WORSE = 0.01
"""What counts as worse on the test set, in accuracy."""
NAME = "fewshot"
FEWER_DRAWS = 3
"""As many draws of a set suffice for a figure of another backbone than the default one, which takes longer."""
ENOUGH = 100
"""As many draws suffice for the share of those that lose."""
_COLUMNS = (
    "set | about | classes | a class | draws | frozen | auto | difference | least | accepted | gain | worse | "
    "s accepted | s dropped | CPU s"
)


def write() -> list[str]:
    """Writes results/fewshot.md and fewshot.json of what the newest recipe measured, and returns the page's lines."""
    every = rows.read()
    lines = rows.newest(every)
    draws = [it for it in lines if "case" not in it]
    figures = list(figures_of(draws))
    groups = [_summary(of) for of in _groups(draws)]
    machines = sorted({it["machine"] for it in lines})
    page = ["# Few examples", "", f"On {'; '.join(machines) or hardware()['cpu']}; {hardware()['date']}.", ""]
    page += [
        "`python -m benchmarks.fewshot` measures it: the method `auto` with a time budget, through the server, on sets",
        "that `benchmarks/fewshot/sets.py` makes of real sentences. Frozen is the version that it publishes first.",
        f"What was tuned, and how it was judged, is that of commit {', '.join(_commits(lines))};",
        f"{len(every) - len(lines)} draws of earlier recipes are left out. The recipe was chosen by looking at first",
        "draws of some of these sets; later draws say more. Other work used the machine: seconds are upper bounds, and",
        "a budget beyond two minutes is for what two minutes do on a machine of its own. Whether a target is met is",
        "said where there are enough draws.",
        "",
        *table(figures, "of"),
        "",
    ]
    for (backbone, budget), found in itertools.groupby(groups, lambda it: (it["backbone"], it["budget_s"])):
        page += [f"## {backbone}, {budget:g} s", "", *_table(list(found)), ""]
    page += _bad([it for it in lines if "case" in it])
    content = {
        "hardware": hardware(),
        "recipe": lines[-1]["recipe"] if lines else "",
        "figures": [asdict(it) for it in figures],
    }
    save(NAME, page, {**content, "groups": groups})
    return page


def figures_of(draws: Sequence[Line]) -> Iterable[Figure]:
    """The figures over all sets, for each backbone and number of examples a class."""

    def key(it: Line) -> tuple[str, float, int]:
        return it["backbone"], it["budget_s"], it["per_class"]

    for (backbone, budget_s, per_class), of in itertools.groupby(sorted(draws, key=key), key):
        found = list(of)
        where = f"{backbone}, {budget_s:g} s, {per_class} a class"
        by_set = [_summary(list(it)) for it in _groups(found)]
        gaining = [it for it in by_set if not it["about_topic"] and it["accepted"] and it["gain"] >= 0.05]
        accepted = [it for it in by_set if not it["about_topic"] and it["accepted"]]
        enough = min(it["draws"] for it in by_set) >= (DRAWS if backbone == DEFAULT else FEWER_DRAWS)
        gained = at_least(
            f"{where}: sets where meaning is not topic that gain 5 points on average where tuning is accepted",
            len(gaining),
            3,
            "sets",
            f"{len(accepted)} of {sum(not it['about_topic'] for it in by_set)} such sets with an accepted draw: "
            + (", ".join(f"{it['set']} {100 * it['gain']:+.1f}" for it in accepted) or "none"),
        )
        worst = min(by_set, key=lambda it: it["difference"])
        lowest = at_least(
            f"{where}: lowest mean difference of a set",
            round(100 * worst["difference"], 3),
            -0.3,
            "points",
            f"{worst['set']}, of {len(by_set)} sets",
        )
        yield from (it if enough else replace(it, met=None) for it in (gained, lowest))
    taken = [it for it in draws if it["accepted"]]
    if taken:
        worse = sum(it["accuracy"] - it["frozen_accuracy"] < -WORSE for it in taken)
        words = f"{worse} of {len(taken)} accepted ones, of {len(draws)} draws"
        what = "accepted draws that are worse on the test set by more than a point"
        found_worse = at_most(what, 100 * worse / len(taken), 5, "%", words)
        yield found_worse if len(draws) >= ENOUGH else replace(found_worse, met=None)


def _groups(draws: Iterable[Line]) -> list[list[Line]]:
    """By backbone, budget, examples a class and set, in this order."""

    def key(it: Line) -> tuple[str, float, int, int]:
        return it["backbone"], it["budget_s"], it["per_class"], NAMES.index(it["set"])

    return [list(of) for _, of in itertools.groupby(sorted(draws, key=key), key)]


def _summary(draws: Sequence[Line]) -> Line:
    first = draws[0]
    differences = [it["accuracy"] - it["frozen_accuracy"] for it in draws]
    taken = [gain for gain, it in zip(differences, draws, strict=True) if it["accepted"]]
    error = statistics.stdev(differences) / len(draws) ** 0.5 if len(draws) > 1 else 0.0
    seconds = {kept: [it["seconds"] for it in draws if it["accepted"] is kept] for kept in (True, False)}
    return {
        **{it: first[it] for it in ("set", "backbone", "budget_s", "per_class", "about_topic", "classes")},
        "draws": len(draws),
        "frozen_accuracy": statistics.mean(it["frozen_accuracy"] for it in draws),
        "accuracy": statistics.mean(it["accuracy"] for it in draws),
        "difference": statistics.mean(differences),
        "difference_error": error,
        "least": min(differences),
        "accepted": len(taken),
        "gain": statistics.mean(taken) if taken else 0.0,
        "worse": sum(it < -WORSE for it in taken),
        "accepted_s": statistics.median(seconds[True]) if seconds[True] else 0.0,
        "dropped_s": statistics.median(seconds[False]) if seconds[False] else 0.0,
        "cpu_s": statistics.median(it["cpu_s"] for it in draws),
    }


def _table(groups: Sequence[Line]) -> list[str]:
    lines = [
        "Accuracy on the test rows; differences in points, with the standard error over the draws; gain: where a",
        "tuning was accepted; worse: accepted, and more than a point below frozen; s: the whole adaptation, medians;",
        "CPU s: processor time of it, on whatever number of cores.",
        "",
        f"| {_COLUMNS} |",
        f"|{len(_COLUMNS.split('|')) * '---|'}",
    ]
    for it in groups:
        cells = [
            it["set"],
            "topic" if it["about_topic"] else "not topic",
            str(it["classes"]),
            str(it["per_class"]),
            str(it["draws"]),
            f"{it['frozen_accuracy']:.1%}",
            f"{it['accuracy']:.1%}",
            f"{100 * it['difference']:+.1f}"
            + (f" ± {100 * it['difference_error']:.1f}" if it["draws"] > 1 else ""),
            f"{100 * it['least']:+.1f}",
            f"{it['accepted']} of {it['draws']}",
            f"{100 * it['gain']:+.1f}" if it["accepted"] else "",
            str(it["worse"]) if it["accepted"] else "",
            f"{it['accepted_s']:.0f}" if it["accepted_s"] else "",
            f"{it['dropped_s']:.0f}" if it["dropped_s"] else "",
            f"{it['cpu_s']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _bad(cases: Sequence[Line]) -> list[str]:
    if not cases:
        return []
    lines = [
        "## Bad inputs",
        "",
        "| what | examples | outcome | frozen | served | s | tunings |",
        "|" + 7 * "---|",
    ]
    for it in sorted(cases, key=lambda it: (it["case"], it["draw"])):
        if "error" in it:
            lines.append(f"| {it['case']} | {it['examples']} | {it['error']} | | | | |")
            continue
        tried = (
            "; ".join(f"{of['objective']} {of['method']}: {of['ended']}" for of in it["tunings"]) or "none"
        )
        lines.append(
            f"| {it['case']} | {it['examples']} | {it['served']} | {it['frozen_accuracy']:.1%} | "
            f"{it['accuracy']:.1%} | {it['seconds']:.0f} | {tried} |"
        )
    return [*lines, ""]


def _commits(lines: Iterable[Line]) -> list[str]:
    return list(dict.fromkeys(it["commit"] for it in lines))
