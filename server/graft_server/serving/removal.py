"""Deleting: first the catalogue says so, then what only the deleted one needs is removed.

Whatever is cut off in between, by a crash or a store that fails, is finished by `finish`, at the next start, and
by asking for the same once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from graft_server.errors import DomainError, InvalidError
from graft_server.serving.versions import Versions
from graft_server.store.adaptations import (
    AdaptationStore,
    deleted_adaptations,
    list_adaptations,
    list_all_adaptations,
)
from graft_server.store.catalogue import Catalogue, Version
from graft_server.store.examples import ids_of_subject
from graft_server.store.objects import Objects
from graft_server.store.rewriting import Wanted, erase, sweep
from graft_server.store.versions import read_manifest, remove_version, version_folder, versions_folder

_log = logging.getLogger(__name__)

OnEntry = Callable[[], Awaitable[None]]
"""Does what the catalogue's newest entries ask for."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What became of a wish to erase examples."""

    examples: int
    """How many records of them were erased, over all adaptations."""
    affected: tuple[int, ...] = ()
    """The versions that may have been trained on examples erased now or before, and are still there."""
    deleted: tuple[int, ...] = ()
    """Those of them that were deleted."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Deletes versions, models and examples."""

    objects: Objects
    catalogue: Catalogue
    versions: Versions
    grace_s: float
    """How long objects are still there after they were replaced, for those who are reading them."""
    remove_remains: Callable[[str, str], Awaitable[None]]
    """Removes what a deletion of its model has left of an adaptation; nobody begins another of that id meanwhile."""

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
        await self._remove(deleted)

    async def model(self, name: str, *, stop: OnEntry) -> None:
        """Deletes a model with its versions, adaptations and examples, also one that was never published.

        Args:
            name: The model.
            stop: Ends the work on adaptations that the catalogue says are deleted.

        Raises:
            MissingError: There is no such model, and nothing is left of one.
        """
        snapshot = await asyncio.to_thread(self.catalogue.refresh)
        deletion = snapshot.deletions.get(name, 0)
        left = await asyncio.to_thread(deleted_adaptations, self.objects, name, deletion)
        alive = set(await asyncio.to_thread(list_adaptations, self.objects, name)) - set(left)
        if alive or not left or name in snapshot.models:
            deleted = await asyncio.to_thread(self.catalogue.delete_model, name, unpublished=bool(alive))
            for version in deleted.versions.values() if deleted else ():
                await self._remove(version)
        await stop()
        await self.finish(name)

    async def finish(self, name: str) -> None:
        """Removes what a deletion of a model has left of it."""
        deletion = self.catalogue.snapshot.deletions.get(name, 0)
        for adaptation_id in await asyncio.to_thread(deleted_adaptations, self.objects, name, deletion):
            await self.remove_remains(name, adaptation_id)

    async def finish_all(self) -> None:
        """Finishes deletions and erasures that were cut off; one that fails does not keep the others."""
        for name in self.catalogue.snapshot.deletions:
            await self._trying(name, self.finish(name))
        by_model: dict[str, list[str]] = {}
        for model, adaptation_id in await asyncio.to_thread(lambda: list(list_all_adaptations(self.objects))):
            by_model.setdefault(model, []).append(adaptation_id)
        for model, ids in by_model.items():
            for adaptation_id in ids:
                await self._trying(model, self._finish_erasures(model, adaptation_id))

    async def _finish_erasures(self, model: str, adaptation_id: str) -> None:
        store = await asyncio.to_thread(AdaptationStore.load, self.objects, model, adaptation_id)
        await self._complete(model, [store], _nothing)

    async def _trying(self, model: str, work: Awaitable[None]) -> None:
        try:
            await work
        except DomainError as error:
            _log.error("a deletion in model %s could not be finished: %s", model, error.message)

    async def examples(
        self, model: str, ids: Collection[str], subject: str, *, delete_versions: bool, forget: OnEntry
    ) -> Erasure:
        """Erases examples from all adaptations of a model, with their features, for good.

        Args:
            model: The model; it need not have a version.
            ids: The examples to erase.
            subject: Whose examples to erase, too; "": nobody's.
            delete_versions: Whether to delete the versions that may have been trained on them, too.
            forget: Lets go of what is in memory of examples that the catalogue says are erased.

        Raises:
            MissingError: There is no such model.
            StoreError: Something could not be erased; ask again.
        """
        stores = await asyncio.to_thread(self._stores, model)
        count = await asyncio.to_thread(self._erase, stores, frozenset(ids), subject)
        await self._complete(model, stores, forget)
        known = self.catalogue.snapshot.models.get(model)
        affected = [it for it in known.versions.values() if it.erased] if known else []
        if not delete_versions:
            return Erasure(count, affected=tuple(it.number for it in affected))
        for version in affected:
            await asyncio.to_thread(self.catalogue.discard_version, model, version.number)
            await self._remove(version)
        return Erasure(count, deleted=tuple(it.number for it in affected))

    def _stores(self, model: str) -> list[AdaptationStore]:
        ids = list_adaptations(self.objects, model)
        if not ids:
            self.catalogue.snapshot.model(model)
        return [AdaptationStore.load(self.objects, model, it) for it in ids]

    def _erase(self, stores: Sequence[AdaptationStore], ids: frozenset[str], subject: str) -> int:
        if subject:
            # An id names the same example in all of the model's adaptations, whatever a later state says of whose
            # it is.
            ids |= {it for store in stores for it in ids_of_subject(store, subject)}
        wanted = Wanted(ids, frozenset({subject} - {""}))
        return sum(erase(self.objects, store, wanted) for store in stores)

    async def _complete(self, model: str, stores: Sequence[AdaptationStore], forget: OnEntry) -> None:
        """Does what follows from erasures, also from one that a crash cut off before."""
        announced = (await asyncio.to_thread(self.catalogue.refresh)).erased
        fresh = [
            it for it in stores if it.generations.last_erasure > announced.get((model, it.adaptation_id), 0)
        ]
        unpublished: list[str] = []
        if fresh:
            # Versions that are being trained, or that a crash left: they were read before the erasure is announced,
            # so the catalogue takes them no more.
            unpublished = await asyncio.to_thread(self.objects.keys, versions_folder(model))
            await asyncio.to_thread(self._announce, model, fresh)
            await forget()
            await asyncio.sleep(self.grace_s)
        await asyncio.to_thread(self._delete, model, stores, unpublished)

    def _announce(self, model: str, stores: Sequence[AdaptationStore]) -> None:
        generations = {it.adaptation_id: it.generations for it in stores}

        def affected(version: Version) -> bool:
            sources = read_manifest(self.objects, version.manifest).sources
            return any(
                sequence < source.watermarks.get(writer_id, 0)
                for source in sources
                if source.adaptation_id in generations
                for writer_id, sequence in generations[source.adaptation_id]
                .erased_since(source.generation)
                .items()
            )

        last = {adaptation_id: it.last_erasure for adaptation_id, it in generations.items()}
        self.catalogue.erase_examples(model, last, affected)

    def _delete(self, model: str, stores: Sequence[AdaptationStore], unpublished: Sequence[str]) -> None:
        known = self.catalogue.snapshot.models.get(model)
        published = {version_folder(it.manifest) for it in known.versions.values()} if known else set()
        self.objects.delete([it for it in unpublished if it.rpartition("/")[0] + "/" not in published])
        for store in stores:
            self.objects.delete(sweep(self.objects, store))

    async def _remove(self, version: Version) -> None:
        self.versions.forget(version)
        await asyncio.to_thread(remove_version, self.objects, version.manifest)


async def _nothing() -> None:
    """At start, nothing is in memory yet."""
