"""The calls for predictions: one request at a time, or many on a stream."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from graft_server.adapting.intake.validation import check_input
from graft_server.api.keep_alive import Doing
from graft_server.domain.caller import Caller, new_call
from graft_server.domain.errors import AgedError, DomainError, DrainingError, InvalidError
from graft_server.domain.examples import Input
from graft_server.domain.names import MAX_LABEL_BYTES
from graft_server.domain.prediction import PredictionRequest, Predictions, StreamedAnswer, StreamedRequest
from graft_server.domain.stream import Activity
from graft_server.serving.interim import Interim
from graft_server.serving.predictor import Predictor
from graft_server.serving.versions import ServedVersion
from graft_server.sharing.event_loop import in_slices

MAX_INPUTS = 10_000
DEFAULT_TOP_K = 5
STREAM_REQUESTS = 64
STREAM_BYTES = 16 << 20
"""Requests of one stream that are processed or whose answers were not taken yet, and the bytes of both; the client's
others wait in the transport. A larger request is processed alone."""
ANSWER_BYTES = 4 << 20
"""About what the largest answer takes that clients accept."""
SCORE_SIZE, FEATURE_SIZE = 24, 4
"""About what a score, and a component of features, take in an answer."""
MAX_TOP_K = 10_000
"""The most scores of an answer, as many as a model may declare labels; a larger `top_k` asks for as many."""
SCORE_BYTES = 4
"""The least bytes of a score in an answer besides its label."""
FEATURE_BYTES = 4
"""The least bytes of a feature vector's component in an answer."""
MEASURED_FROM = 1 << 20
"""Answers that are certain to have fewer bytes are not checked."""


class PredictionApi:
    """Predictions, for callers of any protocol."""

    def __init__(self, predictor: Predictor, doing: Doing = lambda: "") -> None:
        """Makes it; `doing` says what is being done until backbones can be used."""
        self._predictor = predictor
        self._doing = doing

    async def predict(
        self,
        request: PredictionRequest,
        *,
        caller: Caller | None = None,
        deadline: float = math.inf,
        max_bytes: float = math.inf,
    ) -> Predictions:
        """Predicts for some inputs with one model.

        Args:
            request: What is asked.
            caller: Who asks; None: somebody who is not known, by a call of its own.
            deadline: On the clock of time.monotonic().
            max_bytes: The largest answer that the caller accepts. A request whose answer is known to be larger is
                refused before anything is computed; the sender of the answer checks its real size.

        Raises:
            DomainError: None of the inputs can be answered; the error says why.
        """
        _check(request)
        inputs = await in_slices(
            lambda place: _checked(request.inputs[place], f"inputs[{place}]"), range(len(request.inputs))
        )
        selector, top_k = request.selector, min(request.top_k or DEFAULT_TOP_K, MAX_TOP_K)
        served = await self._predictor.serve(request.model, selector)
        size = _least_bytes(served, inputs, top_k, include_features=request.include_features)
        if size > max_bytes:
            raise answer_too_large(f"at least {size:,}", max_bytes)
        results, timings = await self._predictor.predict(
            served,
            inputs,
            top_k=top_k,
            caller=caller or new_call(),
            include_features=request.include_features,
            deadline=deadline,
        )
        if isinstance(served, ServedVersion):
            return Predictions(served.version.model, served.version.number, "", 0, results, timings)
        return Predictions(served.model, 0, selector.adaptation_id, served.next_sequence, results, timings)

    async def predict_stream(
        self,
        requests: AsyncIterator[StreamedRequest],
        *,
        caller: Caller | None = None,
        deadline: float = math.inf,
        max_bytes: float = math.inf,
    ) -> AsyncGenerator[StreamedAnswer | Activity, None]:
        """Answers many requests, each when it is ready. A bad one does not end the stream.

        Where a request asks for it (`keep_alive_s`), it is yielded what is being done while requests wait.

        Close the returned iterator: the stream has not ended before.

        Args:
            requests: The requests. An exception of the iteration ends the stream.
            caller: Who asks: the requests are one call. None: somebody who is not known.
            deadline: The deadline of the whole stream, on the clock of time.monotonic().
            max_bytes: The largest answer to one request that the caller accepts; see `predict`.
        """
        caller = caller or new_call()
        ready = _Ready(self._doing)
        # Until an answer is taken, so that a client who does not read is not read from.
        room = StreamRoom()

        async def read() -> None:
            end: Exception | None = None
            try:
                async with asyncio.TaskGroup() as group:
                    try:
                        async for request in requests:
                            await ready.expect(request)
                            size = request.size + _answer_size(request.request)
                            await room.begin(size)
                            group.create_task(answer(request, size))
                    except (DrainingError, AgedError) as error:
                        end = error  # once the requests in work are answered
                await ready.put(end)
            except ExceptionGroup as group:
                # The group wraps an error of the stream itself.
                await ready.put(group.exceptions[0])

        async def answer(streamed: StreamedRequest, size: int) -> None:
            found: Predictions | DomainError
            try:
                if isinstance(streamed.request, DomainError):
                    raise streamed.request
                found = await self.predict(
                    streamed.request, caller=caller, deadline=deadline, max_bytes=max_bytes
                )
            except DomainError as error:
                # Its frames refer to the request, and to the error itself.
                found = error.with_traceback(None)
            await ready.put((StreamedAnswer(streamed.request_id, found), size))

        reader = asyncio.create_task(read())
        try:
            while (item := await ready.next()) is not None:
                if isinstance(item, Activity):
                    yield item
                    continue
                answered, size = item
                yield answered
                del answered, item
                room.end(size)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


