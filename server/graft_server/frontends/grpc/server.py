"""The gRPC server: the three services, health and reflection on one port."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2
from graft_server.api.adaptations import AdaptationApi
from graft_server.api.models import ModelApi
from graft_server.api.predictions import PredictionApi
from graft_server.domain.errors import StoreError
from graft_server.frontends.grpc.adaptation import AdaptationService
from graft_server.frontends.grpc.handlers import add_service
from graft_server.frontends.grpc.listening import SocketFile, require_usable, shown
from graft_server.frontends.grpc.model import ModelService
from graft_server.frontends.grpc.prediction import PredictionService

MAX_REQUEST_BYTES = 32 << 20

_ADAPTATION = adaptation_pb2.DESCRIPTOR.services_by_name["AdaptationService"]
_PREDICTION = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"]
_MODEL = model_pb2.DESCRIPTOR.services_by_name["ModelService"]
_NAMES = tuple(it.full_name for it in (_ADAPTATION, _PREDICTION, _MODEL))
_Status = health_pb2.HealthCheckResponse


class GrpcServer:
    """Serves the API by gRPC."""

    def __init__(
        self,
        adaptations: AdaptationApi,
        predictions: PredictionApi,
        models: ModelApi,
        *,
        max_connection_age_s: float = 0.0,
    ) -> None:
        """Makes the server; it listens to nothing yet.

        Args:
            adaptations: The calls of AdaptationService.
            predictions: The calls of PredictionService.
            models: The calls of ModelService.
            max_connection_age_s: The age at which connections are closed gracefully; 0: never.
        """
        self._server = grpc.aio.server(options=_options(max_connection_age_s))
        add_service(self._server, AdaptationService(adaptations, max_connection_age_s), _ADAPTATION)
        add_service(self._server, PredictionService(predictions, max_connection_age_s), _PREDICTION)
        add_service(self._server, ModelService(models), _MODEL)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._socket_files: list[SocketFile] = []
        self._changes: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._usable: dict[str, bool] = {}
        """Whether services are usable, by name, as far as it was reported: maybe before the server starts."""

    def listen(self, address: str) -> str:
        """Listens on an address; returns it with its real port.

        Args:
            address: HOST:PORT, where port 0 picks a free one, [IPV6]:PORT, or unix:PATH.

        Raises:
            StoreError: The address cannot be used.
        """
        require_usable(address)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise StoreError(
                f"The address {address} cannot be listened on; is another server using it?",
                reason="ADDRESS_IN_USE",
            ) from error
        if (file := SocketFile.of(address)) is not None:
            self._socket_files.append(file)
        return shown(address, port)

    async def start(self) -> None:
        """Answers requests from now on."""
        await self._server.start()
        await self._set_health(_Status.SERVING)
        for name, usable in self._usable.items():
            self._set_usable(name, usable)

    async def refuse(self) -> None:
        """Reports to clients that they should use another server; requests are still answered."""
        self._stopping = True
        await self._set_health(_Status.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Takes no more requests, lets running calls finish within the time, and ends the rest."""
        await self._server.stop(grace_s)
        for file in self._socket_files:
            file.remove()

    def predictions_usable(self, usable: bool) -> None:
        """Reports whether this server can answer predictions."""
        self._set_usable(_PREDICTION.full_name, usable)

    def adaptations_usable(self, usable: bool) -> None:
        """Reports whether this server can take adaptations in and publish versions."""
        self._set_usable(_ADAPTATION.full_name, usable)

    def _set_usable(self, name: str, usable: bool) -> None:
        self._usable[name] = usable
        if self._stopping:
            return
        status = _Status.SERVING if usable else _Status.NOT_SERVING
        task = asyncio.create_task(self._health.set(name, status))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", *_NAMES):
            await self._health.set(name, status)


def _options(max_connection_age_s: float) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        # Two servers on one port would silently share its connections.
        ("grpc.so_reuseport", 0),
        # Clients ping every 10 or 20 s. gRPC would close a connection that pings more often
        # than every 5 minutes; a server that had to wait for a processor receives two in a row.
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
    if max_connection_age_s:
        # Without a limit for the calls that run then: those that may last for ever end by themselves (`ageing`), and
        # the others, an evaluation say, could not go on where they were.
        options.append(("grpc.max_connection_age_ms", round(max_connection_age_s * 1000)))
    return options
