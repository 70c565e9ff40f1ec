"""What a server does with an adaptation, and why it ends that."""

from __future__ import annotations

import enum


class Work(enum.Enum):
    """What this server does with an adaptation.

    ::

        GOING_ON <--examples were erased--> PAUSED
        GOING_ON, PAUSED                    --> CANCELLED, DRAINED or DELETED
        CANCELLED                           --> DRAINED or DELETED
        DRAINED                             --> DELETED

    The last three are the ends, each more final than the one before, and each may come again; `Reason` says why they
    come.
    """

    GOING_ON = enum.auto()
    """Changes are taken in, commits carried out, segments put together."""
    PAUSED = enum.auto()
    """The same, but no segments are put together: what is put together now still has examples that were erased."""
    CANCELLED = enum.auto()
    """No more commits are carried out. Watchers may go on watching."""
    DRAINED = enum.auto()
    """Nothing is done any more: the next server goes on."""
    DELETED = enum.auto()
    """Nothing is done any more, by whatever server."""


NEXT = {
    Work.GOING_ON: {Work.PAUSED, Work.CANCELLED, Work.DRAINED, Work.DELETED},
    Work.PAUSED: {Work.GOING_ON, Work.CANCELLED, Work.DRAINED, Work.DELETED},
    Work.CANCELLED: {Work.CANCELLED, Work.DRAINED, Work.DELETED},
    Work.DRAINED: {Work.DRAINED, Work.DELETED},
    Work.DELETED: {Work.DELETED},
}
"""The states that may follow each state. An end comes again to do what a fault cut off."""


class Reason(enum.Enum):
    """Why this server ends its work on an adaptation. The value is the state that follows."""

    CANCELLED = Work.CANCELLED
    """It was cancelled, here or by another server. Commits without an outcome get one: versions stay."""
    DRAINING = Work.DRAINED
    """This server goes away. Callers hear how far they are and call again; the next server goes on."""
    DELETED = Work.DELETED
    """Its model was deleted."""
