"""`graft versions`: list a model's versions."""

from __future__ import annotations

import argparse
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._records.evaluation.reports import Report
from graft._records.records import Version
from graft._report import words
from graft.cli.arguments import Verbs, add_verb
from graft.cli.showing import phrases
from graft.cli.showing.live import pinned

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

COLUMNS: Final = ("version", "alias", "examples", "accuracy", "measured on", "published")

_EXAMPLES: Final = """\
examples:
  graft versions support/intents
  graft versions support/intents --json

Versions with the same letter were measured on the same examples by the same
method. The accuracies of others say little about each other: 'graft compare
MODEL 4 5 test.csv' measures two versions on the same rows.
"""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "versions", "list a model's versions, newest first", _EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Lists a model's versions."""
    versions = client.versions(args.model)
    if args.json:
        terminal.json_lines(versions)
        return
    letters = comparable(versions)
    terminal.table(COLUMNS, [cells(it, letters.get(it.version, "")) for it in versions])
    if note := _not_comparable(args.model, versions, letters):
        terminal.say(note)
    if said := pinned(client.model(args.model)):
        terminal.say(said)


def comparable(versions: Sequence[Version]) -> dict[int, str]:
    """Returns a letter for each version that was measured, the same for those measured on the same examples.

    There are none where all were measured on the same.
    """
    measured = [it for it in versions if words.stated(it.report)]
    # Of a version of an older release it is not known.
    groups = {it.version: it.report.evaluation_digest or str(it.version) for it in measured}
    names = {group: _letters(place) for place, group in enumerate(dict.fromkeys(groups.values()))}
    return {} if len(names) < 2 else {version: names[group] for version, group in groups.items()}


def _letters(place: int) -> str:
    """A, B, ..., Z, AA, AB and so on."""
    before, last = divmod(place, 26)
    return (_letters(before - 1) if before else "") + string.ascii_uppercase[last]


def cells(version: Version, letter: str) -> tuple[object, ...]:
    """A version's row, with the letter of those that it compares with."""
    report = version.report
    return (
        version.version,
        ", ".join(version.aliases),
        f"{report.examples:,}",
        words.score(report, interval=True),
        f"{letter}: {_measured_on(report)}" if letter else _measured_on(report),
        phrases.moment(version.create_time),
    )


def _measured_on(report: Report) -> str:
    """What the figures were measured on, in few words."""
    if not words.stated(report):
        return ""
    examples = f"{report.evaluated_examples:,}"
    return f"{examples} held out" if report.evaluation == "held_out" else f"{examples} cross-validated"


def _not_comparable(model: str, versions: Sequence[Version], letters: Mapping[int, str]) -> str:
    """That accuracies do not compare, if some do not, and how to compare versions."""
    if not letters:
        return ""
    newest, other = _pair(versions, letters)
    alike = len(set(letters.values())) < len(letters)
    which = "only those with the same letter compare" if alike else "they do not compare"
    return (
        f"the accuracies were measured on different examples, and {which}: 'graft compare {model} {other} {newest} "
        "test.csv' measures both on the same rows"
    )


def _pair(versions: Sequence[Version], letters: Mapping[int, str]) -> tuple[int, int]:
    """The newest two versions that were measured on different examples, the newest first."""
    first, *others = [it.version for it in versions if it.version in letters]
    return first, next(it for it in others if letters[it] != letters[first])
