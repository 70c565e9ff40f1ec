"""Deleting: first the catalogue says so, then what only the deleted one needs is removed.

Whatever is cut off in between, by a crash or a store that fails, is finished by `finish`, at the next start, and
by asking for the same once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from graft_server.domain.errors import InvalidError
from graft_server.domain.model import Erasure, ManifestRef, Version
from graft_server.erasing.contract import REDACT, Redacting, Written
from graft_server.jobs.job import Jobs, unwatched
from graft_server.sharing.background import paced, survived
from graft_server.store.adaptations.erasure import Wanted, erase, give_up, sweep
from graft_server.store.adaptations.listing import (
    deleted_adaptations,
    list_adaptations,
    list_all_adaptations,
    remove_adaptation,
)
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.stored_examples import earlier_ids, ids_of_subject
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.snapshot import Snapshot
from graft_server.store.catalogue.versions import (
    read_manifest,
    remove_version,
    version_folder,
    versions_folder,
)
from graft_server.store.objects.objects import Objects

_log = logging.getLogger(__name__)

OnEntry = Callable[[], Awaitable[None]]
"""Does what the catalogue's newest entries ask for."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """Deletes versions, models and examples."""

    objects: Objects
    catalogue: Catalogue
    withdraw: Callable[[Version], None]
    """Takes a deleted version out of service."""
    grace_s: float
    """How long objects are still there after they were replaced, for those who are reading them."""
    jobs: Jobs

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
        await self._require_known()
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
        snapshot = await self._require_known()
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
        for left in await asyncio.to_thread(deleted_adaptations, self.objects, name, deletion):
            await asyncio.to_thread(remove_adaptation, self.objects, name, left)
        await asyncio.to_thread(self._delete_replaced, name)

    async def finish_all(self) -> None:
        """Finishes deletions and erasures that were cut off; one that fails does not keep the others.

        Raises:
            NewerError: A newer release wrote to the catalogue: it may know of what would be removed here.
        """
        await self._require_known()
        for name in self.catalogue.snapshot.deletions:
            await survived(self.finish(name), f"finishing the deletion of model {name}", _log)
        found = await asyncio.to_thread(lambda: list(list_all_adaptations(self.objects, gently=True)))
        async for model, stored in paced(found):
            await survived(
                self._finish_erasures(model, stored), f"finishing an erasure in model {model}", _log
            )

    async def _finish_erasures(self, model: str, stored: str) -> None:
        store = await asyncio.to_thread(AdaptationStore.load, self.objects, model, stored)
        snapshot = self.catalogue.snapshot
        announced = store.generations.last_erasure <= snapshot.erased.get((model, stored), 0)
        if (
            announced
            and model not in snapshot.replaced
            and not await asyncio.to_thread(sweep, self.objects, store)
        ):
            return
        await self._complete(model, [store], _nothing)

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
        await self._require_known()
        stores = await asyncio.to_thread(self._stores, model)
        count = await asyncio.to_thread(self._erase, stores, frozenset(ids), subject)
        deleted = await self._complete(model, stores, forget, delete_versions=delete_versions)
        affected = () if delete_versions else tuple(it.number for it in self._affected(model))
        return Erasure(count, affected, deleted)

    async def _require_known(self) -> Snapshot:
        """Returns the newest state of the catalogue; raises NewerError if it has entries of a newer release."""
        snapshot = await asyncio.to_thread(self.catalogue.refresh)
        snapshot.require_known()
        return snapshot

    def _stores(self, model: str) -> list[AdaptationStore]:
        names = list_adaptations(self.objects, model)
        if not names:
            self.catalogue.snapshot.model(model)
        return [AdaptationStore.load(self.objects, model, it) for it in names]

    def _erase(self, stores: Sequence[AdaptationStore], ids: frozenset[str], subject: str) -> int:
        if subject:
            # An id names the same example in all of the model's adaptations, whatever a later state says of whose
            # it is.
            ids |= {it for store in stores for it in ids_of_subject(store, subject)}
        while earlier := {it for store in stores for it in earlier_ids(store, ids)} - ids:
            ids |= earlier
        wanted = Wanted(ids, frozenset({subject} - {""}))
        return sum(erase(self.objects, store, wanted) for store in stores)

    async def _complete(
        self, model: str, stores: Sequence[AdaptationStore], forget: OnEntry, *, delete_versions: bool = False
    ) -> tuple[int, ...]:
        """Does what follows from erasures, also from one that a crash cut off before; returns deleted versions."""
        announced = (await asyncio.to_thread(self.catalogue.refresh)).erased
        # Listed before anything is announced, and nothing else is deleted at the end: what another server erases
        # from now on, versions have to be compared with first.
        garbage = await asyncio.to_thread(self._garbage, stores)
        fresh = [it for it in stores if it.generations.last_erasure > announced.get((model, it.name), 0)]
        unpublished: list[str] = []
        if fresh:
            # Versions that are being trained, or that a crash left: they were read before the erasure is announced,
            # so the catalogue takes them no more.
            unpublished = await asyncio.to_thread(self.objects.keys, versions_folder(model))
            await asyncio.to_thread(self._announce, model, fresh)
            await forget()
        deleted = await self._discard(model) if delete_versions else ()
        redacted = any(garbage) and await self._redact(model, stores)
        if fresh or redacted:
            await asyncio.sleep(self.grace_s)
        await asyncio.to_thread(self._delete, model, stores, garbage, unpublished)
        return deleted

    def _affected(self, model: str) -> list[Version]:
        known = self.catalogue.snapshot.models.get(model)
        return [it for it in known.versions.values() if it.erased] if known else []

    async def _discard(self, model: str) -> tuple[int, ...]:
        """Deletes the versions that may have been trained on erased examples."""
        affected = self._affected(model)
        for version in affected:
            await asyncio.to_thread(self.catalogue.discard_version, model, version.number)
            await self._remove(version)
        return tuple(it.number for it in affected)

    async def _redact(self, model: str, stores: Sequence[AdaptationStore]) -> bool:
        """Takes what versions hold of erased examples out of them: features in their heads, ids in their reports.

        Returns:
            Whether some were written anew.
        """
        changed = False
        while affected := self._affected(model):
            payload = Redacting(
                model,
                tuple(it.name for it in stores),
                tuple(Written(it.manifest, it.redacted) for it in affected),
            )
            written = (await self.jobs.run(REDACT.job(payload, model), unwatched)).versions
            changed = changed or any(written)
            if await asyncio.to_thread(self._replace, affected, written):
                break
            await asyncio.to_thread(self.catalogue.refresh)
        return changed

    def _replace(self, versions: Sequence[Version], written: Sequence[ManifestRef | None]) -> bool:
        """Puts versions that were written anew in the place of what they were; False if some had changed since."""
        as_read = True
        for version, manifest in zip(versions, written, strict=True):
            if manifest is None:
                continue
            if self.catalogue.redact(version, manifest):
                continue
            as_read = False
            remove_version(self.objects, manifest)
        return as_read

    def _garbage(self, stores: Sequence[AdaptationStore]) -> list[list[str]]:
        for it in stores:
            give_up(self.objects, it)
        return [sweep(self.objects, it) for it in stores]

    def _announce(self, model: str, stores: Sequence[AdaptationStore]) -> None:
        generations = {it.name: it.generations for it in stores}

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

        last = {stored: it.last_erasure for stored, it in generations.items()}
        self.catalogue.erase_examples(model, last, affected)

    def _delete(
        self,
        model: str,
        stores: Sequence[AdaptationStore],
        garbage: Sequence[Sequence[str]],
        unpublished: Sequence[str],
    ) -> None:
        known = self.catalogue.snapshot.models.get(model)
        published = {version_folder(it.manifest) for it in known.versions.values()} if known else set()
        self.objects.delete([it for it in unpublished if _folder(it) not in published])
        self._delete_replaced(model)
        for store, keys in zip(stores, garbage, strict=True):
            self.objects.delete(keys)
            erasure = store.generations.last_erasure
            late = sweep(self.objects, store)  # what was about to be written when it was listed
            if store.generations.last_erasure == erasure:
                self.objects.delete(late)

    def _delete_replaced(self, model: str) -> None:
        """Deletes what versions were before they were written anew."""
        if replaced := {version_folder(it) for it in self.catalogue.snapshot.replaced.get(model, ())}:
            versions = self.objects.keys(versions_folder(model))
            self.objects.delete([it for it in versions if _folder(it) in replaced])

    async def _remove(self, version: Version) -> None:
        self.withdraw(version)
        await asyncio.to_thread(remove_version, self.objects, version.manifest)


def _folder(key: str) -> str:
    return key.rpartition("/")[0] + "/"


async def _nothing() -> None:
    """At start, nothing is in memory yet."""
