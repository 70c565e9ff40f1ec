"""The version that an adaptation goes on from: which one it is, and whether its examples can be gone on from."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from graft_server.domain.adaptation import StartRequest
from graft_server.domain.errors import InvalidError, MissingError, StateError
from graft_server.domain.examples import Label
from graft_server.domain.extension import Extension
from graft_server.domain.model import LIVE, Manifest, Source, Version
from graft_server.domain.names import shown
from graft_server.domain.report import Report
from graft_server.domain.stream import LiveVersion
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.snapshot import Snapshot
from graft_server.store.catalogue.versions import read_report
from graft_server.store.objects.objects import Objects


@dataclass(frozen=True, slots=True)
class Base:
    """A version that an adaptation goes on from."""

    extension: Extension
    """Its number, and how many examples it has."""
    backbone: str
    lineage: tuple[Source, ...]
    labels: tuple[Label, ...] = ()
    """The labels that were declared for it."""


async def base_of(objects: Objects, catalogue: Catalogue, request: StartRequest) -> Base | None:
    """Returns the version that a new adaptation asks to go on from; None: none.

    Raises:
        MissingError: There is no such version, or no such alias.
        InvalidError: It is of another task (TASK_MISMATCH).
        StateError: Nothing says which examples it was trained on (BASE_WITHOUT_EXAMPLES).
    """
    settings = request.settings
    if not (settings.base_version or settings.base_alias):
        return None
    # An alias may have been moved by another server a moment ago.
    snapshot = await asyncio.to_thread(catalogue.refresh)
    version, field = _version(snapshot, request)
    manifest, report = await asyncio.to_thread(read_report, objects, version.manifest)
    task = settings.task
    named = f"{field} is {settings.base_version or shown(settings.base_alias)}"
    if settings.base_alias:
        named += f", which is version {version.number}"
    if manifest.task is not task:
        raise InvalidError(
            f"{named}, whose task is {manifest.task.words}, but start.task is {task.words}: "
            f"start with TASK_{manifest.task.name}, or without {field.removeprefix('start.')}.",
            reason="TASK_MISMATCH",
            field=field,
        )
    if not manifest.sources:
        raise StateError(
            f"{named}, and nothing says which examples it was trained on: it cannot be gone on from. Start without "
            f"{field.removeprefix('start.')}, and send all examples.",
            reason="BASE_WITHOUT_EXAMPLES",
            field=field,
        )
    extension = Extension(version.number, _examples(manifest, report), match_content=settings.match_content)
    labels = await asyncio.to_thread(_declared, objects, manifest)
    return Base(extension, manifest.backbone, manifest.sources, labels)


def live_version(snapshot: Snapshot, model: str) -> LiveVersion | None:
    """Returns the version of a model that answers where a request selects none."""
    known = snapshot.models.get(model)
    if known is None or LIVE not in known.aliases:
        return None
    version = known.versions.get(known.aliases[LIVE])
    if version is None:
        return None
    figures = version.summary
    examples = int(figures.get("examples", 0)) + int(figures.get("validation_examples", 0))
    return LiveVersion(version.number, examples)


def _version(snapshot: Snapshot, request: StartRequest) -> tuple[Version, str]:
    settings = request.settings
    field = "start.base_alias" if settings.base_alias else "start.base_version"
    try:
        model = snapshot.model(request.model)
        if settings.base_alias:
            return model.alias(settings.base_alias), field
        return model.version(settings.base_version), field
    except MissingError as error:
        if not settings.base_alias:
            raise
        raise MissingError(error.message, reason=error.reason, field=field, metadata=error.metadata) from None


def _declared(objects: Objects, manifest: Manifest) -> tuple[Label, ...]:
    newest = manifest.sources[-1].adaptation_id
    try:
        return AdaptationStore.load(objects, manifest.model, newest).start.labels
    except MissingError:
        return ()  # its examples are there, or the next commit says that they are not


def _examples(manifest: Manifest, report: Report) -> int:
    """Returns how many examples a version has, as far as is noted, for those that were left out of training too."""
    if (it := manifest.extension) is not None:
        return it.base_examples + it.added - it.deleted
    unlabelled = report.data.unlabelled_examples if report.data else 0
    return report.examples + report.validation_examples + unlabelled
