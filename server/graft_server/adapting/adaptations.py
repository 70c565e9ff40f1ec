"""All adaptations that this server has a hand in: opening, resuming, finding, recovering them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from graft_server.adapting.adaptation import Adaptation
from graft_server.adapting.interim import KEPT_S, InterimHead
from graft_server.adapting.publishing import Publisher
from graft_server.encoding.trunk import Trunks
from graft_server.errors import (
    DomainError,
    DrainingError,
    InvalidError,
    MissingError,
    OverloadError,
    StateError,
)
from graft_server.examples import Label, Task
from graft_server.names import check_identifier, check_model, clean_label, shown
from graft_server.store.adaptations import (
    AdaptationStore,
    PublishPolicy,
    Settings,
    Start,
    list_adaptations,
    list_all_adaptations,
)
from graft_server.store.versions import Source, read_manifest

_log = logging.getLogger(__name__)

DEFAULT_WRITER = "default"
MAX_LABELS = 10_000
MAX_DESCRIPTION_BYTES = 1024
LEAST_EVERY_S = 1.0
"""More often, no version would be served for as long as it takes to train it."""
RETRY_S = 10.0
"""What a caller who is one too many is told to wait: adaptations and commits end in some seconds to minutes."""


@dataclass(frozen=True, slots=True)
class AdaptationLimits:
    """How much is taken in at once, by this server."""

    open: int = 1024
    """Adaptations whose examples are taken."""
    open_per_model: int = 256
    publications: int = 1024
    """Commits that wait or are trained."""
    publications_per_model: int = 64


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What a caller of Adapt begins with."""

    model: str
    adaptation_id: str
    """"": the server picks one."""
    writer_id: str
    settings: Settings
    """Its backbone is a name, or "" for the default."""


