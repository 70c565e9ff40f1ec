"""The calls on adaptations: taking examples in, and reporting their state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import datetime

from graft_server.adapting.adaptation import Adaptation
from graft_server.adapting.adaptations import Adaptations
from graft_server.adapting.publishing.queue import CANCELLED
from graft_server.adapting.session import Watcher
from graft_server.api.adapt import adapt
from graft_server.api.keep_alive import alive
from graft_server.api.paging import bad_token, cut, page_size
from graft_server.domain import adaptation as nouns
from graft_server.domain.adaptation import (
    AdaptationState,
    AdaptationView,
    Cancellation,
    Commit,
    DamagedAdaptation,
    Outcome,
    Publication,
    PublicationState,
)
from graft_server.domain.errors import DomainError, DrainingError, InvalidError, StoreError
from graft_server.domain.extension import Extension
from graft_server.domain.names import check_identifier, check_model
from graft_server.domain.paging import Listed, PageRequest
from graft_server.domain.stream import (
    Activity,
    Committed,
    Happening,
    Message,
    Progress,
    Rejections,
    WriterMessage,
)
from graft_server.store.adaptations.store import AdaptationStore

MAX_PUBLICATIONS = 1_000
"""An adaptation is described with its newest ones."""
LISTED_PUBLICATIONS = 10
"""In a list of adaptations."""
POLL_S = 2.0
"""The seconds between two looks of a watcher for events of other servers."""


class AdaptationApi:
    """Adaptations, for callers of any protocol."""

    def __init__(self, adaptations: Adaptations) -> None:
        self._adaptations = adaptations

    def adapt(self, messages: AsyncIterator[WriterMessage]) -> AsyncGenerator[Message, None]:
        """Takes a writer's examples and commits in, and yields the answers to them.

        Close the returned iterator: the call has not ended before.

        Args:
            messages: The start first, once; then examples and commits. An exception of the iteration ends the call.

        Raises:
            DomainError: The error that ends the call.
        """
        return adapt(self._adaptations, messages)

    async def get_adaptation(self, model: str, adaptation_id: str) -> AdaptationView:
        """Describes one adaptation.

        Raises:
            MissingError: There is none.
        """
        check_model(model)
        check_identifier(adaptation_id, "adaptation_id")
        store = await self._adaptations.store_of(model, adaptation_id)
        return await self._view(store, MAX_PUBLICATIONS)

    async def list_adaptations(
        self, model: str, page: PageRequest
    ) -> AsyncGenerator[Listed[AdaptationView | DamagedAdaptation], None]:
        """Lists a model's adaptations, newest first; damaged ones last."""
        begun = await self._adaptations.begun(model)
        last = _key(page.token)
        keys = [it for it in begun if last is None or it <= last]
        for (_, adaptation_id), token in cut(keys, page_size(page.size), _token):
            yield Listed(await self._listed(model, adaptation_id), token)

    async def watch_adaptation(
        self, model: str, adaptation_id: str, from_event: int = 0, *, keep_alive_s: float | None = None
    ) -> AsyncGenerator[Happening | Progress, None]:
        """Yields an adaptation's events, the past ones first, until no more can follow.

        Args:
            model: The model.
            adaptation_id: The adaptation.
            from_event: The number of the first event to yield; 0: all.
            keep_alive_s: After how much silence, in seconds, an empty progress is yielded; None: never.

        Raises:
            MissingError: There is no such adaptation.
            DrainingError: This server is going away.
        """
        events = self._watch(model, adaptation_id, from_event)
        async with aclosing(alive(events, keep_alive_s, lambda: "")) as followed:
            async for event in followed:
                yield Progress() if isinstance(event, Activity) else event

    async def _watch(
        self, model: str, adaptation_id: str, from_event: int
    ) -> AsyncGenerator[Happening | Progress, None]:
        if from_event < 0:
            raise InvalidError(
                f"from_event is {from_event}: events count from 1; 0 sends all.",
                reason="EVENT_INVALID",
                field="from_event",
            )
        adaptation = await self._adaptations.get(model, adaptation_id)
        try:
            async with aclosing(_events(adaptation, max(from_event, 1))) as events:
                async for event in events:
                    yield event
        except (DrainingError, StoreError):
            await self._adaptations.require_existing(adaptation)
            raise

    async def cancel_adaptation(self, model: str, adaptation_id: str) -> Cancellation:
        """Stops an adaptation's work for good, and describes it. One that is over already is left as it is.

        Raises:
            MissingError: There is none.
        """
        adaptation = await self._adaptations.get(model, adaptation_id)
        changed, given_up = await adaptation.cancel()
        return Cancellation(await self._view(adaptation.store, MAX_PUBLICATIONS), changed, given_up)

    async def _listed(self, model: str, adaptation_id: str) -> AdaptationView | DamagedAdaptation:
        """Returns an adaptation of a list: a damaged one says so, and does not prevent listing the others."""
        try:
            store = await self._adaptations.store_of(model, adaptation_id)
            return await self._view(store, LISTED_PUBLICATIONS)
        except DomainError as error:
            return DamagedAdaptation(model, adaptation_id, error)

    def _publications(self, store: AdaptationStore, count: int, running: str) -> Iterator[Publication]:
        """Yields the newest publications, oldest first."""
        for commit in list(store.commits.values())[-count:]:
            outcome = store.outcomes.get(commit.commit_id)
            publication = _publication(commit, outcome, training=commit.commit_id == running)
            yield replace(publication, live=self._adaptations.live_then(store.model, publication.version))

    async def _view(self, store: AdaptationStore, publications: int) -> AdaptationView:
        positions = await self._adaptations.positions_of(store)
        running = self._adaptations.running(store.model, store.adaptation_id)
        return AdaptationView(
            model=store.model,
            adaptation_id=store.adaptation_id,
            state=store.state,
            backbone=store.start.settings.backbone,
            task=store.start.settings.task,
            created=store.start.created,
            writers=dict(sorted(positions.items())),
            publications=tuple(self._publications(store, publications, running)),
            metrics=self._adaptations.metrics(store.model, store.adaptation_id),
            extension=_extension(store),
            metadata=store.start.settings.metadata,
        )


