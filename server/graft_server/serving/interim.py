"""What serving asks of open adaptations: their interim heads, which are no versions yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from graft_server.domain.examples import Label
from graft_server.encoding.encoder import Features
from graft_server.encoding.trunk import Trunk
from graft_server.heads import Head, HeadOutput


class Interim(Protocol):
    """One interim head, which never changes: what is learned later makes another one."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def next_sequence(self) -> int:
        """How many changes, of all writers, it has learned."""

    @property
    def labels(self) -> Sequence[Label]:
        """What its columns mean."""

    @property
    def trunk(self) -> Trunk:
        """The backbone whose features it reads."""

    @property
    def head(self) -> Head:
        """What it was fitted to be."""

    def scores(self, features: Features) -> HeadOutput:
        """What it says of n rows."""


class InterimHeads(Protocol):
    """Where interim heads are found."""

    async def interim(self, model: str, adaptation_id: str) -> Interim:
        """The newest head of an open adaptation.

        Raises:
            MissingError: There is no such adaptation.
            StateError: It is not open, or has nothing to answer with yet.
        """
