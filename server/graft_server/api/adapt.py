"""The call Adapt: a writer's examples and commits in, the server's answers out."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from graft_server.adapting.adaptations import Adaptations
from graft_server.adapting.intake.foreseen import Foreseen, take_room
from graft_server.adapting.intake.incoming import Incoming
from graft_server.adapting.intake.targets import TargetRules
from graft_server.adapting.intake.validation import check_change
from graft_server.adapting.intake.writer_stream import readable
from graft_server.adapting.session import Session, require_sent
from graft_server.api.keep_alive import waiting
from graft_server.domain.adaptation import StartRequest
from graft_server.domain.caller import behind
from graft_server.domain.errors import ConflictError, DrainingError, InvalidError
from graft_server.domain.examples import Change, Kind, Modality, Rejection
from graft_server.domain.extension import Extension
from graft_server.domain.names import MAX_ID_BYTES, check_identifier
from graft_server.domain.stream import (
    Accepted,
    CommitMessage,
    Committed,
    ExamplesMessage,
    LiveVersion,
    Message,
    Progress,
    SentChange,
    Started,
    StartMessage,
    WriterMessage,
)
from graft_server.encoding.trunk import Trunk
from graft_server.sharing.event_loop import in_slices
from graft_server.sharing.room import Share
from graft_server.store.adaptations.lineage import derived_id
from graft_server.store.adaptations.segments import content_digest

KEEP_ALIVE_S = 20.0
"""The silence after which an empty progress message is sent: proxies close idle calls after a minute or so."""
FIRST_SIGN_S = 1.0
"""When a caller is told what is done before the start is answered, if that takes long."""
LOADING_S = 2.0
"""How often a caller is told that a backbone is being loaded, or exported."""
MAX_CHANGES = 10_000
CHANGES_AT_ONCE = 64
"""Of a message, between two turns of the event loop: reading and checking one takes 23 µs."""

_MODALITIES = {
    Kind.TEXT: Modality.TEXT,
    Kind.TEXT_PAIR: Modality.TEXT,
    Kind.IMAGE: Modality.IMAGE,
    Kind.AUDIO: Modality.AUDIO,
}


async def adapt(
    adaptations: Adaptations, messages: AsyncIterator[WriterMessage]
) -> AsyncGenerator[Message, None]:
    """Takes examples and commits in, and yields the answers to them; see `AdaptationApi.adapt`."""
    first = await anext(messages, None)
    if not isinstance(first, StartMessage):
        raise InvalidError(
            "The first message of Adapt must be start: it names the model.",
            reason="START_MISSING",
            field="start",
        )
    every_s = KEEP_ALIVE_S if first.keep_alive_s is None else first.keep_alive_s
    async with aclosing(_answers_to(adaptations, first, messages, every_s)) as answers:
        opening = asyncio.ensure_future(anext(answers, None))
        # The store may be slow, and a caller who hears nothing looks for another server.
        async with aclosing(waiting(opening, every_s, lambda: "", first_s=FIRST_SIGN_S)) as signs:
            async for _ in signs:
                yield Progress()
        if (answer := opening.result()) is not None:
            yield answer
        async for answer in answers:
            yield answer


async def _answers_to(
    adaptations: Adaptations, first: StartMessage, messages: AsyncIterator[WriterMessage], every_s: float
) -> AsyncGenerator[Message, None]:
    request = adaptations.check(first.request)
    started = False
    if not first.request.settings.backbone:
        backbone = await adaptations.backbone_of(request)
        if not backbone:
            # The first example decides the backbone, and its sender may be waiting for this message.
            yield _started(request, 0)
            started = True
            second = await anext(messages, None)
            backbone = adaptations.backbone_for(await _modality(second))
            messages = _beginning_with(second, messages)
        request = adaptations.check(request, backbone)
    trunk = adaptations.trunk(request.settings.backbone)
    began = time.monotonic()
    told_s = min(every_s, LOADING_S)
    loading = waiting(trunk.ready(), told_s, lambda: trunk.activity, first_s=FIRST_SIGN_S)
    async with aclosing(loading) as signs:
        async for activity in signs:
            yield Progress(stage=activity.stage, elapsed_s=time.monotonic() - began)
    intake = _Intake(request, _targets(request), trunk)
    live = adaptations.live(request.model)
    if first.validate_only:
        base = await adaptations.base(request)
        with adaptations.checks.share() as share:
            foreseen = await adaptations.foreseen(request, base, share) if base else None
            if not started:
                yield _started(request, 0, foreseen.base if foreseen else None, live)
            async for message in _validate(messages, intake, foreseen, share):
                yield message
        return
    session = await adaptations.join(request)
    reader = asyncio.create_task(_read(messages, intake, session))
    try:
        if not started:
            yield _started(request, session.next_sequence, session.extends, live)
        async for message in _answers(session, every_s):
            yield message
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await session.close()
        adaptations.forget_idle()


def _started(
    request: StartRequest,
    next_sequence: int,
    extension: Extension | None = None,
    live: LiveVersion | None = None,
) -> Started:
    backbone = request.settings.backbone
    return Started(request.adaptation_id, request.writer_id, backbone, next_sequence, extension, live)


def _targets(request: StartRequest) -> TargetRules:
    settings = request.settings
    labels = {it.name for it in settings.labels} if settings.closed_labels else None
    return TargetRules(settings.task, labels)


async def _modality(message: WriterMessage | None) -> Modality | None:
    """Returns the modality of the first example of a message, if it has one."""
    if not isinstance(message, ExamplesMessage):
        return None
    for start in range(0, min(len(message.changes), MAX_CHANGES), CHANGES_AT_ONCE):
        for sent in message.changes[start : start + CHANGES_AT_ONCE]:
            kind = _kind(sent)
            if kind in _MODALITIES:
                return _MODALITIES[kind]
        await asyncio.sleep(0)
    return None


def _kind(sent: SentChange) -> Kind | None:
    if isinstance(sent.change, Change):
        return sent.change.upsert.input.kind if sent.change.upsert else None
    return sent.kind


async def _beginning_with(
    first: WriterMessage | None, others: AsyncIterator[WriterMessage]
) -> AsyncIterator[WriterMessage]:
    if first is None:
        return
    yield first
    del first
    async for message in others:
        yield message
        del message


async def _answers(session: Session, keep_alive_s: float) -> AsyncIterator[Message]:
    """Yields the messages for the writer, and a sign of life after long silence."""
    while True:
        message: Message | None
        try:
            async with asyncio.timeout(keep_alive_s):
                message = await session.next_message()
        except TimeoutError:
            message = Progress()
        if message is None:
            return
        yield message


async def _read(messages: AsyncIterator[WriterMessage], intake: _Intake, session: Session) -> None:
    """Takes in the writer's messages; an error in them ends the call through the outbox."""
    try:
        async for message in messages:
            match message:
                case ExamplesMessage(first_sequence=first):
                    changes = await intake.checked(message)
                    del message  # the message may be large, and the stream may have to wait
                    await session.put(first, changes)
                    del changes
                case CommitMessage(close=close):
                    await session.commit(_commit_id(message), _end(message), close)
                case _:
                    session.outbox.fail(_misplaced(message))
                    return
        await session.half_close()
    except DrainingError as error:
        session.outbox.end(error)
    except Exception as error:  # noqa: BLE001 - raised again by whoever reads the outbox
        session.outbox.fail(error)


