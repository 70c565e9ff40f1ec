"""`graft evaluate`: measure a version on labelled examples."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graft._client.sync import Client
from graft._data_files.columns import DataError
from graft._data_files.refused import RowsRead
from graft._records.evaluation.evaluations import EvaluationResult
from graft.cli.arguments import Verbs, add_full, add_selector, add_verb
from graft.cli.data_options import DATA_FILES, add_data
from graft.cli.reading import Wanted, read_file, told_at_the_end
from graft.cli.refusals import refusals_told, refused, say_refusals
from graft.cli.showing import phrases
from graft.cli.showing.plain import plain
from graft.cli.showing.reports import show_evaluation
from graft.errors import Rejection

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "evaluate", "measure a version on labelled examples", DATA_FILES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    add_data(parser)
    add_selector(parser)
    add_full(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Measures a version on a data file."""
    rows = RowsRead()

    def wanted() -> Wanted:
        served = client.version(args.model, args.version, alias=args.alias)
        return Wanted(served.report.task, tuple(label.name for label in served.labels), by_id=False)

    with (
        refusals_told(terminal, rows, args),
        read_file(args, terminal, wanted) as data,
        terminal.count_bar("evaluating:") as bar,
    ):
        result = client.evaluate(
            args.model,
            data.examples(bar.reading, rows),
            version=args.version,
            alias=args.alias,
            on_progress=lambda sent: bar.show(f"{sent:,} examples sent"),
        )
    notes = told_at_the_end(data, terminal)
    if args.json:
        terminal.json(_with_lines(result, rows) | refused(rows) | {"notes": notes})
    else:
        show_evaluation(terminal, result, rows, full=args.full)
    rejected = [Rejection(it.index, it.reason, "", it.detail, "") for it in result.rejected]
    say_refusals(terminal, rejected, result.rejected_count, rows, args)
    if not result.examples:
        raise DataError(f"no figure can be stated: {phrases.why_nothing(result, rows.refused_count)}")


def _with_lines(result: EvaluationResult, lines: Sequence[int]) -> dict[str, Any]:
    """An evaluation for programs, with the lines of its examples."""
    value: dict[str, Any] = plain(result)
    value["trained_on_lines"] = [lines[it] for it in result.trained_on]
    for label in value["unknown_labels"]:
        label["lines"] = [lines[it] for it in label["indices"]]
    return value
