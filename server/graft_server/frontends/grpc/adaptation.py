"""AdaptationService."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress

from graft.v1 import adaptation_pb2 as pb
from graft_server.adapting.adaptation import CANCELLED, Adaptation, Session, Watcher, require_sent
from graft_server.adapting.adaptations import Adaptations
from graft_server.adapting.intake.targets import TargetRules
from graft_server.adapting.intake.writer_stream import Incoming, readable
from graft_server.domain import stream
from graft_server.domain.adaptation import (
    AdaptationSettings,
    AdaptationState,
    Commit,
    Committed,
    Event,
    Finished,
    Outcome,
    Rejected,
    StartRequest,
    StateChanged,
)
from graft_server.domain.errors import ConflictError, DomainError, DrainingError, InvalidError
from graft_server.domain.examples import Modality, Rejection
from graft_server.domain.names import check_identifier, check_model
from graft_server.encoding.trunk import Trunk
from graft_server.frontends.grpc.converters import answers
from graft_server.frontends.grpc.converters.enums import TASK_MESSAGES
from graft_server.frontends.grpc.converters.requests import incoming, start_request
from graft_server.frontends.grpc.errors import Context, failure_status, to_status
from graft_server.frontends.grpc.paging import Page, window
from graft_server.frontends.grpc.times import timestamp
from graft_server.sharing.event_loop import in_slices
from graft_server.store.adaptations.store import AdaptationStore

KEEP_ALIVE_S = 20.0
"""An empty progress message is sent after so much silence: idle proxies close calls after a minute or so."""
MAX_CHANGES = 10_000
CHANGES_AT_ONCE = 64
"""Of a message, between two turns of the event loop: reading and checking one takes 23 µs."""
MAX_PUBLICATIONS = 1_000
"""The newest ones are told of an adaptation."""
LISTED_PUBLICATIONS = 10
"""In a list of adaptations."""
POLL_S = 2.0
"""How often a watcher looks for what other servers recorded."""

_STATES = {
    AdaptationState.OPEN: pb.ADAPTATION_STATE_OPEN,
    AdaptationState.CLOSED: pb.ADAPTATION_STATE_CLOSED,
    AdaptationState.CANCELLED: pb.ADAPTATION_STATE_CANCELLED,
}


class AdaptationService:
    """Implements graft.v1.AdaptationService."""

    def __init__(self, adaptations: Adaptations) -> None:
        self._adaptations = adaptations

    async def Adapt(
        self, requests: AsyncIterator[pb.AdaptRequest], _: Context
    ) -> AsyncIterator[pb.AdaptResponse]:
        """Reads examples and commits while it answers with what became of them."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("message") != "start":
            raise InvalidError(
                "The first message of Adapt must be start: it names the model.",
                reason="START_MISSING",
                field="start",
            )
        request = self._adaptations.check(start_request(first.start))
        told = False
        if not first.start.backbone:
            backbone = await self._adaptations.backbone_of(request)
            if not backbone:
                # The first example says what the adaptation is of, and its sender may be waiting for this.
                yield _started(request, 0)
                told = True
                second = await anext(requests, None)
                backbone = self._adaptations.backbone_for(_modality(second))
                requests = _beginning_with(second, requests)
            request = self._adaptations.check(request, backbone)
        await self._adaptations.trunk(request.settings.backbone).ready()
        targets = _targets(request.settings)
        if first.start.validate_only:
            await self._adaptations.lineage(request)
            trunk = self._adaptations.trunk(request.settings.backbone)
            async for response in _validate(requests, request, targets, trunk, told=told):
                yield response
            return
        adaptation = await self._adaptations.start(request)
        session = await adaptation.join(request.writer_id)
        reader = asyncio.create_task(_read(requests, request, session, targets, adaptation.trunk))
        try:
            if not told:
                yield _started(request, session.next_sequence)
            async for message in _messages(session):
                yield answers.adapt_response(message)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await session.close()
            self._adaptations.forget_idle()

    async def GetAdaptation(self, request: pb.GetAdaptationRequest, _: Context) -> pb.GetAdaptationResponse:
        """Describes one adaptation."""
        check_model(request.model)
        check_identifier(request.adaptation_id, "adaptation_id")
        store = await self._adaptations.store_of(request.model, request.adaptation_id)
        return pb.GetAdaptationResponse(adaptation=await self._describe(store, MAX_PUBLICATIONS))

    async def ListAdaptations(
        self, request: pb.ListAdaptationsRequest, _: Context
    ) -> pb.ListAdaptationsResponse:
        """Lists a model's adaptations."""
        ids = await self._adaptations.ids_of(request.model)
        places = window(len(ids), request.page_size, request.page_token)
        page = Page[pb.Adaptation]()
        for place in places:
            if not page.add(await self._listed(request.model, ids[place])):
                break
        return pb.ListAdaptationsResponse(
            adaptations=page.entries, next_page_token=page.token(places, len(ids))
        )

    async def WatchAdaptation(
        self, request: pb.WatchAdaptationRequest, _: Context
    ) -> AsyncIterator[pb.WatchAdaptationResponse]:
        """Streams events, those of the past first."""
        if request.from_event < 0:
            raise InvalidError(
                f"from_event is {request.from_event}: events count from 1; 0 sends all.",
                reason="EVENT_INVALID",
                field="from_event",
            )
        adaptation = await self._adaptations.get(request.model, request.adaptation_id)
        await adaptation.record_events()  # those that a crash left out
        following = max(request.from_event, 1)
        async with adaptation.watched() as watcher:
            while True:
                watcher.changed.clear()
                over = _finished(adaptation)
                if over:
                    await adaptation.record_events()  # they are recorded after what they tell of
                for event in await asyncio.to_thread(adaptation.store.events.read, following):
                    yield await _event(adaptation, event)
                    following = event.number + 1
                if over:
                    return
                if adaptation.closed:
                    raise DrainingError
                if watcher.progress is not None:
                    progress, watcher.progress = watcher.progress, None
                    yield pb.WatchAdaptationResponse(progress=answers.progress(progress))
                if not await _changed(watcher):
                    await asyncio.to_thread(adaptation.store.refresh)  # another server may be at work

    async def CancelAdaptation(
        self, request: pb.CancelAdaptationRequest, _: Context
    ) -> pb.CancelAdaptationResponse:
        """Stops an adaptation's work."""
        adaptation = await self._adaptations.get(request.model, request.adaptation_id)
        await adaptation.cancel()
        described = await self._describe(adaptation.store, MAX_PUBLICATIONS)
        return pb.CancelAdaptationResponse(adaptation=described)

    async def _listed(self, model: str, adaptation_id: str) -> pb.Adaptation:
        """An adaptation of a list: one that is damaged says so, and does not keep the others from being listed."""
        try:
            store = await self._adaptations.store_of(model, adaptation_id)
            return await self._describe(store, LISTED_PUBLICATIONS)
        except DomainError as error:
            return pb.Adaptation(model=model, adaptation_id=adaptation_id, error=to_status(error))

    async def _describe(self, store: AdaptationStore, publications: int) -> pb.Adaptation:
        running = self._adaptations.running(store.model, store.adaptation_id)
        newest = list(store.commits.values())[-publications:]
        positions = await asyncio.to_thread(store.read_positions)
        return pb.Adaptation(
            model=store.model,
            adaptation_id=store.adaptation_id,
            state=_STATES[store.state],
            backbone=store.start.settings.backbone,
            create_time=timestamp(store.start.created),
            writers=[pb.Writer(writer_id=it, next_sequence=end) for it, end in sorted(positions.items())],
            publications=[_publication(it, store.outcomes.get(it.commit_id), running) for it in newest],
            task=TASK_MESSAGES[store.start.settings.task],
            metrics=self._adaptations.metrics(store.model, store.adaptation_id),
        )


