"""Start here: everything the server consists of is made and connected in this module, once.

frontends    doors, one protocol each    GrpcServer
api          what may be asked           AdaptationApi, PredictionApi, ModelApi
adapting     examples to versions        Adaptations -> Publisher -> jobs -> Catalogue
serving      features to predictions     Versions, Predictor
encoding     inputs to features          Trunks, shared by the two above
store, jobs  what is kept; where training runs
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graft_server.adapting.adaptations import Adaptations
from graft_server.adapting.limits import AdaptationLimits
from graft_server.adapting.publishing.fine_tuning import Tuner
from graft_server.adapting.publishing.publisher import Publisher
from graft_server.adapting.publishing.renewing import Renewals
from graft_server.api.adaptations import AdaptationApi
from graft_server.api.models import ModelApi
from graft_server.api.predictions import PredictionApi
from graft_server.backbones.decoding.audio import AudioLimits
from graft_server.backbones.decoding.images import ImageLimits
from graft_server.backbones.decoding.limits import MediaLimits
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.tunings import Tunings
from graft_server.encoding.loading import TrunkSettings, TrunkState
from graft_server.encoding.trunk import OnChange, Trunk
from graft_server.encoding.trunks import Trunks
from graft_server.erasing.deletion import Deletion
from graft_server.exporting.exporter import Exporter
from graft_server.frontends.grpc.server import GrpcServer
from graft_server.jobs.job import Place
from graft_server.jobs.local.pool import LocalJobs
from graft_server.onnx_runtime import onnxruntime
from graft_server.serving.predictor import Predictor
from graft_server.serving.versions import Versions
from graft_server.settings import Settings
from graft_server.sharing.background import survived
from graft_server.sharing.cores import usable_cores
from graft_server.sharing.events import SHORT_ID, Field, log_event
from graft_server.sharing.preemption import Preemption
from graft_server.sharing.threads import Threads
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.handover import LOOKS_APART_S, Handover
from graft_server.store.objects.objects import Objects

_log = logging.getLogger(__name__)

STORE_THREADS = 32
"""More than computing needs: they wait for a disk or a bucket, and one request may take several."""
CLOSE_S = 3.0
"""The time for everything to close once no call runs: a store may hang, an encoder be in the middle of a batch."""
_WORKER_MODULES = ("graft_server.training.train", "graft_server.exporting.bundle")


class Service:
    """Everything but the doors: what answers, in any protocol or in none.

    Attributes:
        adaptations: What may be asked of adaptations.
        predictions: What may be asked of models' heads.
        models: What may be asked of models.
        trunks: The backbones.
    """

    def __init__(
        self,
        settings: Settings,
        on_trunk_change: OnChange = lambda _: None,
        workers: Place | None = None,
        *,
        on_newer: Callable[[], None] = lambda: None,
        on_followed: Callable[[bool], None] = lambda _: None,
        on_usable: Callable[[], None] = lambda: None,
    ) -> None:
        """Makes the parts. Nothing runs yet; the store is opened and the catalogue read.

        Args:
            settings: How the service runs.
            on_trunk_change: Called, on the event loop, when a backbone can be used again or can no longer be used.
            workers: Where jobs run; None: where the server does, with the same cache.
            on_usable: Called, on the event loop, where `predictions_usable` changes.
            on_newer: Called, on the event loop, once it is known that a newer release writes to the catalogue.
            on_followed: Called, on the event loop, with False when the catalogue has not been followed for long, and
                with True when it is again.

        Raises:
            StoreError: The store cannot be used.
        """
        place = place_of(settings)
        objects = Objects.open(place.store)
        catalogue = Catalogue(objects)
        preemption = Preemption()
        worker = workers or place
        self._jobs = LocalJobs(settings.workers, preload=_WORKER_MODULES, preemption=preemption, place=worker)
        self._tuning_jobs = LocalJobs(settings.tuning_workers, preemption=preemption, place=worker)
        self._store_threads = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store")
        self._preparing = Threads("preparing", place.threads)
        self._learning = Threads("learning", place.threads)
        self.trunks = trunks_of(settings, on_trunk_change, self._preparing, objects)
        self._reading = Threads("reading", STORE_THREADS)
        self._versions = Versions(
            objects,
            catalogue,
            self.trunks,
            settings.heads_memory_mb << 20,
            on_followed,
            reading=self._reading,
        )
        self._tuner = Tuner(self._jobs, self._tuning_jobs, Tunings(objects, place))
        publisher = Publisher(
            objects,
            catalogue,
            self._jobs,
            self._tuner,
            self._versions.put_in_service,
            self._learning,
            self._reading,
        )
        self._adaptations = Adaptations(publisher, self.trunks, limits_of(settings))
        self._renewals = Renewals(
            publisher, self.trunks, self._adaptations.store_of, self._versions.asked, lambda _: on_usable()
        )
        self._adaptations.followers.append(self._renewals.follow)
        self._versions.explain = self._renewals.state_of
        self._deletion = Deletion(
            objects, catalogue, self._versions.forget, settings.erasure_grace_seconds, self._jobs
        )
        predictor = Predictor(self._versions, self._adaptations, settings.cached_responses, preemption)
        self._handover = Handover(objects, settings.cache_folder)
        exporter = Exporter(self._jobs, self._handover)
        self.adaptations = AdaptationApi(self._adaptations)
        self.predictions = PredictionApi(predictor, lambda: self.trunks.activity)
        self.models = ModelApi(
            catalogue,
            self._versions,
            predictor,
            self.trunks,
            exporter,
            self._adaptations,
            self._deletion,
            self._learning,
            renewal=self._renewals.renewal_of,
        )
        self._catalogue = catalogue
        self._on_newer = on_newer
        self._told_of_newer = False
        self._background: list[asyncio.Task[object]] = []

    async def start(self) -> None:
        """Starts everything; returns once requests can be answered.

        Raises:
            BackboneError: The default backbone cannot be used.
        """
        asyncio.get_running_loop().set_default_executor(self._store_threads)
        await self._jobs.start()
        known = self._deletion.catalogue.snapshot
        sweeping = asyncio.to_thread(self._tuner.sweep, known.last_erasures)
        await survived(sweeping, "sweeping what tunings left", _log)
        await self.trunks.open(self._jobs)
        await self._renewals.look()
        self._versions.start(self._follow)
        self._background = [asyncio.create_task(self._load_ahead()), asyncio.create_task(self._recover())]

    @property
    def predictions_usable(self) -> bool:
        """Whether predictions can be answered: by the default backbone, for some model."""
        return self.trunks.get("").state is not TrunkState.FAILED and self._renewals.usable

    def described(self) -> dict[str, Field]:
        """What there is, for the log: backbones with their encoders, devices and models."""
        return {
            "backbones": ",".join(_named(it) for it in self.trunks),
            "devices": ",".join(sorted({it.device for it in self.trunks if it.device})) or None,
            "models": len(self._catalogue.snapshot.models),
        }

    @property
    def unfinished(self) -> int:
        """How many commits wait or are trained: the next server goes on with them."""
        return self._adaptations.unfinished

    async def drain(self) -> None:
        """Stops adapting, and asks its callers to go elsewhere."""
        await self._adaptations.close()

    async def close(self) -> None:
        """Ends everything. It has been drained, and no call runs any more."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._renewals.close()
        await self._versions.close()
        await self._jobs.close()
        await self._tuning_jobs.close()
        await self.trunks.close()
        self._preparing.close()
        self._learning.close()
        self._handover.close()
        self._reading.close()

    def tell_of_newer(self) -> None:
        """Calls `on_newer` if the catalogue has entries of a newer release and it was not called yet."""
        if self._catalogue.snapshot.newer and not self._told_of_newer:
            self._told_of_newer = True
            self._on_newer()

    async def _follow(self) -> None:
        self.tell_of_newer()
        await self._adaptations.follow()

    async def _load_ahead(self) -> None:
        await survived(self._versions.load_ahead(), "loading heads ahead", _log)

    async def _recover(self) -> None:
        await survived(asyncio.to_thread(self._handover.sweep_ended), "sweeping what was handed over", _log)
        encoders = EncoderCache(self._handover.cache)
        await survived(asyncio.to_thread(encoders.sweep), "sweeping the cache", _log)
        await survived(self._deletion.finish_all(), "finishing deletions", _log)
        await survived(self._adaptations.recover(), "looking for unfinished commits", _log)
        self._renewals.start()
        await survived(self._sweep_old(), "sweeping what is old", _log)

    async def _sweep_old(self) -> None:
        """Deletes what belongs to somebody who is no more: what is old, and is there at a second look too."""
        sweepers = self._handover.sweep, self._tuner.sweep_old
        looks = [await asyncio.to_thread(it) for it in (self._handover.old, self._tuner.old)]
        await asyncio.sleep(LOOKS_APART_S)
        for sweep, old in zip(sweepers, looks, strict=True):
            await asyncio.to_thread(sweep, old)


