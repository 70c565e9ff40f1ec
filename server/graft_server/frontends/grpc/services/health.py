"""grpc.health.v1.Health: whether the server, and each of its services, can be used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from grpc_health.v1 import health_pb2 as pb

from graft_server.domain.errors import DrainingError, MissingError
from graft_server.domain.names import shown
from graft_server.frontends.grpc.errors import Context
from graft_server.frontends.grpc.handlers import rests

Status = pb.HealthCheckResponse
OVERALL = ""
"""The service whose status is that of the whole server."""


class HealthService:
    """Implements grpc.health.v1.Health."""

    def __init__(self, services: Iterable[str]) -> None:
        """Reports that nothing serves yet.

        Args:
            services: The full names of the services that are reported on, besides the whole server.
        """
        self._serving = dict.fromkeys((OVERALL, *services), False)
        self._changed = asyncio.Event()
        self._ended = False

    def set(self, serving: bool, service: str | None = None) -> None:
        """Reports whether a service can be used; None: every one, and the whole server."""
        self._serving.update(dict.fromkeys(self._serving if service is None else (service,), serving))
        self._wake()

    def end(self) -> None:
        """Ends all watches: the server goes away."""
        self._ended = True
        self._wake()

    async def Check(self, request: pb.HealthCheckRequest, _: Context) -> pb.HealthCheckResponse:
        """Tells whether a service can be used."""
        if request.service not in self._serving:
            raise MissingError(
                f"There is no service {shown(request.service)}: ask for {', '.join(filter(None, self._serving))}, or "
                "for none, which is the whole server.",
                reason="SERVICE_UNKNOWN",
            )
        return Status(status=self._status(request.service))

    @rests
    async def Watch(
        self, request: pb.HealthCheckRequest, _: Context
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        """Tells whether a service can be used, and again whenever that changes."""
        told = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != told:
                yield Status(status=status)
                told = status
            if self._ended:
                raise DrainingError
            await changed.wait()

    def _wake(self) -> None:
        # Whoever waits has the old event.
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, service: str) -> pb.HealthCheckResponse.ServingStatus.ValueType:
        if service not in self._serving:
            return Status.SERVICE_UNKNOWN
        return Status.SERVING if self._serving[service] else Status.NOT_SERVING