def _targets(settings: AdaptationSettings) -> TargetRules:
    labels = {it.name for it in settings.labels} if settings.closed_labels else None
    return TargetRules(settings.task, labels)


async def _read(
    requests: AsyncIterator[pb.AdaptRequest],
    start: StartRequest,
    session: Session,
    targets: TargetRules,
    trunk: Trunk,
) -> None:
    """Takes in what the client sends; what is wrong with it ends the call through the outbox."""
    try:
        async for request in requests:
            match request.WhichOneof("message"):
                case "examples":
                    first = request.examples.first_sequence
                    changes = await _incoming(request.examples, start, targets, trunk)
                    del request  # it may be large, and the stream may have to wait
                    await session.put(first, changes)
                    del changes
                case "commit":
                    commit = request.commit
                    await session.commit(_commit_id(commit), _end(commit), commit.close)
                case which:
                    session.outbox.fail(_misplaced(which))
                    return
        await session.half_close()
    except Exception as error:  # noqa: BLE001 - raised again by whoever reads the outbox
        session.outbox.fail(error)


async def _beginning_with(
    first: pb.AdaptRequest | None, others: AsyncIterator[pb.AdaptRequest]
) -> AsyncIterator[pb.AdaptRequest]:
    if first is not None:
        yield first
        del first
        async for request in others:
            yield request
            del request


