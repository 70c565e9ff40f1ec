"""`graft watch`: follow an adaptation."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from graft._client.sync import Client
from graft.cli.arguments import Verbs, add_verb

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "watch", "follow an adaptation until nothing more can happen to it")
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("adaptation", metavar="ADAPTATION", help="the adaptation's id")
    parser.add_argument(
        "--from-event",
        type=int,
        default=0,
        metavar="N",
        help="begin with the event of this number; default: the first",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Follows an adaptation's events."""
    events = client.watch(args.model, args.adaptation, from_event=args.from_event)
    if args.json:
        terminal.json_lines(events)
        return
    with terminal.watch_bar() as bar:
        for event in events:
            if event.progress is not None:
                bar.show(event.progress)
            else:
                bar.rest("watching")
                terminal.event(event)
