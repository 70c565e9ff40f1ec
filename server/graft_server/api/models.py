"""The calls on models: list, promote, delete, erase, export and measure."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from graft_server.adapting.adaptations import Adaptations
from graft_server.api.evaluation import EVALUATION_BYTES, EVALUATIONS_BYTES, Evaluation
from graft_server.api.example_lists import (
    ANY_EXAMPLE,
    check_wanted,
    place_of,
    require_some,
    some_of,
    token_of,
)
from graft_server.api.exports import Exports
from graft_server.api.keep_alive import alive
from graft_server.api.paging import bad_token, cut, named_key, page_size
from graft_server.api.suggesting import (
    ALL_SUGGESTING_BYTES,
    SUGGESTING_BYTES,
    Suggesting,
    checked_count,
    modality_of,
    unlabelled_among,
)
from graft_server.domain.backbone import BackboneDescription, BackboneInfo, BackboneState
from graft_server.domain.caller import asking
from graft_server.domain.errors import ConflictError, InvalidError, MissingError
from graft_server.domain.evaluated import EvaluatedVersion
from graft_server.domain.examples import Example, ExamplesWanted, StoredExample
from graft_server.domain.metadata import check_key, check_metadata
from graft_server.domain.model import (
    LIVE,
    BundleChunk,
    BundleFile,
    Erasure,
    Model,
    ModelRenewal,
    ReceivedFile,
    Version,
    VersionView,
)
from graft_server.domain.names import check_alias, check_model, shown
from graft_server.domain.paging import Listed, PageRequest
from graft_server.domain.prediction import Selector
from graft_server.domain.stream import Activity
from graft_server.domain.suggestion import SuggestionRequest, Suggestions
from graft_server.encoding.loading import TrunkState
from graft_server.encoding.trunk import Trunk
from graft_server.encoding.trunks import Trunks
from graft_server.erasing.deletion import Deletion
from graft_server.exporting.exporter import Exporter
from graft_server.serving.evaluator import Evaluator
from graft_server.serving.predictor import Predictor
from graft_server.serving.stored_inputs import Stored
from graft_server.serving.suggesting.suggester import Suggester
from graft_server.serving.versions import Versions
from graft_server.sharing.events import log_event
from graft_server.sharing.room import Room
from graft_server.sharing.threads import Threads
from graft_server.store.catalogue.catalogue import Catalogue

_log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
"""Of a bundle's file, at a time."""
_STATES = {
    TrunkState.UNLOADED: BackboneState.UNLOADED,
    TrunkState.LOADING: BackboneState.LOADING,
    TrunkState.READY: BackboneState.READY,
    TrunkState.FAILED: BackboneState.FAILED,
}