def _modality(message: pb.AdaptRequest | None) -> Modality | None:
    """What the first example of a message is, if it has one that says."""
    if message is not None and message.WhichOneof("message") == "examples":
        for change in message.examples.changes:
            kind = change.upsert.input.WhichOneof("kind")
            if kind in _MODALITIES:
                return _MODALITIES[kind]
    return None


_MODALITIES = {
    "text": Modality.TEXT,
    "text_pair": Modality.TEXT,
    "image": Modality.IMAGE,
    "audio": Modality.AUDIO,
}


async def _validate(
    requests: AsyncIterator[pb.AdaptRequest],
    request: StartRequest,
    targets: TargetRules,
    trunk: Trunk,
    *,
    told: bool,
) -> AsyncIterator[pb.AdaptResponse]:
    """The answers of a call that stores nothing."""
    if not told:
        yield _started(request, 0)
    following = 0
    async for message in requests:
        match message.WhichOneof("message"):
            case "examples":
                changes = await _incoming(message.examples, request, targets, trunk)
                _require_no_gap(message.examples.first_sequence, following)
                following = max(following, message.examples.first_sequence + len(changes))
                rejected = tuple(it.result for it in changes if isinstance(it.result, Rejection))
                yield answers.adapt_response(stream.Accepted(following, rejected))
            case "commit":
                commit_id, end = _commit_id(message.commit), _end(message.commit)
                end = following if end is None else end
                require_sent(end, following)
                yield answers.adapt_response(stream.Committed(commit_id, end))
            case which:
                raise _misplaced(which)


async def _incoming(
    batch: pb.ExampleBatch, start: StartRequest, targets: TargetRules, trunk: Trunk
) -> list[Incoming]:
    if batch.first_sequence < 0:
        raise InvalidError(
            f"examples.first_sequence is {batch.first_sequence}: sequences count from 0.",
            reason="SEQUENCE_INVALID",
            field="examples.first_sequence",
        )
    if len(batch.changes) > MAX_CHANGES:
        raise InvalidError(
            f"examples.changes has {len(batch.changes):,} entries: at most {MAX_CHANGES:,} a message are accepted.",
            reason="TOO_MANY_EXAMPLES",
            field="examples.changes",
        )
    changes = await in_slices(
        lambda it: incoming(it[1], start, it[0], targets),
        list(enumerate(batch.changes, batch.first_sequence)),
        CHANGES_AT_ONCE,
    )
    return await readable(trunk, changes, start.writer_id, batch.first_sequence)


