"""Versions whose encoder is gone are made anew by the server itself, of their stored examples.

After an upgrade, or with other settings, a backbone may be another encoder than the one that a version was trained on.
The newest version of each model is then made anew, one model after the other in the background, the most asked for
first: features are computed again, a head is chosen again, and the aliases that point at the version follow to the new
one, as `store.catalogue.moves` says. An alias that points at an older version stays there. The version before is served
meanwhile wherever its encoder can still be loaded.

What is due follows from the catalogue alone, so a restart goes on where it was; and the catalogue enters a renewal
once for each encoder, so servers that do the same get one version. A model that another server has moved on to its own
encoder is not moved back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field

from graft_server.adapting.intake.features import FeatureWriter
from graft_server.adapting.publishing.publisher import Publisher
from graft_server.adapting.publishing.queue import MODEL_DELETED
from graft_server.domain.errors import (
    BackboneError,
    CorruptError,
    DomainError,
    FaultError,
    NewerError,
    StateError,
    StoreError,
    WorkerError,
)
from graft_server.domain.model import LIVE, Model, ModelRenewal, RenewalState, Version
from graft_server.domain.names import shown
from graft_server.domain.report import Renewal
from graft_server.encoding.trunks import Trunks
from graft_server.sharing.background import survived
from graft_server.sharing.events import SHORT_ID, log_event, log_failure
from graft_server.store.adaptations.listing import remove_adaptation
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.catalogue.snapshot import Snapshot

_log = logging.getLogger(__name__)

LOOK_S = 10.0
"""How often it is looked for what other servers left to do, in seconds."""
RETRY_S = 30.0
"""The wait after a failure that may pass; each further one of the same model waits twice as long."""
ATTEMPTS = 6
"""After so many failures that may pass, a model is left until the next start."""

Load = Callable[[str, str], Awaitable[AdaptationStore]]
"""Gives the stored state of an adaptation, by model and id."""


def encoder_of(version: Version) -> tuple[str, str]:
    """Returns the name of a version's backbone, and the id of its encoder."""
    return str(version.summary.get("backbone", "")), str(version.summary.get("encoder_id", ""))


def is_due(newest: Version, model: Model, encoders: Mapping[str, str]) -> bool:
    """Whether the newest version of a model is to be made anew.

    Args:
        newest: The version.
        model: The model.
        encoders: The id of each backbone's encoder, by the backbone's name.
    """
    backbone, encoder_id = encoder_of(newest)
    present = encoders.get(backbone)
    if present is None or not encoder_id or encoder_id == present:
        return False
    made = newest.commit_id.partition("/")[0]
    for it in model.versions.values():
        same = it.adaptation_id == newest.adaptation_id and it.commit_id.partition("/")[0] == made
        if same and encoder_of(it) == (backbone, present):
            return False  # another server with another encoder has made it anew of this one
    return True


