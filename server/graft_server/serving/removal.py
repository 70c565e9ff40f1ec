"""Deleting: first the catalogue says so, then what only the deleted one needs is removed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from graft_server.errors import InvalidError
from graft_server.serving.versions import Versions
from graft_server.store.adaptations import remove_adaptations
from graft_server.store.catalogue import Catalogue
from graft_server.store.objects import Objects
from graft_server.store.versions import remove_version


@dataclass(frozen=True, slots=True)
class Removal:
    """Deletes versions and models."""

    objects: Objects
    catalogue: Catalogue
    versions: Versions

    async def version(self, model: str, number: int) -> None:
        """Deletes a version. Its number is never used again; its examples stay with their adaptation.

        Raises:
            MissingError: There is no such version.
            StateError: An alias points at it.
        """
        if number < 1:
            raise InvalidError(
                f"version is {number}: versions count from 1.", reason="VERSION_INVALID", field="version"
            )
        deleted = await asyncio.to_thread(self.catalogue.delete_version, model, number)
        self.versions.forget(deleted)
        await asyncio.to_thread(remove_version, self.objects, deleted.manifest)

    async def model(self, name: str) -> None:
        """Deletes a model with its versions, adaptations and examples. Its jobs must have been cancelled.

        Raises:
            MissingError: There is no such model.
        """
        deleted = await asyncio.to_thread(self.catalogue.delete_model, name)
        for version in deleted.versions.values():
            self.versions.forget(version)
            await asyncio.to_thread(remove_version, self.objects, version.manifest)
        await asyncio.to_thread(remove_adaptations, self.objects, name)