@dataclass(frozen=True, slots=True)
class ModelApi:
    """Models, for callers of any protocol."""

    catalogue: Catalogue
    versions: Versions
    predictor: Predictor
    trunks: Trunks
    exporter: Exporter
    adaptations: Adaptations
    deletion: Deletion
    learning: Threads
    """The threads on which figures are computed."""
    evaluations: Room = field(default_factory=lambda: Room(EVALUATIONS_BYTES, EVALUATION_BYTES))
    """Memory for what is kept until an evaluation ends."""
    suggesting: Room = field(default_factory=lambda: Room(ALL_SUGGESTING_BYTES, SUGGESTING_BYTES))
    """Memory for candidates until they are ranked."""
    exports: Exports = field(default_factory=Exports)
    """The exports that are carried out now."""
    renewal: Callable[[str], ModelRenewal | None] = lambda _: None
    """Says of a model what is done about its encoder."""

    async def list_models(self, prefix: str, page: PageRequest) -> AsyncGenerator[Listed[Model], None]:
        """Lists the models whose names begin with a prefix, by name."""
        first = named_key(page.token, "model")
        snapshot = self.catalogue.snapshot
        models, names = snapshot.models, snapshot.names.beginning(prefix, first)
        for name, token in cut(names, page_size(page.size), lambda it: f"model/{it}"):
            yield Listed(self._seen(models[name]), token)

    async def get_model(self, model: str) -> Model:
        """Describes one model.

        Raises:
            MissingError: There is none.
        """
        return self._seen(self.catalogue.snapshot.model(check_model(model)))

    def _seen(self, model: Model) -> Model:
        """Returns a model as callers see it."""
        renewal = self.renewal(model.name)
        return model if renewal is None else replace(model, renewal=renewal)

    async def list_versions(self, model: str, page: PageRequest) -> AsyncGenerator[Listed[VersionView], None]:
        """Lists a model's versions, newest first, with the figures of their reports.

        Raises:
            MissingError: There is no such model.
        """
        known = self.catalogue.snapshot.model(check_model(model))
        newest = _version_key(page.token)
        numbers = sorted((it for it in known.versions if newest is None or it <= newest), reverse=True)
        for number, token in cut(numbers, page_size(page.size), lambda it: f"version/{it}"):
            yield Listed(VersionView(known.versions[number], known.aliases_of(number)), token)

    async def get_version(self, model: str, selector: Selector) -> VersionView:
        """Describes one version, with its whole report.

        Raises:
            MissingError: There is none.
        """
        version = self.versions.resolve(model, selector)
        manifest, report = await self.versions.report(version)
        aliases = self.catalogue.snapshot.model(version.model).aliases_of(version.number)
        return VersionView(version, aliases, report, manifest.labels, manifest.extension)

    async def update_model(self, model: str, added: Mapping[str, str], removed: Sequence[str]) -> Model:
        """Adds pairs to a model's metadata, or gives them other values, removes others, and returns the model.

        Raises:
            InvalidError: A pair is not valid, one is both added and removed, or they would be too many.
            MissingError: There is no such model.
        """
        check_model(model)
        check_metadata(added, "set_metadata")
        for place, key in enumerate(removed):
            check_key(key, f"remove_metadata[{place}]")
            if key in added:
                raise InvalidError(
                    f"remove_metadata names {shown(key)}, which set_metadata sets: leave it out of one of them.",
                    reason="METADATA_INVALID",
                    field=f"remove_metadata[{place}]",
                )
        if not added and not removed:
            raise InvalidError(
                "Neither set_metadata nor remove_metadata names anything: say what to change.",
                reason="METADATA_UNNAMED",
                field="set_metadata",
            )
        changed = await asyncio.to_thread(self.catalogue.update_metadata, model, added, removed)
        return self._seen(changed)

    async def set_alias(
        self, model: str, alias: str, version: int, expected: int | None = None, *, latest: bool = False
    ) -> Model:
        """Points an alias at a version, and returns the model after that.

        Publications do not move `live` from a version that was not the newest when it was pointed there.

        Args:
            model: The model.
            alias: The alias.
            version: The version's number; 0: the alias is removed.
            expected: The version that the alias should point at now, 0 for none; None: not checked.
            latest: Whether to point it at the newest version; `version` is 0 then.

        Raises:
            MissingError: There is no such model, version or alias.
            ConflictError: The alias points elsewhere.
        """
        check_model(model)
        check_alias(alias)
        if latest and version:
            raise InvalidError(
                f"latest is set, and version is {version}: leave one of them out.",
                reason="VERSION_INVALID",
                field="version",
            )
        while True:
            if latest:
                version = (await asyncio.to_thread(self.catalogue.refresh)).model(model).newest().number
            try:
                return self._seen(await self._moved(model, alias, version, expected, if_newest=latest))
            except (ConflictError, MissingError) as error:
                # Meanwhile another one was published, or this one was deleted.
                if not latest or error.reason not in ("NEWEST_MOVED", "VERSION_NOT_FOUND"):
                    raise

    async def _moved(
        self, model: str, alias: str, version: int, expected: int | None, *, if_newest: bool
    ) -> Model:
        if version:
            # Loaded before it is promoted, so that no request waits, and no broken version is promoted.
            known = self.catalogue.snapshot.model(model)
            await self.versions.serve(known.version(version))
        seen = self.catalogue.snapshot.model(model)
        before = seen.aliases.get(alias, 0)
        moved = await asyncio.to_thread(
            self.catalogue.move_alias, model, alias, version, expected, if_newest=if_newest
        )
        if (version, moved.live_pinned) != (before, seen.live_pinned):
            log_event(
                _log,
                "alias moved" if version else "alias removed",
                model=model,
                alias=alias,
                version=version or None,
                before=before or None,
                pinned=(alias == LIVE and moved.live_pinned is not None) or None,
                by=asking.get() or None,
            )
        return moved

    async def delete_version(self, model: str, version: int) -> None:
        """Takes a version out of service, and deletes objects that only it needs.

        Raises:
            MissingError: There is no such version.
            StateError: An alias points at it.
        """
        await self.deletion.version(check_model(model), version)
        log_event(_log, "version deleted", model=model, version=version, by=asking.get() or None)

    async def delete_model(self, model: str) -> None:
        """Deletes a model with all its objects.

        Raises:
            MissingError: There is no such model.
        """
        known = self.catalogue.snapshot.models.get(check_model(model))
        await self.deletion.model(model, stop=self.adaptations.follow)
        versions = len(known.versions) if known else 0
        log_event(_log, "model deleted", model=model, versions=versions, by=asking.get() or None)

    async def list_examples(
        self, model: str, page: PageRequest, wanted: ExamplesWanted = ANY_EXAMPLE
    ) -> AsyncGenerator[Listed[StoredExample], None]:
        """Lists the stored examples of a model by adaptation, writer and sequence.

        Args:
            model: The model.
            page: The page of the list.
            wanted: Which of them.

        Raises:
            InvalidError: There are too many ids, one is empty, or the version is no number of a version.
            MissingError: There is no such adaptation or version, or no such model.
        """
        size, first = page_size(page.size), place_of(page.token)
        check_wanted(wanted)
        found = await self.adaptations.examples(model, wanted, first)
        entries = cut(found, size, token_of)
        while some := await self.adaptations.reading.run_in_turn(model, some_of, entries):
            for example, token in some:
                yield Listed(example, token)

    async def delete_examples(
        self, model: str, ids: Sequence[str], subject: str = "", *, delete_versions: bool = False
    ) -> Erasure:
        """Erases examples for good. Once begun it is completed, even if the caller leaves.

        Args:
            model: The model; it need not have a version.
            ids: The examples to erase.
            subject: A subject whose examples are erased, too; "": none.
            delete_versions: Whether to delete the versions that may have been trained on them, too.

        Raises:
            MissingError: There is no such model.
            StoreError: Something could not be erased; ask again.
        """
        check_model(model)
        require_some(ids, subject)
        erasing = self._erase(model, ids, subject, delete_versions=delete_versions)
        return await asyncio.shield(asyncio.ensure_future(erasing))

    async def _erase(self, model: str, ids: Sequence[str], subject: str, *, delete_versions: bool) -> Erasure:
        erasure = await self.deletion.examples(
            model, ids, subject, delete_versions=delete_versions, forget=self.adaptations.follow
        )
        log_event(
            _log,
            "examples erased",
            model=model,
            examples=erasure.examples,
            named_ids=len(ids),
            of_a_subject=bool(subject),
            affected_versions=_numbers(erasure.affected),
            deleted_versions=_numbers(erasure.deleted),
            by=asking.get() or None,
        )
        return erasure

    async def export_model(
        self,
        model: str,
        selector: Selector,
        received: Mapping[str, ReceivedFile] = MappingProxyType({}),
        *,
        keep_alive_s: float | None = None,
    ) -> AsyncGenerator[BundleChunk | Activity, None]:
        """Composes a version's bundle and yields its files, one after the other, each in order.

        Close the returned iterator: the bundle is kept until then.

        Args:
            model: The model.
            selector: Which of its versions.
            received: What the caller has of the files, by path; of a file that is the same only the rest is yielded.
            keep_alive_s: After how much silence, in seconds, it is yielded what is being done; None: never.

        Raises:
            MissingError: There is no such version.
            BackboneError: The backbone cannot be used.
            OverloadError: As many exports are carried out as may be at once.
        """
        version = self.versions.resolve(model, selector)

        def doing() -> str:
            return self.trunks.activity or "composing the bundle"

        async with (
            self.exports.place() as export,
            aclosing(alive(self._bundle(version, received), keep_alive_s, doing)) as pieces,
        ):
            async for piece in pieces:
                if isinstance(piece, BundleChunk):
                    export.sent()
                yield piece

    async def _bundle(
        self, version: Version, received: Mapping[str, ReceivedFile]
    ) -> AsyncGenerator[BundleChunk, None]:
        served = await self.versions.serve(version)
        async with (
            self.versions.existing(version),
            self.exporter.bundle(version, served.trunk, served.manifest.below) as files,
        ):
            for file in files:
                async for chunk in chunks_of(file, version.number, received.get(file.path)):
                    yield chunk

    async def evaluate_model(
        self,
        model: str,
        selector: Selector,
        batches: AsyncIterator[Sequence[Example | InvalidError]],
        *,
        all_places: bool = False,
    ) -> EvaluatedVersion:
        """Measures a version on labelled examples that it was not trained on. Nothing is stored.

        Args:
            model: The model.
            selector: Which of its versions.
            batches: Examples as they were sent, or the error of one that cannot be read. At most 10,000 a batch.
            all_places: Whether all examples that the version was trained on are named, and not the first alone.

        Raises:
            InvalidError: A batch has too many examples. A bad example fails alone.
            MissingError: There is no such version.
        """
        version = self.versions.resolve(model, selector)
        served = await self.versions.serve(version)
        trained = await self.versions.trained_on(version, served.manifest)
        with self.evaluations.share() as share:
            evaluator = Evaluator(self.predictor, served, trained, self.learning)
            evaluation = Evaluation(evaluator, share, all_places=all_places)
            async for batch in batches:
                await evaluation.add(batch)
            return await evaluation.result()

    async def suggest_examples(
        self,
        model: str,
        selector: Selector,
        request: SuggestionRequest,
        batches: AsyncIterator[Sequence[Example | InvalidError]],
    ) -> Suggestions:
        """Says which candidates' labels would teach a version most. Nothing is stored.

        Where the model has no version, and none is selected, candidates are compared with each other alone.

        Args:
            model: The model.
            selector: Which of its versions.
            request: What is wanted.
            batches: Candidates as they were sent, or the error of one that cannot be read. At most 10,000 a batch.

        Raises:
            InvalidError: There is no candidate, or there are too many. A bad one fails alone.
            MissingError: There is no such version or backbone.
            OverloadError: Calls take as much memory as they may.
        """
        checked_count(request.count)
        known = self.catalogue.snapshot.models.get(check_model(model))
        if not (known and known.versions) and selector == Selector():
            return await self._first_examples(model, request, batches)
        version = self.versions.resolve(model, selector)
        served = await self.versions.serve(version)
        stored = await self.versions.stored(version, served)
        suggester = Suggester(served.trunk, served, stored, self.learning)
        with self.suggesting.share() as share:
            suggesting = Suggesting(suggester, share)
            if request.stored and stored.features is not None:
                await suggester.add_stored()
                suggesting.hold()
            elif request.stored and stored.unlabelled:
                # Their stored features are not those that the head reads.
                ids = {it.id for it in stored.unlabelled}
                await suggesting.add_stored(self._unlabelled(model, ids))
            await suggesting.add_all(batches)
            return await suggesting.result(request, model)

    async def _first_examples(
        self,
        model: str,
        request: SuggestionRequest,
        batches: AsyncIterator[Sequence[Example | InvalidError]],
    ) -> Suggestions:
        """Says which candidates to label first: the model has no version."""
        name = request.backbone
        if request.stored and not name:
            name = await self._backbone_of_newest(model)
        first = await anext(batches, ())
        trunk = self.trunks.get(name) if name else self.trunks.reading(modality_of(first))
        suggester = Suggester(trunk, None, Stored(), self.learning)
        with self.suggesting.share() as share:
            suggesting = Suggesting(suggester, share)
            if request.stored:
                await suggesting.add_stored(self._unlabelled(model, None))
            await suggesting.add_all(_with(first, batches))
            return await suggesting.result(request, model)

    async def _backbone_of_newest(self, model: str) -> str:
        """The backbone of the model's newest adaptation; "": it has none."""
        begun = await self.adaptations.begun(model)
        if not begun:
            return ""
        store = await self.adaptations.store_of(model, begun[0][1])
        return store.start.settings.backbone

    async def _unlabelled(
        self, model: str, ids: Collection[str] | None
    ) -> AsyncGenerator[Sequence[Example], None]:
        """Yields stored examples without a target, those of some ids or, with None, all."""
        found = await self.adaptations.examples(model, ANY_EXAMPLE, None)
        entries = cut(found, sys.maxsize, token_of)
        reading = self.adaptations.reading
        while (some := await reading.run_in_turn(model, unlabelled_among, entries, ids)) is not None:
            if some:
                yield some

    async def list_backbones(self) -> tuple[BackboneInfo, ...]:
        """Describes the backbones of this server, by name."""
        return tuple(_backbone(trunk, is_default=trunk.name == self.trunks.default) for trunk in self.trunks)


