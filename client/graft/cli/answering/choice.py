"""The version that answers a whole file, whatever becomes of its alias meanwhile."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from graft._client.sync import Client
from graft._data_files.answers.unfinished import Straight, Unfinished
from graft._data_files.columns import DataError
from graft.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Chosen:
    """A version, or the interim head of an adaptation."""

    asked: str
    """How it was asked for."""
    version: int
    """Its number; 0: an interim head."""
    task: str
    """What it answers with."""
    labels: tuple[str, ...]
    """The labels that it answers with; none of an interim head or a regression."""
    identity: str
    """What tells it from others that had this name and number."""


def chosen(args: argparse.Namespace, client: Client, part: Unfinished | Straight) -> Chosen:
    """Chooses the version: the one that an interrupted run was begun with, where the same is asked for.

    Raises:
        DataError: That version is gone, or an interim head cannot do what is asked for.
        GraftError: There is no such model or version.
    """
    asked = f"version {args.version}" if args.version is not None else f"alias {args.alias or 'live'}"
    if args.adaptation:
        if args.scores:
            raise DataError("--scores needs a version: the labels of an open adaptation are not settled")
        return Chosen(f"adaptation {args.adaptation}", 0, "single_label", (), "")
    begun = part.run if isinstance(part, Unfinished) and part.rows else {}
    if begun.get("asked") != asked or begun.get("model") != args.model:
        found = client.version(args.model, args.version, alias=args.alias)
    else:
        try:
            found = client.version(args.model, int(begun["version"]))
        except NotFoundError:
            raise DataError(
                f"version {begun['version']} of {args.model}, which answered the rows of the interrupted run, is gone; "
                "--restart answers all rows by another"
            ) from None
    identity = f"{found.adaptation_id}/{found.commit_id}"
    labels = tuple(it.name for it in found.labels)
    return Chosen(asked, found.version, found.report.task, labels, identity)