async def _validate(
    messages: AsyncIterator[WriterMessage], intake: _Intake, foreseen: Foreseen | None, share: Share
) -> AsyncIterator[Message]:
    """Yields the answers of a call that stores nothing."""
    following = 0
    async for message in messages:
        match message:
            case ExamplesMessage(first_sequence=first):
                changes = await intake.checked(message)
                _require_no_gap(first, following)
                if foreseen is not None:
                    new = changes[max(following - first, 0) :]
                    take_room(share, len(new))
                    await asyncio.to_thread(foreseen.take, new)
                following = max(following, first + len(changes))
                rejected = tuple(it.result for it in changes if isinstance(it.result, Rejection))
                yield Accepted(following, rejected)
            case CommitMessage():
                commit_id, end = _commit_id(message), _end(message)
                end = following if end is None else end
                require_sent(end, following)
                yield Committed(commit_id, end, foreseen.extension if foreseen is not None else None)
            case _:
                raise _misplaced(message)


@dataclass(frozen=True, slots=True)
class _Intake:
    """Checks a writer's changes."""

    start: StartRequest
    targets: TargetRules
    trunk: Trunk

    async def checked(self, message: ExamplesMessage) -> list[Incoming]:
        """Returns the changes of a message, with rejections for changes that cannot be accepted."""
        first = message.first_sequence
        if first < 0:
            raise InvalidError(
                f"examples.first_sequence is {first}: sequences count from 0.",
                reason="SEQUENCE_INVALID",
                field="examples.first_sequence",
            )
        if len(message.changes) > MAX_CHANGES:
            raise InvalidError(
                f"examples.changes has {len(message.changes):,} entries: at most {MAX_CHANGES:,} a message are "
                "accepted.",
                reason="TOO_MANY_EXAMPLES",
                field="examples.changes",
            )
        places = range(len(message.changes))
        changes = await in_slices(
            lambda place: self._incoming(message.changes[place], first + place), places, CHANGES_AT_ONCE
        )
        caller = behind(f"{self.start.model}/{self.start.adaptation_id}")
        return await readable(self.trunk, changes, self.start.writer_id, first, caller)

    def _incoming(self, sent: SentChange, sequence: int) -> Incoming:
        # Unique in every lineage that the adaptation may become part of.
        default_id = derived_id(self.start.adaptation_id, self.start.writer_id, sequence)
        digest = content_digest(sent.content)
        subject = sent.subject
        try:
            if isinstance(sent.change, InvalidError):
                raise sent.change
            if sent.change.upsert:
                subject = sent.change.upsert.subject
            checked = check_change(sent.change, default_id=default_id, targets=self.targets)
        except InvalidError as error:
            rejected = Rejection(sequence, error.reason, error.field, error.message, self.start.writer_id)
            # A subject that is too long is none; its change is then refused for that alone.
            return Incoming(digest, rejected, subject if len(subject) <= MAX_ID_BYTES else "")
        own_id = checked.id != default_id
        return Incoming(digest, checked, own_id=own_id, weighted=sent.weighted)


def _require_no_gap(first_sequence: int, following: int) -> None:
    if first_sequence > following:
        raise ConflictError(
            f"The batch begins at sequence {first_sequence}, but the call goes on at {following}: send the changes "
            "from there.",
            reason="SEQUENCE_GAP",
            metadata={"next_sequence": str(following)},
        )


def _commit_id(commit: CommitMessage) -> str:
    return check_identifier(commit.commit_id or secrets.token_hex(8), "commit.commit_id")


def _end(commit: CommitMessage) -> int | None:
    """Returns the sequence number up to which a commit reaches; None: all so far."""
    if commit.next_sequence is not None and commit.next_sequence < 0:
        raise InvalidError(
            f"commit.next_sequence is {commit.next_sequence}: sequences count from 0.",
            reason="SEQUENCE_INVALID",
            field="commit.next_sequence",
        )
    return commit.next_sequence


def _misplaced(message: WriterMessage) -> InvalidError:
    if isinstance(message, StartMessage):
        return InvalidError(
            "start was sent a second time: one call is one adaptation. Open another call.",
            reason="START_REPEATED",
            field="start",
        )
    return InvalidError(
        "The message is empty: send examples or commit.", reason="MESSAGE_EMPTY", field="message"
    )