class Adaptations:
    """The adaptations of this server."""

    def __init__(
        self, publisher: Publisher, trunks: Trunks, limits: AdaptationLimits = AdaptationLimits()
    ) -> None:
        self._limits = limits
        self._publisher = publisher
        self._trunks = trunks
        self._open: dict[tuple[str, str], Adaptation] = {}
        self._loading: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._forgetting: asyncio.TimerHandle | None = None
        self._draining = False

    def check(self, request: StartRequest) -> StartRequest:
        """Returns the request with its defaults filled in.

        Raises:
            InvalidError: Something in it can never work.
            MissingError: This server has no such backbone.
            BackboneError: The backbone cannot be used now.
        """
        check_model(request.model, "start.model")
        adaptation_id = request.adaptation_id or secrets.token_hex(8)
        check_identifier(adaptation_id, "start.adaptation_id")
        writer_id = request.writer_id or DEFAULT_WRITER
        check_identifier(writer_id, "start.writer_id")
        trunk = self._trunks.get(request.settings.backbone)
        trunk.require_ready()
        settings = replace(request.settings, backbone=trunk.name, labels=_checked(request.settings.labels))
        if settings.closed_labels and not settings.labels:
            raise InvalidError(
                "start.closed_labels is set, but start.labels is empty: name the labels.",
                reason="LABELS_EMPTY",
                field="start.labels",
            )
        if settings.labels and settings.task is Task.REGRESSION:
            raise InvalidError(
                f"start.labels names {len(settings.labels):,}, but a regression answers with a number: leave them out, "
                "or choose another start.task.",
                reason="LABELS_WITHOUT_CLASSES",
                field="start.labels",
            )
        _check_policy(settings.publish)
        return replace(request, adaptation_id=adaptation_id, writer_id=writer_id, settings=settings)

    async def start(self, request: StartRequest) -> Adaptation:
        """Opens or resumes an adaptation, as a checked request says.

        Raises:
            StateError: It exists with other settings (START_MISMATCH).
            MissingError: It is new, and there is no version base_version.
            DrainingError: This server is going away.
            OverloadError: It takes the examples of as many adaptations as it may.
        """
        key = (request.model, request.adaptation_id)
        async with self._lock(key):
            adaptation = self._open.get(key)
            if adaptation is None:
                adaptation = self._adopt(await self._stored(request))
            # Late, so that it also stops those who came in before the server began to drain.
            if self._draining:
                raise DrainingError
            _require_same(adaptation.store.start.settings, request)
            if not adaptation.attended:
                self._require_room(request.model)
            return adaptation

    async def get(self, model: str, adaptation_id: str) -> Adaptation:
        """Finds an adaptation, as its newest state is.

        Raises:
            MissingError: There is none.
        """
        check_model(model)
        check_identifier(adaptation_id, "adaptation_id")
        key = (model, adaptation_id)
        async with self._lock(key):
            adaptation = self._open.get(key)
            if adaptation is None:
                store = await asyncio.to_thread(AdaptationStore.load, self._publisher.objects, *key)
                return self._adopt(store)
        await asyncio.to_thread(adaptation.store.refresh)
        return adaptation

    async def interim(self, model: str, adaptation_id: str) -> InterimHead:
        """The interim head of an open adaptation.

        Raises:
            MissingError: There is no such adaptation.
            StateError: It is closed or cancelled, or has nothing to answer with yet (INTERIM_EMPTY).
        """
        adaptation = self._open.get((model, adaptation_id)) or await self.get(model, adaptation_id)
        adaptation.require_open()
        if self._forgetting is None:
            loop = asyncio.get_running_loop()
            self._forgetting = loop.call_later(KEPT_S + 1, self._forget_later)
        return await adaptation.interim.head()

    async def of_model(self, model: str) -> list[Adaptation]:
        """All adaptations of a model, newest first."""
        check_model(model)
        ids = await asyncio.to_thread(list_adaptations, self._publisher.objects, model)
        found = [await self.get(model, adaptation_id) for adaptation_id in ids]
        return sorted(found, key=lambda it: (it.store.start.created, it.store.adaptation_id), reverse=True)

    def forget_idle(self) -> None:
        """Forgets the adaptations that nobody uses; they can be loaded again."""
        self._open = {key: it for key, it in self._open.items() if not it.idle}

    def _forget_later(self) -> None:
        self._forgetting = None
        self.forget_idle()

    async def recover(self) -> None:
        """Takes up the commits that a server left unfinished."""
        found = await asyncio.to_thread(lambda: list(list_all_adaptations(self._publisher.objects)))
        for model, adaptation_id in found:
            try:
                adaptation = await self.get(model, adaptation_id)
            except DomainError as error:
                # One damaged adaptation must not keep the others from being served.
                _log.error("adaptation %s of %s cannot be read: %s", adaptation_id, model, error.message)
                continue
            adaptation.resume()

    async def forget(self, model: str) -> None:
        """Cancels and forgets all adaptations of a model that is being deleted."""
        for adaptation in await self.of_model(model):
            await adaptation.cancel()
            await adaptation.close()  # so that nothing more is written to what is about to be deleted
            self._open.pop((model, adaptation.store.adaptation_id), None)

    async def close(self) -> None:
        """Stops working, and asks all callers to call again; what is durable is taken up by the next server."""
        self._draining = True
        if self._forgetting is not None:
            self._forgetting.cancel()
        for adaptation in list(self._open.values()):
            await adaptation.close()

    async def lineage(self, request: StartRequest) -> tuple[Source, ...]:
        """The examples that a request's base_version brings.

        Raises:
            MissingError: There is no version base_version.
            InvalidError: It is of another task (TASK_MISMATCH).
        """
        number = request.settings.base_version
        if not number:
            return ()
        snapshot = self._publisher.catalogue.snapshot
        version = snapshot.model(request.model).version(number)
        manifest = await asyncio.to_thread(read_manifest, self._publisher.objects, version.manifest)
        task = request.settings.task
        if manifest.task is not task:
            raise InvalidError(
                f"start.base_version is {number}, whose task is {manifest.task.words}, but start.task is {task.words}: "
                f"start with TASK_{manifest.task.name}, or without base_version.",
                reason="TASK_MISMATCH",
                field="start.base_version",
            )
        return manifest.sources

    async def _stored(self, request: StartRequest) -> AdaptationStore:
        objects, key = self._publisher.objects, (request.model, request.adaptation_id)
        try:
            return await asyncio.to_thread(AdaptationStore.load, objects, *key)
        except MissingError:
            # Only now: one that exists has its lineage, also where base_version was deleted since.
            start = Start(request.settings, datetime.now(UTC), await self.lineage(request))
            return await asyncio.to_thread(AdaptationStore.create, objects, *key, start)

    def _adopt(self, store: AdaptationStore) -> Adaptation:
        self.forget_idle()
        trunk = self._trunks.get(store.start.settings.backbone)
        adaptation = Adaptation(store, trunk, self._publisher, self._admit)
        self._open[store.model, store.adaptation_id] = adaptation
        return adaptation

    def _require_room(self, model: str) -> None:
        """Raises OverloadError if one more adaptation of the model is one too many."""
        models = [it.store.model for it in self._open.values() if it.attended]
        _require_fewer(models.count(model), self._limits.open_per_model, "open adaptations", shown(model))
        _require_fewer(len(models), self._limits.open, "open adaptations")

    def _admit(self, adaptation: Adaptation) -> None:
        """Raises OverloadError if one more commit of the adaptation is one too many."""
        model = adaptation.store.model
        unfinished = {key: it.unfinished for key, it in self._open.items()}
        of_model = sum(count for key, count in unfinished.items() if key[0] == model)
        _require_fewer(of_model, self._limits.publications_per_model, "unfinished publications", shown(model))
        _require_fewer(sum(unfinished.values()), self._limits.publications, "unfinished publications")

    def _lock(self, key: tuple[str, str]) -> asyncio.Lock:
        return self._loading.setdefault(key, asyncio.Lock())


