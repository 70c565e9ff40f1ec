"""AdaptationService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from graft.v1 import adaptation_pb2 as pb
from graft_server.api.adaptations import AdaptationApi
from graft_server.domain.stream import WriterMessage
from graft_server.frontends.grpc.ageing import until_age
from graft_server.frontends.grpc.converters import adaptations as answers
from graft_server.frontends.grpc.converters.lazy import ConvertedStream
from graft_server.frontends.grpc.converters.requests import writer_message
from graft_server.frontends.grpc.errors import Context
from graft_server.frontends.grpc.handlers import rests, takes
from graft_server.frontends.grpc.paging import page, page_request
from graft_server.frontends.grpc.sizes import MAX_REQUEST_BYTES
from graft_server.frontends.grpc.times import keep_alive


class AdaptationService:
    """Implements graft.v1.AdaptationService."""

    def __init__(self, adaptations: AdaptationApi, max_age_s: float = 0.0) -> None:
        """Makes it; calls that can go on in another one end at the age; 0: never."""
        self._adaptations = adaptations
        self._max_age_s = max_age_s

    @takes(MAX_REQUEST_BYTES)
    @rests
    async def Adapt(
        self, requests: AsyncIterator[pb.AdaptRequest], _: Context
    ) -> AsyncIterator[pb.AdaptResponse]:
        """Reads examples and commits and streams the answers to them."""
        stored = True

        def converted(request: pb.AdaptRequest) -> WriterMessage:
            nonlocal stored
            stored = stored and not request.start.validate_only
            return writer_message(request)

        call = self._adaptations.adapt(ConvertedStream(requests, converted))
        # A check could not go on in another call: nothing of it is stored.
        async with aclosing(until_age(call, self._max_age_s, lambda: stored)) as messages:
            async for message in messages:
                yield answers.adapt_response(message)

    async def GetAdaptation(self, request: pb.GetAdaptationRequest, _: Context) -> pb.GetAdaptationResponse:
        """Describes one adaptation."""
        found = await self._adaptations.get_adaptation(request.model, request.adaptation_id)
        return pb.GetAdaptationResponse(adaptation=answers.adaptation(found))

    async def ListAdaptations(
        self, request: pb.ListAdaptationsRequest, _: Context
    ) -> pb.ListAdaptationsResponse:
        """Lists a model's adaptations."""
        listed = self._adaptations.list_adaptations(request.model, page_request(request))
        adaptations, token = await page(listed, answers.listed_adaptation)
        return pb.ListAdaptationsResponse(adaptations=adaptations, next_page_token=token)

    @rests
    async def WatchAdaptation(
        self, request: pb.WatchAdaptationRequest, _: Context
    ) -> AsyncIterator[pb.WatchAdaptationResponse]:
        """Streams events, the past ones first."""
        watch = self._adaptations.watch_adaptation(
            request.model,
            request.adaptation_id,
            request.from_event,
            keep_alive_s=keep_alive(request.keep_alive, "keep_alive"),
        )
        async with aclosing(until_age(watch, self._max_age_s)) as happenings:
            async for happening in happenings:
                yield answers.watch_response(happening)

    async def CancelAdaptation(
        self, request: pb.CancelAdaptationRequest, _: Context
    ) -> pb.CancelAdaptationResponse:
        """Stops an adaptation's work."""
        cancelled = await self._adaptations.cancel_adaptation(request.model, request.adaptation_id)
        return answers.cancelled(cancelled)
