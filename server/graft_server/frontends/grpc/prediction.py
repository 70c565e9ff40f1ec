"""PredictionService."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator

from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import StringValue

from graft.v1 import prediction_pb2 as pb
from graft_server.domain.errors import DomainError, InvalidError
from graft_server.frontends.grpc.converters import answers
from graft_server.frontends.grpc.converters.requests import input_or_error, selector
from graft_server.frontends.grpc.errors import Context, to_status
from graft_server.frontends.grpc.handlers import Malformed, answers_each
from graft_server.serving.predictor import Predictor
from graft_server.sharing.event_loop import in_slices

MAX_INPUTS = 10_000
DEFAULT_TOP_K = 5
MAX_RESPONSE_BYTES = 4 << 20
"""What generated clients accept by default."""
STREAM_REQUESTS = 64
"""Requests of one stream that are worked on at once; the client's others wait in the transport."""


class PredictionService:
    """Implements graft.v1.PredictionService."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Answers for some inputs of one model."""
        return await self._predict(request, _deadline(context))

    @answers_each
    async def PredictStream(
        self, requests: AsyncIterator[pb.PredictStreamRequest | Malformed], context: Context
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Answers many requests, each when it is ready."""
        deadline = _deadline(context)
        # As large as what may be in work, so that a client who does not read stops what is read from it.
        ready: asyncio.Queue[pb.PredictStreamResponse | Exception | None] = asyncio.Queue(STREAM_REQUESTS)

        async def read() -> None:
            room = asyncio.Semaphore(STREAM_REQUESTS)
            try:
                async with asyncio.TaskGroup() as group:
                    async for request in requests:
                        await room.acquire()
                        task = group.create_task(answer(request))
                        task.add_done_callback(lambda _: room.release())
                await ready.put(None)
            except ExceptionGroup as group:
                # The group wraps what went wrong with the stream itself.
                await ready.put(group.exceptions[0])

        async def answer(request: pb.PredictStreamRequest | Malformed) -> None:
            response = pb.PredictStreamResponse(request_id=_request_id(request))
            try:
                if isinstance(request, Malformed):
                    raise request.error()
                response.response.CopyFrom(await self._predict(request.request, deadline))
            except DomainError as error:
                response.error.CopyFrom(to_status(error))
            await ready.put(response)

        reader = asyncio.create_task(read())
        try:
            while (item := await ready.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _predict(self, request: pb.PredictRequest, deadline: float) -> pb.PredictResponse:
        selected = selector(request)
        _check(request)
        inputs = await in_slices(
            lambda it: input_or_error(it[1], f"inputs[{it[0]}]"), list(enumerate(request.inputs))
        )
        predictions = await self._predictor.predict(
            request.model,
            selected,
            inputs,
            top_k=request.top_k or DEFAULT_TOP_K,
            include_features=request.include_features,
            deadline=deadline,
        )
        response = await answers.predict_response(predictions)
        if response.ByteSize() > MAX_RESPONSE_BYTES:
            raise InvalidError(
                f"The answer would have {response.ByteSize():,} bytes, and clients accept {MAX_RESPONSE_BYTES:,}: ask "
                "with fewer inputs, a smaller top_k, or without features.",
                reason="RESPONSE_TOO_LARGE",
                field="inputs",
            )
        return response


def _request_id(request: pb.PredictStreamRequest | Malformed) -> str:
    """The id of a request; "" where its bytes do not even tell that."""
    if not isinstance(request, Malformed):
        return request.request_id
    try:
        # A message of one string in the same field: whatever the others hold is passed over unread.
        return StringValue.FromString(request.data).value
    except DecodeError:
        return ""


def _check(request: pb.PredictRequest) -> None:
    if not request.inputs:
        raise InvalidError(
            f"inputs is empty: give 1 to {MAX_INPUTS:,}.", reason="INPUTS_EMPTY", field="inputs"
        )
    if len(request.inputs) > MAX_INPUTS:
        raise InvalidError(
            f"inputs has {len(request.inputs):,} entries: at most {MAX_INPUTS:,} a request are accepted.",
            reason="TOO_MANY_INPUTS",
            field="inputs",
        )
    if request.top_k < 0:
        raise InvalidError(
            f"top_k is {request.top_k}: give how many scores each answer shall have, or 0 for {DEFAULT_TOP_K}.",
            reason="TOP_K_INVALID",
            field="top_k",
        )


def _deadline(context: Context) -> float:
    """On the clock of time.monotonic()."""
    remaining = context.time_remaining()
    return math.inf if remaining is None else time.monotonic() + remaining