class App:
    """A server, from its settings to its end.

    Attributes:
        service: Everything but the doors.
        addresses: Where it listens, with real ports, once it has started.
    """

    def __init__(self, settings: Settings) -> None:
        """Makes the parts. Nothing runs yet; the store is opened and the catalogue read.

        Raises:
            StoreError: The store cannot be used.
        """
        self._settings = settings
        self._began = time.monotonic()
        self.addresses: tuple[str, ...] = ()
        self.service = Service(
            settings,
            self._trunk_changed,
            on_newer=self._newer,
            on_followed=self._followed,
            on_usable=self._usable,
        )
        self._grpc = GrpcServer(
            self.service.adaptations,
            self.service.predictions,
            self.service.models,
            max_connection_age_s=settings.max_connection_age_seconds,
        )

    async def start(self) -> str:
        """Starts everything, and returns the first address, HOST:PORT or unix:PATH, once requests are served.

        Raises:
            BackboneError: The default backbone cannot be used.
            StoreError: An address cannot be used.
        """
        self.addresses = tuple([self._grpc.listen(it) for it in self._settings.addresses])
        try:
            await self.service.start()
        except BaseException:
            self._grpc.remove_socket_files()
            raise
        await self._grpc.start()
        self.service.tell_of_newer()
        if not self.service.predictions_usable:
            self._usable()
        self._announce()
        return self.addresses[0]

    def _announce(self) -> None:
        settings = self._settings
        log_event(
            _log,
            "server started",
            version=version("graft-serve"),
            **self.service.described(),
            cores=settings.cores or usable_cores(),
            store=without_credentials(settings.store),
            cache=str(settings.cache_folder),
            runtime=f"onnxruntime/{onnxruntime.__version__}",
            listening=",".join(self.addresses),
            seconds=round(time.monotonic() - self._began, 1),
        )

    async def stop(self, hurried: asyncio.Event | None = None) -> None:
        """Asks callers to go elsewhere, lets the calls that are at work finish, and ends everything.

        Args:
            hurried: Once it is set, nothing is waited for any more.
        """
        hurried = hurried or asyncio.Event()
        calls = self._grpc.calls
        log_event(
            _log,
            "server draining",
            calls=calls.running,
            at_work=calls.at_work,
            commits=self.service.unfinished,
        )
        self._grpc.refuse()
        # Whoever balances load sees NOT_SERVING before calls are refused.
        await _unhurried(asyncio.sleep(self._settings.drain_notice_seconds), hurried)
        self._grpc.drain()
        await _unhurried(self._finish(), hurried, self._settings.drain_seconds)
        await self._grpc.close()
        await _unhurried(self.service.close(), asyncio.Event(), CLOSE_S)
        log_event(
            _log,
            "server ended",
            calls=calls.begun,
            given_up=calls.given_up,
            hurried=hurried.is_set() or None,
            seconds_up=round(time.monotonic() - self._began),
        )

    async def _finish(self) -> None:
        await self.service.drain()
        await self._grpc.finish()

    def _newer(self) -> None:
        """What is adapted is better sent to a server of the newer release; predictions are answered."""
        self._grpc.adaptations_usable(False)

    def _followed(self, followed: bool) -> None:
        """What other servers publish and delete is known here, or is not."""
        self._grpc.catalogue_followed(followed)

    def _trunk_changed(self, trunk: Trunk) -> None:
        """Where the default backbone's encoder fails, predictions are better asked of another server."""
        if trunk.name == self.service.trunks.default:
            self._usable()

    def _usable(self) -> None:
        self._grpc.predictions_usable(self.service.predictions_usable)


