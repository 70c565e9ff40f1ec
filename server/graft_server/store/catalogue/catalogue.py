"""The catalogue of models, versions and aliases: one numbered log that all servers share.

A version number or an alias move is won by whoever creates the next entry; the loser reads it, checks its
own proposal against the new state, and tries the number after. Entries are small. Now and then the state after them is
stored, so that a start replays only the entries after it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from graft_server.domain.errors import (
    ConflictError,
    CorruptError,
    MissingError,
    NewerError,
    StateError,
    StoreError,
)
from graft_server.domain.metadata import updated
from graft_server.domain.model import ManifestRef, Model, Version
from graft_server.domain.names import listed, shown
from graft_server.store.catalogue import moves, stored_state
from graft_server.store.catalogue.entries import (
    CancelAdaptation,
    DeleteModel,
    DeleteVersion,
    Entry,
    EraseExamples,
    MoveAlias,
    Publish,
    Redact,
    SetMetadata,
)
from graft_server.store.catalogue.snapshot import Replay, Snapshot
from graft_server.store.objects.numbered_log import NumberedLog
from graft_server.store.objects.objects import ObjectExistsError, ObjectMissingError, Objects

_log = logging.getLogger(__name__)


class Catalogue:
    """The catalogue of one store. Thread-safe; methods other than `snapshot` read or write the store."""

    def __init__(self, objects: Objects) -> None:
        """Reads the newest stored state, and the log from there on as it stands."""
        self._objects = objects
        self._log: NumberedLog[Entry] = NumberedLog(objects, "catalogue/", Entry)
        self._lock = threading.Lock()
        self._state = Replay()
        self._damaged: list[str] = []
        self._newer: list[str] = []
        self._stored = 0
        """The number of entries after which the state was last stored."""
        self._restore()
        self._publish_snapshot()
        self._log.prefetch()
        self._read()

    @property
    def snapshot(self) -> Snapshot:
        """The state as last read. Costs nothing."""
        return self._snapshot

    def refresh(self) -> Snapshot:
        """Reads the entries written since the last read, and returns the state."""
        with self._lock:
            self._read()
            # The one that appends stores the state; this one, if that did not.
            self._store_if_due(2)
            return self._snapshot

    def publish(
        self,
        *,
        model: str,
        adaptation_id: str,
        commit_id: str,
        manifest: ManifestRef,
        summary: Mapping[str, Any],
        metadata: Mapping[str, str] = MappingProxyType({}),
        promote: bool = True,
        born: int | None = None,
        read_at: int | None = None,
        renews: int = 0,
    ) -> Version:
        """Gives a version the model's next number and moves `live` to it, unless that is pinned.

        A repeat for the same model, adaptation and commit returns the first version, even if that
        was deleted since.

        Args:
            model: The model.
            adaptation_id: The adaptation that the version comes from.
            commit_id: The commit that asked for it.
            manifest: Its parts.
            summary: Figures of its report.
            metadata: The metadata of its adaptation.
            promote: Whether `live` is to point at it.
            born: The number of entries when the adaptation was started; None: not checked.
            read_at: The number of entries before the examples were read; None: not checked.
            renews: The version whose place it takes: the aliases that point at that one follow, pinned or not, and no
                others move; and it may be of a cancelled adaptation. 0: none.

        Raises:
            StateError: A newer version than the renewed one was published, or that one was deleted
                (RENEWAL_SUPERSEDED); the adaptation was cancelled (ADAPTATION_CANCELLED), or deleted with its model
                (MODEL_DELETED).
            ConflictError: Examples were erased since they were read (EXAMPLES_ERASED): train again.
        """
        published: list[Version] = []

        def proposal() -> Entry | None:
            published[:] = filter(None, [self._state.published(model, adaptation_id, commit_id)])
            if published:
                return None
            self._require_wanted(model, adaptation_id if not renews else "", born, read_at)
            known = self._state.models.get(model)
            if renews:
                aliases, held_back = moves.by_renewal(model, known, adaptation_id, commit_id, renews)
            else:
                aliases, held_back = moves.by_publication(known, promote=promote)
            return Publish(
                time=datetime.now(UTC),
                model=model,
                version=self._state.last_numbers.get(model, 0) + 1,
                adaptation_id=adaptation_id,
                commit_id=commit_id,
                manifest=manifest,
                aliases=aliases,
                summary=dict(summary),
                metadata=dict(metadata),
                held_back=held_back,
            )

        with self._lock:
            self._write(proposal)
            if published:
                return published[0]
            known = self._snapshot.models[model]
            return known.versions[self._state.last_numbers[model]]

    def published(self, model: str, adaptation_id: str, commit_id: str) -> Version | None:
        """Reads which version a commit became, even if it was deleted since; None: it was not published."""
        with self._lock:
            self._read()
            return self._state.published(model, adaptation_id, commit_id)

    def move_alias(
        self,
        model: str,
        alias: str,
        version: int,
        expected_version: int | None = None,
        *,
        if_newest: bool = False,
    ) -> Model:
        """Points an alias at a version, or removes it if version is 0.

        `live` is pinned there if another version is the newest at that moment, and is released if not.

        Args:
            model: The model.
            alias: The alias.
            version: The version.
            expected_version: Where the alias should point now, 0 for nowhere; None: not checked.
            if_newest: Whether to refuse it where the version is not the newest (NEWEST_MOVED).

        Raises:
            MissingError: There is no such model, version, or alias to remove.
            ConflictError: The alias does not point at expected_version, or the version is not the newest.
            InvalidError: "live" was to be removed.
        """

        def proposal() -> Entry | None:
            return moves.by_hand(
                self._snapshot.model(model), alias, version, expected_version, if_newest=if_newest
            )

        with self._lock:
            self._write(proposal)
            return self._snapshot.model(model)

    def update_metadata(self, model: str, added: Mapping[str, str], removed: Sequence[str]) -> Model:
        """Adds pairs to a model's metadata, or gives them other values, and removes others.

        Raises:
            MissingError: There is no such model.
            InvalidError: They would be more than a model may have.
        """

        def proposal() -> Entry | None:
            known = self._snapshot.model(model)
            pairs = updated(known.metadata, added, removed)
            if pairs == dict(known.metadata):
                return None
            return SetMetadata(time=datetime.now(UTC), model=model, metadata=pairs)

        with self._lock:
            self._write(proposal)
            return self._snapshot.model(model)

    def delete_version(self, model: str, version: int) -> Version:
        """Deletes a version and returns it; the caller removes its objects.

        Raises:
            MissingError: There is no such model or version.
            StateError: An alias points at it.
        """
        deleted: list[Version] = []

        def proposal() -> Entry:
            known = self._snapshot.model(model)
            deleted[:] = [known.version(version)]
            aliases = sorted(alias for alias, number in known.aliases.items() if number == version)
            if aliases:
                raise StateError(
                    f"Version {version} of model {shown(model)} is what {listed(aliases)} "
                    "points at: point the alias elsewhere with SetAlias first.",
                    reason="VERSION_IN_USE",
                    field="version",
                )
            return DeleteVersion(time=datetime.now(UTC), model=model, version=version)

        with self._lock:
            self._write(proposal)
        return deleted[0]

    def delete_model(self, model: str, *, unpublished: bool = False) -> Model | None:
        """Deletes a model and returns it; the caller removes its objects.

        Args:
            model: The model.
            unpublished: Whether it has adaptations, so that it exists although it has no version.

        Raises:
            MissingError: There is no such model.
        """
        deleted: list[Model | None] = []

        def proposal() -> Entry:
            known = self._state.models.get(model)
            deleted[:] = [known if unpublished else self._snapshot.model(model)]
            return DeleteModel(time=datetime.now(UTC), model=model)

        with self._lock:
            self._write(proposal)
        return deleted[0]

    def cancel_adaptation(self, model: str, adaptation_id: str) -> None:
        """Ensures that no server publishes anything more of an adaptation."""

        def proposal() -> Entry | None:
            if (model, adaptation_id) in self._state.cancelled:
                return None
            return CancelAdaptation(time=datetime.now(UTC), model=model, adaptation_id=adaptation_id)

        with self._lock:
            self._write(proposal)

    def erase_examples(
        self, model: str, generations: Mapping[str, int], affected: Callable[[Version], bool]
    ) -> None:
        """Tells all servers that examples were erased.

        Args:
            model: The model, which may have no version yet.
            generations: Adaptation to the generation of its segments that erased them.
            affected: Whether a version may have been trained on them; may read the store.
        """

        def proposal() -> Entry:
            known = self._state.models.get(model)
            versions = known.versions.values() if known else ()
            return EraseExamples(
                time=datetime.now(UTC),
                model=model,
                versions=tuple(it.number for it in versions if affected(it)),
                generations=dict(generations),
            )

        with self._lock:
            self._write(proposal)

    def redact(self, before: Version, manifest: ManifestRef) -> bool:
        """Gives a version its rewritten parts, unless the version has changed or was deleted meanwhile."""

        def current() -> Version | None:
            known = self._state.models.get(before.model)
            return known.versions.get(before.number) if known else None

        def proposal() -> Entry | None:
            version = current()
            if version is None or version.manifest != before.manifest:
                return None
            return Redact(
                time=datetime.now(UTC), model=before.model, version=before.number, manifest=manifest
            )

        with self._lock:
            self._write(proposal)
            version = current()
            return version is not None and version.manifest == manifest

    def discard_version(self, model: str, version: int) -> Version | None:
        """Deletes a version even if aliases point at it, or returns None if there is no such version.

        The aliases then point at the newest version that was not trained on erased examples, or nowhere, and none of
        them is pinned.
        """
        while True:
            known = self.refresh().models.get(model)
            if known is None or version not in known.versions:
                return None
            target = max((it.number for it in known.versions.values() if not it.erased), default=0)
            for alias in [it for it, number in known.aliases.items() if number == version]:
                self._point(model, alias, version, target)
            try:
                return self.delete_version(model, version)
            except StateError:
                continue  # an alias was pointed at it meanwhile
            except MissingError:
                return None

    def _point(self, model: str, alias: str, version: int, target: int) -> None:
        """Moves an alias away from a version; even "live" may then point nowhere."""

        def proposal() -> Entry | None:
            known = self._state.models.get(model)
            if known is None or known.aliases.get(alias) != version:
                return None
            return MoveAlias(time=datetime.now(UTC), model=model, alias=alias, version=target)

        with self._lock:
            self._write(proposal)

    def _require_wanted(self, model: str, adaptation_id: str, born: int | None, read_at: int | None) -> None:
        if born is not None and self._state.deletions.get(model, 0) > born:
            raise StateError(
                f"Model {shown(model)} was deleted, and adaptation {shown(adaptation_id)} with it: start "
                "another one.",
                reason="MODEL_DELETED",
            )
        if (model, adaptation_id) in self._state.cancelled:
            raise StateError(
                f"Adaptation {shown(adaptation_id)} of model {shown(model)} is cancelled: start another one, "
                "with base_version to go on from its examples.",
                reason="ADAPTATION_CANCELLED",
            )
        if read_at is not None and self._state.erasures.get(model, 0) > read_at:
            raise ConflictError(
                f"Examples of model {shown(model)} were erased while a version was trained: train again.",
                reason="EXAMPLES_ERASED",
            )

    def _write(self, proposal: Callable[[], Entry | None]) -> None:
        """Appends the entry that `proposal` returns for the newest state; None: nothing needs to change."""
        while True:
            self._read()
            entry = proposal()
            if entry is None:
                return
            self._require_whole()
            try:
                self._log.append(entry)
            except ObjectExistsError:
                continue
            self._state.apply(entry, self._log.next_number - 1)
            self._publish_snapshot()
            self._store_if_due()
            return

    def _restore(self) -> None:
        """Begins with the newest stored state that the log bears out."""
        for state, entries, last_entry in stored_state.read_newest(self._objects):
            key = self._log.key(entries)
            try:
                borne_out = stored_state.entry_digest(self._objects.get(key)) == last_entry
            except (ObjectMissingError, CorruptError) as error:
                # The state knows better: the entry was there, and writing it again would lose what others know.
                _log.error("catalogue: %s", error.message)
                self._damaged.append(key)
                borne_out = True
            except NewerError:
                borne_out = False
            if borne_out:
                self._state, self._stored, self._log.next_number = state, entries, entries + 1
                return
            _log.warning("entry %s is another one than in the stored state of the catalogue", key)

    def _store_if_due(self, late: int = 1) -> None:
        """Stores the state if there are `late` times as many entries since the last time as another one is worth."""
        entries = self._log.next_number - 1
        if (
            self._damaged
            or self._newer
            or not stored_state.due(self._state, (entries - self._stored) // late)
        ):
            return
        try:
            self._stored = max(stored_state.stored(self._objects), default=0)
            if stored_state.due(self._state, entries - self._stored):  # else another server has
                last_entry = stored_state.entry_digest(self._objects.get(self._log.key(entries)))
                data = stored_state.encode(self._state, entries, last_entry)
                stored_state.write(self._objects, entries, data)
        except StoreError as error:
            _log.warning("the catalogue's state could not be stored: %s", error.message)
        self._stored = entries  # where it failed, it is tried again after as many entries

    def _require_whole(self) -> None:
        # An entry that cannot be read may have used the version number that we would use now.
        self._snapshot.require_known()
        if self._damaged:
            raise CorruptError(
                f"The catalogue cannot be changed while its entry {self._damaged[0]} is damaged: restore it "
                "from a copy of the store and restart the server. What is known of models is served.",
                reason="CATALOGUE_CORRUPT",
                metadata={"object": self._damaged[0]},
            )

    def _read(self) -> None:
        before = self._log.next_number
        while True:
            try:
                entry = self._log.read_next()
            except CorruptError as error:
                _log.error("catalogue: %s", error.message)
                self._damaged.append(self._log.key(self._log.next_number))
                self._log.skip()
                continue
            except NewerError as error:
                if not self._newer:
                    _log.error(
                        "catalogue: what newer servers write is served as far as it is known: %s",
                        error.message,
                    )
                self._newer.append(self._log.key(self._log.next_number))
                self._log.skip()
                continue
            if entry is None:
                break
            self._state.apply(entry, self._log.next_number - 1)
        if self._log.next_number != before:
            self._publish_snapshot()

    def _publish_snapshot(self) -> None:
        snapshot = self._state.snapshot(self._log.next_number - 1, self._damaged)
        self._snapshot = replace(snapshot, newer=tuple(self._newer))
