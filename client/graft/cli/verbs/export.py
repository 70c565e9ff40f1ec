"""`graft export`: write a bundle."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft.cli.arguments import Verbs, add_selector, add_verb

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_MIB: Final = 1024 * 1024


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "export", "write a self-contained bundle: ONNX graph, labels, tokenizer, runner")
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("directory", metavar="DIR", help="where to write")
    add_selector(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Writes a version's bundle to a folder."""
    with terminal.count_bar("exporting:") as bar:
        bundle = client.export(
            args.model,
            args.directory,
            version=args.version,
            alias=args.alias,
            on_progress=lambda path, received: bar.show(f"{path}, {received / _MIB:.1f} MiB"),
        )
    for path in bundle.files:
        terminal.line(str(path))
    terminal.say(f"{len(bundle.files)} files, {bundle.size / _MIB:.1f} MiB, checked against their SHA-256")
