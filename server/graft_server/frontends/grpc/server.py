"""The gRPC server: the three services, health and reflection on one port."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2
from graft_server.api.adaptations import AdaptationApi
from graft_server.api.models import ModelApi
from graft_server.api.predictions import PredictionApi
from graft_server.domain.errors import StoreError
from graft_server.frontends.grpc.calls import Calls
from graft_server.frontends.grpc.handlers import add_service
from graft_server.frontends.grpc.listening import SocketFile, require_usable, shown
from graft_server.frontends.grpc.services.adaptation import AdaptationService
from graft_server.frontends.grpc.services.health import HealthService
from graft_server.frontends.grpc.services.model import ModelService
from graft_server.frontends.grpc.services.prediction import PredictionService
from graft_server.frontends.grpc.services.reflection import add_reflection
from graft_server.frontends.grpc.sizes import MAX_REQUEST_BYTES, MAX_TRANSPORTED_METADATA_BYTES

_ADAPTATION = adaptation_pb2.DESCRIPTOR.services_by_name["AdaptationService"]
_PREDICTION = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"]
_MODEL = model_pb2.DESCRIPTOR.services_by_name["ModelService"]
_NAMES = tuple(it.full_name for it in (_ADAPTATION, _PREDICTION, _MODEL))
CATALOGUE = "graft.catalogue"
"""The name under which health says whether what other servers publish and delete is known here."""
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]

_UNCOMPRESSED = 1 << grpc.Compression.NoCompression
SETTLE_S = 0.25
"""The time for the statuses of calls that were ended to reach their clients."""
LINGER_S = 0.1
"""The time for clients to hang up by themselves once no call runs: one that is idle may not even look."""


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
        self._calls = Calls()
        self._health = HealthService((*_NAMES, CATALOGUE))
        for servicer, service in (
            (AdaptationService(adaptations, max_connection_age_s), _ADAPTATION),
            (PredictionService(predictions, max_connection_age_s), _PREDICTION),
            (ModelService(models), _MODEL),
            (self._health, _HEALTH),
        ):
            add_service(self._server, servicer, service, self._calls)
        add_reflection(self._server, (*_NAMES, _HEALTH.full_name), self._calls)
        self._stopping = False
        self._stopped: asyncio.Future[None] | None = None
        self._socket_files: list[SocketFile] = []
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
        self._health.set(True)
        for name, usable in self._usable.items():
            self._health.set(usable, name)

    def refuse(self) -> None:
        """Reports to clients that they should use another server; requests are still answered."""
        self._stopping = True
        self._health.set(False)

    def drain(self) -> None:
        """Takes no more connections and calls, and ends the calls that wait for their clients."""
        self._calls.drain()
        self._health.end()
        self._stopped = asyncio.ensure_future(self._server.stop(math.inf))

    async def finish(self) -> None:
        """Returns when calls that are at work have finished, and the others have been told. It has been drained."""
        await self._calls.worked()
        await self._settle()

    @property
    def calls(self) -> Calls:
        """The calls that run, and how many there have been."""
        return self._calls

    async def close(self) -> None:
        """Ends all calls, and then all connections. It has been drained."""
        if self._calls.give_up():
            await self._settle()
        await self._server.stop(None)
        if self._stopped is not None:
            await self._stopped
        self.remove_socket_files()

    def remove_socket_files(self) -> None:
        """Removes the files of the UNIX sockets that it listened on."""
        for file in self._socket_files:
            file.remove()

    async def _settle(self) -> None:
        """Waits a moment for what has been told to be written, and then for clients to hang up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._calls.ended()
        if self._stopped is not None:
            await asyncio.wait((self._stopped,), timeout=LINGER_S)

    def predictions_usable(self, usable: bool) -> None:
        """Reports whether this server can answer predictions."""
        self._set_usable(_PREDICTION.full_name, usable)

    def adaptations_usable(self, usable: bool) -> None:
        """Reports whether this server can take adaptations in and publish versions."""
        self._set_usable(_ADAPTATION.full_name, usable)

    def catalogue_followed(self, followed: bool) -> None:
        """Reports whether the catalogue is followed: if not, this server may answer as if others had done nothing."""
        self._set_usable(CATALOGUE, followed)

    def _set_usable(self, name: str, usable: bool) -> None:
        self._usable[name] = usable
        if not self._stopping:
            self._health.set(usable, name)


def _options(max_connection_age_s: float) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        # gRPC bounds a message as it comes, not as it is inflated to: 1 MiB may become 1 GiB. So compressed requests
        # are refused (UNIMPLEMENTED) when their headers come, and what is compressed all the same is not inflated.
        ("grpc.compression_enabled_algorithms_bitset", _UNCOMPRESSED),
        ("grpc.per_message_decompression", 0),
        # Between two different limits gRPC refuses at random.
        ("grpc.max_metadata_size", MAX_TRANSPORTED_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_TRANSPORTED_METADATA_BYTES),
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
