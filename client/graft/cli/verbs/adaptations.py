"""`graft adaptations`: list a model's adaptations, or describe one."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._records.records import Adaptation, Publication
from graft._report.words import plural
from graft.cli.arguments import Verbs, add_verb
from graft.cli.showing import phrases
from graft.cli.showing.live import live_then
from graft.cli.showing.spoken import spoken

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

COLUMNS: Final = ("adaptation", "state", "examples", "publications", "started")
_SHOWN_VERSIONS: Final = 3

_EXAMPLES: Final = """\
examples:
  graft adaptations support/intents
  graft adaptations support/intents 8f14e45fceea467fa9b8d3f1c2a7e6b0
  graft adaptations support/intents --json

An adaptation is one stream of examples into a model. It is open while it takes
examples; queued and training say that a version is being made of it.
"""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "adaptations", "list a model's adaptations, newest first", _EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument(
        "adaptation", metavar="ADAPTATION", nargs="?", help="describe this one; default: list all of them"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Lists a model's adaptations, or describes one."""
    if args.adaptation is None:
        found = client.adaptations(args.model)
    else:
        found = [client.adaptation(args.model, args.adaptation)]
    if args.json:
        terminal.json_lines(found)
    elif not found:
        client.model(args.model)  # raises what is right where there is no such model
        terminal.line(f"{args.model}: no adaptations")
    elif args.adaptation is None:
        terminal.table(COLUMNS, map(cells, found), whole=("adaptation",))
    else:
        _describe(found[0], terminal)


def cells(adaptation: Adaptation) -> tuple[object, ...]:
    """An adaptation's row."""
    if adaptation.error is not None:
        return adaptation.adaptation_id, "damaged", "", spoken(str(adaptation.error)), ""
    return (
        adaptation.adaptation_id,
        _state(adaptation),
        f"{sum(adaptation.writers.values()):,}",
        _in_short(adaptation),
        phrases.moment(adaptation.create_time),
    )


def _state(adaptation: Adaptation) -> str:
    """What is being done with it, or whether it takes examples."""
    for state in ("training", "queued"):
        if any(it.state == state for it in adaptation.publications):
            return state
    return adaptation.state


def _in_short(adaptation: Adaptation) -> str:
    """What came of its commits, in a few words."""
    versions = [it.version for it in adaptation.publications if it.version]
    newest = ", ".join(map(str, versions[-_SHOWN_VERSIONS:]))
    earlier = "…, " if len(versions) > _SHOWN_VERSIONS else ""
    words = [f"version{'s' if len(versions) > 1 else ''} {earlier}{newest}"] if versions else []
    states = Counter(it.state for it in adaptation.publications)
    words += [f"{states[it]:,} {it}" for it in ("failed", "cancelled") if states[it]]
    return ", ".join(words)


def _describe(adaptation: Adaptation, terminal: Terminal) -> None:
    writers = ", ".join(f"{end:,} by {writer}" for writer, end in adaptation.writers.items())
    facts = {
        "adaptation": adaptation.adaptation_id,
        "of": adaptation.model,
        "state": adaptation.state,
        "backbone": adaptation.backbone,
        "started": phrases.time(adaptation.create_time),
        "examples": writers or "none",
        **{f"metadata {key}": value for key, value in adaptation.metadata.items()},
    }
    terminal.facts({name: value for name, value in facts.items() if value})
    if adaptation.error is not None:
        terminal.say(f"it cannot be used: {adaptation.error}")
    if adaptation.publications:
        columns = ("commit", "state", "version", "committed", "")
        terminal.table(columns, map(_publication, adaptation.publications), whole=("commit",))
    else:
        terminal.line("no commit")


def _publication(publication: Publication) -> tuple[object, ...]:
    return (
        publication.commit_id,
        publication.state,
        publication.version or "",
        phrases.moment(publication.create_time),
        live_then(publication) if publication.error is None else spoken(publication.error.message),
    )


def sent(adaptations: list[Adaptation]) -> str:
    """How many examples were sent to adaptations, in words."""
    count = sum(sum(it.writers.values()) for it in adaptations)
    return f"{plural(count, 'example')} in {plural(len(adaptations), 'adaptation')}"