async def _with(
    first: Sequence[Example | InvalidError], others: AsyncIterator[Sequence[Example | InvalidError]]
) -> AsyncIterator[Sequence[Example | InvalidError]]:
    yield first
    async for batch in others:
        yield batch


async def chunks_of(
    file: BundleFile, version: int, received: ReceivedFile | None = None
) -> AsyncGenerator[BundleChunk, None]:
    """The chunks of a file of a version's bundle from where its caller is on; one at least, which may be empty."""
    offset = _had(file, received)
    with file.place.open("rb") as opened:
        opened.seek(offset)
        chunk = None
        while chunk is None or len(chunk) == CHUNK_BYTES:
            first = chunk is None
            chunk = await asyncio.to_thread(opened.read, CHUNK_BYTES)
            if chunk or first:
                yield BundleChunk(file.path, file.size, file.sha256, chunk, offset, version)
            offset += len(chunk)


def _had(file: BundleFile, received: ReceivedFile | None) -> int:
    """How many bytes of a file its caller has."""
    if received is None or received.sha256 != file.sha256 or not 0 <= received.size <= file.size:
        return 0
    return received.size


def _version_key(token: str) -> int | None:
    """Returns the number of the first version of a page; None: the page is the first one."""
    key = named_key(token, "version")
    if not key:
        return None
    if not (key.isascii() and key.isdigit() and len(key) < 19):
        raise bad_token(token)
    return int(key)


def _numbers(versions: Sequence[int]) -> str | None:
    """Versions as they stand in the log; None: there are none."""
    return ",".join(map(str, versions)) or None


def _backbone(trunk: Trunk, *, is_default: bool) -> BackboneInfo:
    known = trunk.description
    description = None
    if known is not None:
        description = BackboneDescription(
            encoder_id=known.encoder_id,
            modality=known.modality,
            dimension=known.dimension,
            max_tokens=known.max_tokens,
            architecture=known.architecture,
            layers=known.layers,
            parity=trunk.parity,
            memory_bytes=trunk.memory_bytes,
            kinds=tuple(trunk.kinds),
            warnings=trunk.warnings,
        )
    return BackboneInfo(trunk.name, _STATES[trunk.state], is_default, trunk.error, description)
