"""`graft backbones`: list the pre-trained models."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._records.records import Backbone
from graft.cli.arguments import Verbs, add_verb

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_COLUMNS: Final = (
    "backbone",
    "state",
    "reads",
    "features",
    "tokens",
    "architecture",
    "layers",
    "memory",
    "encoder",
)


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "backbones", "list the pre-trained models that the server can adapt")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Lists the server's backbones."""
    backbones = client.backbones()
    if args.json:
        terminal.json_lines(backbones)
        return
    terminal.table(_COLUMNS, map(_cells, backbones))
    for backbone in backbones:
        if backbone.error:
            terminal.line(backbone.error)


def _cells(backbone: Backbone) -> tuple[object, ...]:
    return (
        backbone.name + (" (default)" if backbone.is_default else ""),
        backbone.state,
        backbone.modality,
        backbone.feature_dimension,
        backbone.max_tokens,
        backbone.architecture,
        backbone.layers,
        f"{backbone.memory_bytes / 1e6:,.0f} MB" if backbone.memory_bytes else "",
        backbone.encoder_id[:12],
    )