@dataclass(slots=True)
class _Scan:
    """What is to be done, and whether models can be answered for meanwhile."""

    due: dict[str, Version] = field(default_factory=dict)
    answered: bool = False
    """Whether some model's live version can be served."""
    waiting: set[str] = field(default_factory=set)
    """Models whose live version cannot be served until it is made anew."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """What is known of one model."""

    model: Model
    due: Version | None
    """Its newest version, if that is to be made anew."""
    live: tuple[str, str] | None
    """The encoder of its live version."""
    newest_is_live: bool


def _looked(model: Model, encoders: Mapping[str, str]) -> _Looked:
    number, pointed_at = model.latest_version, model.aliases.get(LIVE, 0)
    newest = model.versions.get(number)
    live = newest if pointed_at == number else model.versions.get(pointed_at)
    return _Looked(
        model,
        newest if newest is not None and is_due(newest, model, encoders) else None,
        None if live is None else encoder_of(live),
        pointed_at == number,
    )


@dataclass(slots=True)
class _Failure:
    version: int
    message: str
    final: bool = False
    count: int = 1
    again_at: float = 0.0
    """By the monotonic clock."""


@dataclass(slots=True)
class _Running:
    version: Version
    task: asyncio.Task[None]
    stored: str = ""
    """The name that its adaptation is stored by, once it is read."""


class Renewals:
    """Makes versions anew whose encoder is gone. Belongs to one event loop."""

    def __init__(
        self,
        publisher: Publisher,
        trunks: Trunks,
        load: Load,
        asked: MutableMapping[str, int],
        on_usable: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Does nothing before `start`.

        Args:
            publisher: Trains and publishes.
            trunks: The backbones of this server.
            load: Gives the stored state of an adaptation.
            asked: How often each model was asked for; models that are gone are dropped from it.
            on_usable: Called where it changes whether any model can be answered for.
        """
        self._publisher = publisher
        self._trunks = trunks
        self._load = load
        self._asked = asked
        self._on_usable = on_usable
        self._scan = _Scan()
        self._scanned: tuple[int, Mapping[str, str]] = -1, {}
        """The number of the catalogue's entries, and the backbones' encoders, that the scan was of."""
        self._looked: dict[str, _Looked] = {}
        """What is known of each model, for those encoders."""
        self._failures: dict[str, _Failure] = {}
        self._running: _Running | None = None
        self._usable = True
        self._wakeup = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether predictions can be answered: False while every model waits to be made anew, and none is served."""
        return self._usable

    def start(self) -> None:
        """Begins, once the backbones are described."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stops; the next server goes on."""
        running = [self._task] if self._task is not None else []
        if self._running is not None:
            running.append(self._running.task)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def state_of(self, version: Version) -> str:
        """Says of a version that cannot be served what becomes of it."""
        model = version.model
        known = self._publisher.catalogue.snapshot.models.get(model)
        newer = known.latest_version if known is not None else 0
        failure = self._failures.get(model)
        if newer > version.number:
            return f"Version {newer} is its newest: ask for that, or adapt the model again."
        if failure is not None and failure.version == version.number and failure.final:
            return f"It cannot be adapted anew from its stored examples: {failure.message}"
        if self._task is not None and model in self._scan.due:
            return "It is being adapted anew from its stored examples: try again in a minute."
        return "Serve that encoder, or adapt the model again."

    def renewal_of(self, model: str) -> ModelRenewal | None:
        """Says how far a model is; None: there is nothing to do."""
        version = self._scan.due.get(model)
        known = self._publisher.catalogue.snapshot.models.get(model)
        if version is None or known is None or known.latest_version != version.number:
            return None
        failure = self._failures.get(model)
        if self._running is not None and self._running.version.model == model:
            return ModelRenewal(RenewalState.RUNNING)
        if failure is None:
            return ModelRenewal(RenewalState.WAITING)
        return ModelRenewal(RenewalState.FAILED if failure.final else RenewalState.WAITING, failure.message)

    async def follow(self) -> None:
        """Ends the work on a model that the catalogue says is deleted, and looks for more to do."""
        running, snapshot = self._running, self._publisher.catalogue.snapshot
        self._wakeup.set()
        if running is None or running.version.model in snapshot.models:
            return
        running.task.cancel()
        await asyncio.wait({running.task})

    async def _run(self) -> None:
        while True:
            if not await survived(self._round(), "making versions anew", _log):
                await asyncio.sleep(LOOK_S)

    async def _round(self) -> None:
        self._wakeup.clear()
        await self.look()
        version = self._next()
        if version is not None:
            await self._renew(version)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._wakeup.wait()

    async def look(self) -> None:
        """Finds out what is due, if the catalogue or a backbone has changed."""
        snapshot = self._publisher.catalogue.snapshot
        encoders = {it.name: it.description.encoder_id for it in self._trunks if it.description is not None}
        if (snapshot.entries, encoders) != self._scanned:
            self._scan = await asyncio.to_thread(self._scanned_of, snapshot, encoders)
            self._scanned = snapshot.entries, encoders
            for model in [it for it in self._asked if it not in snapshot.models]:
                del self._asked[model]
            self._failures = {
                model: it
                for model, it in self._failures.items()
                if model in self._scan.due and self._scan.due[model].number == it.version
            }
        final = {model for model, it in self._failures.items() if it.final}
        usable = self._scan.answered or not self._scan.waiting - final
        if usable != self._usable:
            self._usable = usable
            self._on_usable(usable)

    def _scanned_of(self, snapshot: Snapshot, encoders: Mapping[str, str]) -> _Scan:
        known = self._looked if encoders == self._scanned[1] else {}
        self._looked = {
            # A model without changes is the same object in all snapshots.
            name: known[name] if name in known and known[name].model is model else _looked(model, encoders)
            for name, model in snapshot.models.items()
        }
        served: dict[tuple[str, str], bool] = {}
        scan = _Scan()
        for name, it in self._looked.items():
            if it.due is not None:
                scan.due[name] = it.due
            if it.live is None:
                continue
            if it.live not in served:
                served[it.live] = self._trunks.can_serve(*it.live)
            if served[it.live]:
                scan.answered = True
            elif it.due is not None and it.newest_is_live:
                scan.waiting.add(name)
        return scan

    def _next(self) -> Version | None:
        """The version to make anew next: that of the model which is asked for most."""
        now = time.monotonic()
        due = [it for it in self._scan.due.values() if self._may_try(it, now)]
        return max(due, key=lambda it: self._asked.get(it.model, 0), default=None)

    def _may_try(self, version: Version, now: float) -> bool:
        failure = self._failures.get(version.model)
        return failure is None or (not failure.final and now >= failure.again_at)

    async def _renew(self, version: Version) -> None:
        """Makes one version anew; whatever happens is noted."""
        running = _Running(version, asyncio.create_task(self._publish(version)))
        self._running = running
        try:
            await asyncio.wait({running.task})
            if running.task.cancelled():
                await self._remove_deleted(running)
                return
            running.task.result()
        except DomainError as error:
            self._note(version, error)
        except Exception:  # noqa: BLE001 - a fault of ours, which would be met again at once
            _log.exception("model %s", version.model)
            failed = FaultError("Something failed here; the server's log has the details.", reason="INTERNAL")
            self._note(version, failed)
        finally:
            self._running = None

    async def _publish(self, version: Version) -> None:
        backbone, encoder_id = encoder_of(version)
        trunk = self._trunks.get(backbone)
        log_event(
            _log,
            "renewal started",
            model=version.model,
            version=version.number,
            backbone=backbone,
            encoder=trunk.encoder_id[:SHORT_ID],
            trained_on_encoder=encoder_id[:SHORT_ID],
        )
        store = await self._load(version.model, version.adaptation_id)
        if self._running is not None:
            self._running.stored = store.name
        commit_id = version.commit_id.partition("/")[0]
        if commit_id not in store.commits:
            raise StateError(
                f"The commit {shown(commit_id)} of version {version.number} of model {shown(version.model)} is not "
                "stored: adapt the model again.",
                reason="COMMIT_NOT_FOUND",
            )
        feature_writer = FeatureWriter(store, trunk)
        await self._publisher.publish(
            store,
            trunk,
            feature_writer,
            commit_id,
            lambda _: None,
            renewal=Renewal(version.number, encoder_id),
        )

    async def _remove_deleted(self, running: _Running) -> None:
        """Features may have been written after the deletion had removed everything."""
        model, snapshot = running.version.model, self._publisher.catalogue.snapshot
        if model in snapshot.models or snapshot.newer or not running.stored:
            return
        with suppress(DomainError):  # a next start finishes it
            await asyncio.to_thread(remove_adaptation, self._publisher.objects, model, running.stored)

    def _note(self, version: Version, error: DomainError) -> None:
        if error.reason in (MODEL_DELETED, "RENEWAL_SUPERSEDED"):
            self._scan.due.pop(version.model, None)
            return
        before = self._failures.get(version.model)
        count = 1 if before is None else before.count + 1
        passing = isinstance(error, (StoreError, BackboneError, WorkerError)) and not isinstance(
            error, (CorruptError, NewerError)
        )
        final = not passing or count >= ATTEMPTS
        again_at = time.monotonic() + RETRY_S * 2 ** (count - 1)
        self._failures[version.model] = _Failure(version.number, error.message, final, count, again_at)
        log_failure(
            _log,
            "renewal failed",
            error,
            model=version.model,
            version=version.number,
            tried_again=not final,
        )