def _require_no_gap(first_sequence: int, following: int) -> None:
    if first_sequence > following:
        raise ConflictError(
            f"The batch begins at sequence {first_sequence}, but the call goes on at {following}: send the changes "
            "from there.",
            reason="SEQUENCE_GAP",
            metadata={"next_sequence": str(following)},
        )


def _commit_id(commit: pb.Commit) -> str:
    return check_identifier(commit.commit_id or secrets.token_hex(8), "commit.commit_id")


def _end(commit: pb.Commit) -> int | None:
    """The sequence number that a commit reaches to; None: all so far."""
    if commit.next_sequence < 0:
        raise InvalidError(
            f"commit.next_sequence is {commit.next_sequence}: sequences count from 0.",
            reason="SEQUENCE_INVALID",
            field="commit.next_sequence",
        )
    return commit.next_sequence if commit.HasField("next_sequence") else None


def _misplaced(which: str | None) -> InvalidError:
    if which == "start":
        return InvalidError(
            "start was sent a second time: one call is one adaptation. Open another call.",
            reason="START_REPEATED",
            field="start",
        )
    return InvalidError(
        "The message is empty: send examples or commit.", reason="MESSAGE_EMPTY", field="message"
    )


async def _messages(session: Session) -> AsyncIterator[stream.Message]:
    """What the caller is to be told, and a sign of life where that is long in coming."""
    while True:
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                message = await session.next_message()
        except TimeoutError:
            message = stream.Progress()
        if message is None:
            return
        yield message


def _started(request: StartRequest, next_sequence: int) -> pb.AdaptResponse:
    return pb.AdaptResponse(
        started=pb.Started(
            adaptation_id=request.adaptation_id,
            next_sequence=next_sequence,
            writer_id=request.writer_id,
            backbone=request.settings.backbone,
        )
    )


async def _changed(watcher: Watcher) -> bool:
    """Waits for this server to do something; False: it did nothing for a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(POLL_S):
            return await watcher.changed.wait()
    return False


def _finished(adaptation: Adaptation) -> bool:
    store = adaptation.store
    return store.state is not AdaptationState.OPEN and not (store.commits.keys() - store.outcomes.keys())


async def _event(adaptation: Adaptation, event: Event) -> pb.WatchAdaptationResponse:
    response = pb.WatchAdaptationResponse(event=event.number, time=timestamp(event.time))
    match event.fact:
        case Rejected():
            rejections = await asyncio.to_thread(adaptation.store.rejections, event.fact)
            response.rejected.rejected.extend(map(answers.rejection, rejections))
        case Committed(commit_id=commit_id, watermarks=watermarks):
            response.committed.commit_id = commit_id
            response.committed.next_sequence = sum(watermarks.values())
        case Finished(commit_id=commit_id):
            outcome = await adaptation.outcome(commit_id)
            if isinstance(outcome, stream.Published):
                response.published.CopyFrom(answers.published(outcome))
            else:
                response.publication_failed.commit_id = commit_id
                response.publication_failed.status.CopyFrom(failure_status(outcome.failure))
        case StateChanged(state=state):
            response.state = _STATES[state]
    return response


def _publication(commit: Commit, outcome: Outcome | None, running: str) -> pb.Publication:
    publication = pb.Publication(
        commit_id=commit.commit_id,
        state=pb.PUBLICATION_STATE_QUEUED,
        create_time=timestamp(commit.time),
    )
    if outcome is None:
        if running == commit.commit_id:
            publication.state = pb.PUBLICATION_STATE_TRAINING
    elif outcome.failure is None:
        publication.state = pb.PUBLICATION_STATE_PUBLISHED
        publication.version = outcome.version
    else:
        cancelled = outcome.failure.reason == CANCELLED
        publication.state = pb.PUBLICATION_STATE_CANCELLED if cancelled else pb.PUBLICATION_STATE_FAILED
        publication.status.CopyFrom(failure_status(outcome.failure))
    return publication
