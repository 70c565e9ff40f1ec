"""Pieces of the command line's grammar that several verbs share."""

from __future__ import annotations

import argparse
from typing import Final, Literal, TypeAlias

from graft._records.inputs.list_cells import list_of
from graft._transport.targets import DEFAULT_TARGET, default_target

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  (no public name)

TIMEOUT_S: Final = 60.0
"""How long a single request may take, where nothing is said."""


def add_verb(verbs: Verbs, name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
    """Adds a verb with the arguments that all of them take."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_connection(parser, after_verb=True)
    return parser


def add_connection(parser: argparse.ArgumentParser, *, after_verb: bool = False) -> None:
    """Adds which server is asked, and how it answers: before the verb and after it, where the last one counts."""

    def default(value: object) -> object:
        # Without a value after the verb, that from before it stays.
        return argparse.SUPPRESS if after_verb else value

    server = default_target()
    here = f"; here: {server}" if server != DEFAULT_TARGET else ""
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=default(server),
        help="the server's address, or unix:PATH; default: the environment variable GRAFT_SERVER, else where "
        "the server "
        f"of this machine listens by GRAFT_LISTEN, else {DEFAULT_TARGET}{here}",
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=default(TIMEOUT_S),
        metavar="SECONDS",
        help=f"how long a single request may take; default: {TIMEOUT_S:g}",
    )
    parser.add_argument(
        "--json", action="store_true", default=default(value=False), help="print JSON, for programs"
    )


def add_selector(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Adds how to choose a version."""
    selector = parser.add_mutually_exclusive_group()
    selector.add_argument(
        "--version", type=int, metavar="N", help="the version with this number; default: the one that is live"
    )
    selector.add_argument(
        "--alias", metavar="ALIAS", help="the version that this alias points at; default: live"
    )
    return selector


def add_full(parser: argparse.ArgumentParser) -> None:
    """Adds whether long lists are shown as a whole."""
    parser.add_argument(
        "--full",
        action="store_true",
        help="show every class, confusion and candidate, not only the first ones",
    )


def positive(text: str) -> float:
    """Reads a number above 0."""
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def version_or_latest(text: str) -> int | Literal["latest"]:
    """Reads a version's number, or "latest"."""
    if text == "latest":
        return "latest"
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a version's number, from 1, nor latest")
    return int(text)


def pair(text: str) -> tuple[str, str]:
    """Reads a key and its value, with "=" between them."""
    key, found, value = text.partition("=")
    if not found or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is no pair; give KEY=VALUE, for example owner=ann")
    return key, value


def names(text: str) -> list[str]:
    """Reads names: separated by commas, or a list in JSON."""
    if isinstance(listed := list_of(text), list):  # a list in JSON, for labels that contain commas
        return [str(name) for name in listed if name is not None]
    return [name.strip() for name in text.split(",") if name.strip()]