async def _unhurried(
    work: Coroutine[Any, Any, None], hurried: asyncio.Event, within_s: float | None = None
) -> None:
    """Does some work of the stop; cuts it off after a time, or when the stop is hurried."""
    working = asyncio.ensure_future(survived(work, "draining", _log))
    hurry = asyncio.ensure_future(hurried.wait())
    await asyncio.wait((working, hurry), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    working.cancel()
    hurry.cancel()
    await asyncio.gather(working, hurry, return_exceptions=True)


def _named(trunk: Trunk) -> str:
    """A backbone as it stands in the log: its name, and its encoder's id or its state."""
    if trunk.state is TrunkState.READY:
        return f"{trunk.name}:{trunk.encoder_id[:SHORT_ID]}"
    return f"{trunk.name}:{trunk.state.name.lower()}"


def without_credentials(store: str) -> str:
    """Returns where a store is, without the name, the password and the options that its URL may have."""
    scheme, separator, rest = store.partition("://")
    if not separator:
        return store
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def limits_of(settings: Settings) -> AdaptationLimits:
    """The limits that the settings ask for."""
    return AdaptationLimits(
        open=settings.open_adaptations,
        open_per_model=settings.open_adaptations_per_model,
        publications=settings.publications,
        publications_per_model=settings.publications_per_model,
        intake_bytes=settings.intake_memory_mb << 20,
    )


def trunks_of(
    settings: Settings,
    on_change: OnChange = lambda _: None,
    preparing: Threads | None = None,
    objects: Objects | None = None,
) -> Trunks:
    """The trunks that the settings ask for, not yet open; of encoders in the store they know if it is given."""
    trunk_settings = TrunkSettings(
        cache=settings.cache_folder,
        objects=objects,
        device=settings.device,
        precision=settings.precision,
        cores=settings.cores or usable_cores(),
        budget=settings.batch_tokens,
        measure_s=settings.measure_seconds,
        queued_requests=settings.queued_requests,
        limits=MediaLimits(
            ImageLimits(
                int(settings.max_image_mb * (1 << 20)), settings.max_image_pixels, settings.max_image_ratio
            ),
            AudioLimits(
                int(settings.max_audio_mb * (1 << 20)), settings.max_audio_seconds, settings.max_audio_ratio
            ),
        ),
        tuned_bytes=settings.tuned_memory_mb << 20,
        preparing=preparing or Threads("preparing", settings.cores or usable_cores()),
    )
    return Trunks(
        settings.backbones, settings.default_backbone, trunk_settings, on_change, settings.backbones_on_use
    )


def place_of(settings: Settings) -> Place:
    """What workers beside the server know of where they run."""
    return Place(
        store=_location(settings.store),
        cache=str(settings.cache_folder),
        backbones=settings.backbones,
        precision=settings.precision,
        threads=settings.cores or usable_cores(),
        tuning_bytes=settings.tuning_memory_mb << 20,
    )


def _location(store: str) -> str:
    return store if "://" in store else str(Path(store).expanduser().resolve())