class _Ready:
    """The answers of a stream that are ready, its error or its end (None), and what is said while there are none."""

    def __init__(self, doing: Doing) -> None:
        self._doing = doing
        self._items: asyncio.Queue[tuple[StreamedAnswer, int] | Exception | _Ready | None] = asyncio.Queue()
        self._keep_alive_s: float | None = None
        self._waiting = 0
        """The requests without an answer."""

    async def expect(self, request: StreamedRequest) -> None:
        """Takes note of a request."""
        self._waiting += 1
        if request.keep_alive_s not in (None, self._keep_alive_s):
            self._keep_alive_s = request.keep_alive_s
            await self._items.put(self)  # who waits does so for as long as that from here on

    async def put(self, item: tuple[StreamedAnswer, int] | Exception | None) -> None:
        """Adds an answer and the size of its request, the stream's error, or its end."""
        await self._items.put(item)

    async def next(self) -> tuple[StreamedAnswer, int] | Activity | None:
        """The next answer, or what is being done where there is none for long; None: the stream has ended."""
        while True:
            try:
                async with asyncio.timeout(self._keep_alive_s):
                    item = await self._items.get()
            except TimeoutError:
                if self._waiting:
                    return Activity(self._doing())
                continue
            if isinstance(item, Exception):
                raise item
            if not isinstance(item, _Ready):
                self._waiting -= item is not None
                return item


class StreamRoom:
    """What of a stream is processed, or not taken yet, at once."""

    def __init__(self) -> None:
        self._requests = self._bytes = 0
        self._ended = asyncio.Event()

    async def begin(self, size: int) -> None:
        """Waits until there is room for a request of so many bytes."""
        while self._requests and (self._requests >= STREAM_REQUESTS or self._bytes + size > STREAM_BYTES):
            self._ended.clear()
            await self._ended.wait()
        self._requests += 1
        self._bytes += size

    def end(self, size: int) -> None:
        """Gives room back."""
        self._requests -= 1
        self._bytes -= size
        self._ended.set()


def _answer_size(request: PredictionRequest | DomainError) -> int:
    """Returns about how many bytes the answer to a request takes, before anything of it is known but the request."""
    if isinstance(request, DomainError):
        return 0
    # A backbone's features have a thousand components or so.
    each = (request.top_k or DEFAULT_TOP_K) * SCORE_SIZE + request.include_features * 1_024 * FEATURE_SIZE
    return min(len(request.inputs) * max(each, 0), ANSWER_BYTES)


def answer_too_large(size: str, max_bytes: float) -> InvalidError:
    """Returns the error for an answer whose size, in words, is more than its caller accepts."""
    return InvalidError(
        f"The answer would have {size} bytes, and clients accept {max_bytes:,}: ask "
        "with fewer inputs, a smaller top_k, or without features.",
        reason="RESPONSE_TOO_LARGE",
        field="inputs",
    )


def _check(request: PredictionRequest) -> None:
    count = len(request.inputs)
    if not count:
        raise InvalidError(
            f"inputs is empty: give 1 to {MAX_INPUTS:,}.", reason="INPUTS_EMPTY", field="inputs"
        )
    if count > MAX_INPUTS:
        raise InvalidError(
            f"inputs has {count:,} entries: at most {MAX_INPUTS:,} a request are accepted.",
            reason="TOO_MANY_INPUTS",
            field="inputs",
        )
    if request.top_k < 0:
        raise InvalidError(
            f"top_k is {request.top_k}: give how many scores each answer shall have, or 0 for {DEFAULT_TOP_K}.",
            reason="TOP_K_INVALID",
            field="top_k",
        )


def _checked(value: Input | InvalidError, field: str) -> Input | InvalidError:
    """Returns an input, or its error."""
    if isinstance(value, InvalidError):
        return value
    try:
        return check_input(value, field)
    except InvalidError as error:
        return error


def _least_bytes(
    served: ServedVersion | Interim,
    inputs: Sequence[Input | InvalidError],
    top_k: int,
    *,
    include_features: bool,
) -> int:
    """Returns the least bytes of an answer, in any protocol: its features, and the names of its labels."""
    known = served.trunk.description
    features = FEATURE_BYTES * known.dimension if include_features and known else 0
    scores = min(top_k, len(served.labels))
    if len(inputs) * (features + scores * (SCORE_BYTES + MAX_LABEL_BYTES)) < MEASURED_FROM:
        return 0
    kinds = served.trunk.kinds
    answered = sum(isinstance(it, Input) and it.kind in kinds for it in inputs)
    labels = heapq.nsmallest(scores, (len(it.name.encode()) for it in served.labels))
    return answered * (features + SCORE_BYTES * scores + sum(labels))