async def _events(adaptation: Adaptation, following: int) -> AsyncGenerator[Happening | Progress, None]:
    """Yields an adaptation's events from a number on; DrainingError if this server does nothing with it any more."""
    await adaptation.record_events()  # events that a crash left out
    async with adaptation.watched() as watcher:
        while True:
            watcher.changed.clear()
            over = _finished(adaptation)
            if over:
                await adaptation.record_events()  # events are recorded after their facts
            for event in await asyncio.to_thread(adaptation.store.events.read, following):
                yield await _happening(adaptation, event)
                following = event.number + 1
            if over:
                return
            if adaptation.closed:
                raise DrainingError
            if watcher.progress is not None:
                progress, watcher.progress = watcher.progress, None
                yield progress
            if not await _changed(watcher):
                await adaptation.refresh()  # another server may be at work


def _token(key: tuple[datetime, str]) -> str:
    begun, adaptation_id = key
    return f"{begun.isoformat()}/{adaptation_id}"


def _key(token: str) -> tuple[datetime, str] | None:
    """Returns when the first adaptation of a page began, and its id; None: the page is the first one."""
    if not token:
        return None
    begun, _, adaptation_id = token.partition("/")
    try:
        moment = datetime.fromisoformat(begun)
    except ValueError:
        raise bad_token(token) from None
    if not adaptation_id or moment.tzinfo is None:
        raise bad_token(token)
    return moment, adaptation_id


def _extension(store: AdaptationStore) -> Extension | None:
    """What came of an adaptation's examples beside its base's, as of the newest commit that has an outcome."""
    known = [it.extension for it in store.outcomes.values() if it.extension is not None]
    return known[-1] if known else store.start.extends


def _publication(commit: Commit, outcome: Outcome | None, *, training: bool) -> Publication:
    if outcome is None:
        state = PublicationState.TRAINING if training else PublicationState.QUEUED
        return Publication(commit.commit_id, state, commit.time)
    if outcome.failure is None:
        return Publication(commit.commit_id, PublicationState.PUBLISHED, commit.time, outcome.version)
    cancelled = outcome.failure.reason == CANCELLED
    state = PublicationState.CANCELLED if cancelled else PublicationState.FAILED
    return Publication(commit.commit_id, state, commit.time, failure=outcome.failure)


async def _changed(watcher: Watcher) -> bool:
    """Waits for news from this server; False: there was none for a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(POLL_S):
            return await watcher.changed.wait()
    return False


def _finished(adaptation: Adaptation) -> bool:
    store = adaptation.store
    return store.state is not AdaptationState.OPEN and not (store.commits.keys() - store.outcomes.keys())


async def _happening(adaptation: Adaptation, event: nouns.Event) -> Happening:
    match event.fact:
        case nouns.Rejected():
            rejections = await asyncio.to_thread(adaptation.store.rejections, event.fact)
            return Happening(event.number, event.time, Rejections(tuple(rejections)))
        case nouns.Committed(commit_id=commit_id, watermarks=watermarks):
            return Happening(event.number, event.time, Committed(commit_id, sum(watermarks.values())))
        case nouns.Finished(commit_id=commit_id):
            return Happening(event.number, event.time, await adaptation.outcome(commit_id))
        case nouns.StateChanged(state=state):
            return Happening(event.number, event.time, state)