def _require_fewer(count: int, limit: int, what: str, model: str = "") -> None:
    if count < limit:
        return
    whose = f"Model {model}" if model else "This server"
    raise OverloadError(
        f"{whose} has {count:,} {what}, and at most {limit:,} are taken at once: try again later.",
        reason=f"TOO_MANY_{what.rsplit(maxsplit=1)[-1].upper()}",
        retry_after_s=RETRY_S,
    )


def _check_policy(policy: PublishPolicy) -> None:
    if policy.every_examples < 0:
        raise InvalidError(
            f"start.publish.every_examples is {policy.every_examples}: give a number of examples, or 0 for never.",
            reason="PUBLISH_INVALID",
            field="start.publish.every_examples",
        )
    if policy.every_s and policy.every_s < LEAST_EVERY_S:
        raise InvalidError(
            f"start.publish.every is {policy.every_s:g} s: give at least {LEAST_EVERY_S:g} s, or leave it unset for "
            "never.",
            reason="PUBLISH_INVALID",
            field="start.publish.every",
        )


def _checked(labels: Sequence[Label]) -> tuple[Label, ...]:
    if len(labels) > MAX_LABELS:
        raise InvalidError(
            f"start.labels has {len(labels):,} entries: at most {MAX_LABELS:,} are accepted.",
            reason="TOO_MANY_LABELS",
            field="start.labels",
        )
    cleaned: dict[str, Label] = {}
    for index, label in enumerate(labels):
        field = f"start.labels[{index}]"
        name = clean_label(label.name, f"{field}.name")
        if name in cleaned:
            raise InvalidError(
                f"{field}.name is {shown(name)}, which an earlier entry has: name each label once.",
                reason="LABEL_REPEATED",
                field=f"{field}.name",
            )
        if len(label.description.encode()) > MAX_DESCRIPTION_BYTES:
            raise InvalidError(
                f"{field}.description has {len(label.description.encode()):,} bytes: at most "
                f"{MAX_DESCRIPTION_BYTES:,} are accepted.",
                reason="DESCRIPTION_TOO_LONG",
                field=f"{field}.description",
            )
        cleaned[name] = Label(name, label.description)
    return tuple(cleaned.values())


def _require_same(known: Settings, request: StartRequest) -> None:
    asked = request.settings
    differing = [name for name in Settings.__slots__ if getattr(known, name) != getattr(asked, name)]
    if differing:
        raise StateError(
            f"Adaptation {shown(request.adaptation_id)} of model {shown(request.model)} was started with "
            f"another {', '.join(differing)}: resume it with the same settings, or choose another "
            "adaptation_id.",
            reason="START_MISMATCH",
            field=f"start.{differing[0]}",
        )
