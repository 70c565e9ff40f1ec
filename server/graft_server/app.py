"""Start here: everything the server consists of is made and connected in this module, once.

rpc          requests and answers        AdaptationService, PredictionService, ModelService
adapting     examples to versions        Adaptations -> Publisher -> jobs -> Catalogue
serving      features to predictions     Versions, Predictor
encoding     inputs to features          Trunks, shared by the two above
store, jobs  what is kept; where training runs
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2
from graft_server.adapting.adaptations import AdaptationLimits, Adaptations
from graft_server.adapting.publishing.fine_tuning import Tuner
from graft_server.adapting.publishing.publisher import Publisher
from graft_server.backbones.decoding.audio import AudioLimits
from graft_server.backbones.decoding.images import ImageLimits
from graft_server.backbones.decoding.limits import MediaLimits
from graft_server.domain.errors import StoreError
from graft_server.encoding.loading import TrunkSettings
from graft_server.encoding.trunk import OnChange, Trunk, TrunkState
from graft_server.encoding.trunks import Trunks
from graft_server.erasing.deletion import Deletion
from graft_server.exporting.exporter import Exporter
from graft_server.frontends.grpc.adaptation import AdaptationService
from graft_server.frontends.grpc.handlers import add_service
from graft_server.frontends.grpc.model import ModelService
from graft_server.frontends.grpc.prediction import PredictionService
from graft_server.jobs.local.pool import LocalJobs
from graft_server.serving.predictor import Predictor
from graft_server.serving.versions import Versions
from graft_server.settings import Settings
from graft_server.sharing.background import survived
from graft_server.sharing.cores import usable_cores
from graft_server.sharing.preemption import Preemption
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.objects.objects import Objects

_log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 32 << 20
SERVICES = {
    descriptor.full_name: descriptor
    for descriptor in (
        adaptation_pb2.DESCRIPTOR.services_by_name["AdaptationService"],
        prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"],
        model_pb2.DESCRIPTOR.services_by_name["ModelService"],
    )
}
_WORKER_MODULES = ("graft_server.training.train", "graft_server.exporting.bundle")


class App:
    """A server, from its settings to its end."""

    def __init__(self, settings: Settings) -> None:
        """Makes the parts. Nothing runs yet; the store is opened and the catalogue read.

        Raises:
            StoreError: The store cannot be used.
        """
        self._settings = settings
        location = _location(settings.store)
        objects = Objects.open(location)
        catalogue = Catalogue(objects)
        preemption = Preemption()
        self._jobs = LocalJobs(settings.workers, preload=_WORKER_MODULES, preemption=preemption)
        self._trunks = trunks_of(settings, self._trunk_changed)
        self._versions = Versions(objects, catalogue, self._trunks)
        self._tuning_jobs = LocalJobs(settings.tuning_workers, preemption=preemption)
        self._tuner = Tuner(
            location=location,
            jobs=self._jobs,
            tuning_jobs=self._tuning_jobs,
            folder=settings.cache_folder / "tuning",
            threads=settings.cores or usable_cores(),
            cache_bytes=settings.tuning_memory_mb << 20,
        )
        publisher = Publisher(
            objects, location, catalogue, self._jobs, self._tuner, self._versions.put_in_service
        )
        self._adaptations = Adaptations(publisher, self._trunks, limits_of(settings))
        predictor = Predictor(self._versions, self._adaptations, settings.cached_responses, preemption)
        self._deletion = Deletion(
            objects,
            catalogue,
            self._versions.forget,
            settings.erasure_grace_seconds,
            self._jobs,
            location,
        )
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_options(settings))
        services = (
            AdaptationService(self._adaptations),
            PredictionService(predictor),
            ModelService(
                catalogue,
                self._versions,
                predictor,
                self._trunks,
                Exporter(self._jobs, location, settings.cache_folder),
                self._adaptations,
                self._deletion,
            ),
        )
        for service, descriptor in zip(services, _descriptors(services), strict=True):
            add_service(self._server, service, descriptor)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._recovery: asyncio.Task[None] | None = None
        self._health_changes: set[asyncio.Task[None]] = set()
        self._draining = False

    async def start(self) -> str:
        """Starts everything, and returns HOST:PORT once requests are served.

        Raises:
            BackboneError: The default backbone cannot be used.
            StoreError: The port cannot be used.
        """
        host, _, _ = self._settings.listen.rpartition(":")
        try:
            port = self._server.add_insecure_port(self._settings.listen)
        except RuntimeError as error:
            raise StoreError(
                f"The address {self._settings.listen} cannot be listened on; is another server using it?",
                reason="ADDRESS_IN_USE",
            ) from error
        await self._jobs.start()
        known = self._deletion.catalogue.snapshot
        await asyncio.to_thread(self._tuner.sweep, [*known.erasures, *known.deletions])
        await self._trunks.open(self._jobs)
        await self._versions.preload()
        self._versions.start(self._adaptations.follow)
        self._recovery = asyncio.create_task(self._recover())
        await self._server.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        return f"{host}:{port}"

    async def stop(self) -> None:
        """Drains: asks callers to go elsewhere, lets running calls finish, and ends everything."""
        self._draining = True
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        stopping = asyncio.create_task(self._server.stop(self._settings.drain_seconds))
        await self._adaptations.close()
        await stopping
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        await self._versions.close()
        await self._jobs.close()
        await self._tuning_jobs.close()
        await self._trunks.close()

    async def _recover(self) -> None:
        await survived(self._deletion.finish_all(), "finishing deletions", _log)
        await survived(self._adaptations.recover(), "looking for unfinished commits", _log)

    def _trunk_changed(self, trunk: Trunk) -> None:
        """Where the default backbone's encoder fails, predictions are better asked of another server."""
        if trunk.name != self._trunks.default or self._draining:
            return
        serving = trunk.state is TrunkState.READY
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        name = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
        task = asyncio.create_task(self._health.set(name, status))
        self._health_changes.add(task)
        task.add_done_callback(self._health_changes.discard)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", *SERVICES):
            await self._health.set(name, status)


def limits_of(settings: Settings) -> AdaptationLimits:
    """The limits that the settings ask for."""
    return AdaptationLimits(
        open=settings.open_adaptations,
        open_per_model=settings.open_adaptations_per_model,
        publications=settings.publications,
        publications_per_model=settings.publications_per_model,
        intake_bytes=settings.intake_memory_mb << 20,
    )


def trunks_of(settings: Settings, on_change: OnChange = lambda _: None) -> Trunks:
    """The trunks that the settings ask for, not yet open."""
    trunk_settings = TrunkSettings(
        cache=settings.cache_folder,
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
    )
    return Trunks(
        settings.backbones, settings.default_backbone, trunk_settings, on_change, settings.backbones_on_use
    )


def _location(store: str) -> str:
    return store if "://" in store else str(Path(store).expanduser().resolve())


def _descriptors(services: tuple[object, ...]) -> list[ServiceDescriptor]:
    by_name = {descriptor.name: descriptor for descriptor in SERVICES.values()}
    return [by_name[type(service).__name__] for service in services]


def _options(settings: Settings) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        # Two servers on one port would silently share its connections.
        ("grpc.so_reuseport", 0),
        # Clients ask every 10 or 20 s whether the server is there. gRPC would close a connection that asks more often
        # than every 5 minutes; a server that had to wait for a processor hears two in a row.
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
    if settings.max_connection_age_seconds:
        age_ms = round(settings.max_connection_age_seconds * 1000)
        options += [("grpc.max_connection_age_ms", age_ms), ("grpc.max_connection_age_grace_ms", age_ms)]
    return options
