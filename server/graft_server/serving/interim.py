"""The interface through which serving finds the interim heads of open adaptations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from graft_server.domain.examples import Label
from graft_server.encoding.encoder import Features
from graft_server.encoding.trunk import Trunk
from graft_server.heads import HeadOutput
from graft_server.heads.head import AnsweringHead


class Interim(Protocol):
    """One interim head. It never changes: later learning makes another one."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def next_sequence(self) -> int:
        """The number of changes, of all writers, that it has learned."""

    @property
    def labels(self) -> Sequence[Label]:
        """The labels of its columns."""

    @property
    def trunk(self) -> Trunk:
        """The backbone whose features it reads."""

    @property
    def head(self) -> AnsweringHead:
        """The fitted head."""

    def scores(self, features: Features) -> HeadOutput:
        """Returns its output for n rows."""


class InterimHeads(Protocol):
    """Finds interim heads."""

    async def interim(self, model: str, adaptation_id: str) -> Interim:
        """Returns the newest head of an open adaptation.

        Raises:
            MissingError: There is no such adaptation.
            StateError: The adaptation is not open, or its head has not learned anything yet.
        """
