"""`graft cancel`: stop an adaptation's work."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._records.records import CancelledAdaptation
from graft._report.words import plural
from graft.cli.arguments import Verbs, add_verb
from graft.cli.showing import phrases

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_EXAMPLES: Final = """\
example:
  graft cancel support/intents 8f14e45fceea467fa9b8d3f1c2a7e6b0

'graft adaptations MODEL' lists the ids. What was published stays, and so do
the examples. Where the adaptation is over already, nothing changes, and the
exit code is 1.
"""

NOTHING_CHANGED: Final = 1
"""The exit code where there was nothing to cancel."""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(
        verbs, "cancel", "stop an adaptation: it takes no more examples and trains no more", _EXAMPLES
    )
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("adaptation", metavar="ADAPTATION", help="the adaptation's id")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Cancels an adaptation."""
    cancelled = client.cancel(args.model, args.adaptation)
    if args.json:
        terminal.json(cancelled)
    else:
        terminal.line(f"{cancelled.model}: adaptation {cancelled.adaptation_id} {became(cancelled)}")
    return 0 if cancelled.changed or cancelled.given_up else NOTHING_CHANGED


def became(it: CancelledAdaptation) -> str:
    """What became of an adaptation, and of what it was doing."""
    versions = [publication.version for publication in it.publications if publication.version]
    published = f"published {phrases.versions(versions)}" if versions else "published nothing"
    if not it.changed and not it.given_up:
        return f"was {it.state} already, and had {published}: nothing changed"
    given_up = f"; {plural(it.given_up, 'publication')} given up" if it.given_up else ""
    if not versions:
        return f"is cancelled{given_up}"
    stays = "stay" if len(versions) > 1 else "stays"
    return f"is cancelled{given_up}; {phrases.versions(versions)}, which it published, {stays}"
