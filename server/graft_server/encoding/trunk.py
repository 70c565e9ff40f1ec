"""A trunk: one backbone in service, from raw inputs to features. All models on it share it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Sized
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.decoding.limits import MediaLimits
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.image.class_names import encode_names
from graft_server.backbones.preprocessing import Prepared, Preprocessor
from graft_server.domain.caller import NOBODY, Caller
from graft_server.domain.errors import BackboneError, DomainError, InvalidError
from graft_server.domain.examples import Input, Kind, Modality
from graft_server.domain.names import shown
from graft_server.domain.views import POOLED
from graft_server.encoding.batcher import Batcher, Encoded, unread
from graft_server.encoding.encoder import Features
from graft_server.encoding.fair_queue import Reader
from graft_server.encoding.loading import NEXT, Loaded, Loader, TrunkSettings, TrunkState, load_failure
from graft_server.encoding.parts import Work, in_parts
from graft_server.encoding.preparing import (
    TURNS_AT_ONCE,
    Preparer,
    ReadyFeatures,
    beside_ready,
    in_turns,
)
from graft_server.encoding.queueing import Lane
from graft_server.encoding.tuned_layers import TunedLayers, TunedLayersCache, TunedLayersRef
from graft_server.jobs.job import Job, Jobs, OnProgress, P, R
from graft_server.sharing.turns import Turns

T = TypeVar("T")

_log = logging.getLogger(__name__)


NAMES_AT_ONCE = 256
"""The names that an encoder of names beside an encoder of images reads in a turn: its graph is loaded for each."""

RETRY_MOST_S = 300.0
"""The longest wait between two tries to load a backbone that could not be loaded, in seconds."""

OnChange = Callable[["Trunk"], None]


class Trunk:
    """One backbone in service.

    Attributes:
        name: What this server calls the backbone.
        name_scale: What the cosine of an input and a name is multiplied with to be a logit, once names were
            encoded; 0 where the backbone has not learned that.
    """

    def __init__(
        self,
        name: str,
        source: str,
        settings: TrunkSettings,
        on_change: OnChange = lambda _: None,
        *,
        on_use: bool = False,
        tuned_layers: TunedLayersCache | None = None,
        loading: asyncio.Lock | None = None,
        former_id: str = "",
    ) -> None:
        """Makes it; `open` loads it, one of those that share `loading` at a time, or has it loaded on its first use.

        With a `former_id` it is the backbone with that encoder, which it had before; see `backbones.former`.
        """
        self._former_id = former_id
        self.name = name
        self.name_scale = 0.0
        self._source = source
        self._settings = settings
        self._on_change = on_change
        self._on_use = on_use
        self._loading = loading or asyncio.Lock()
        self._cache = EncoderCache(settings.cache)
        self._tuned_layers = tuned_layers or TunedLayersCache(settings.tuned_bytes)
        self._turns = Turns(TURNS_AT_ONCE)
        self._state = TrunkState.LOADING
        self._error = BackboneError(
            f"Backbone {shown(name)} is being loaded: try again in some seconds.", reason="BACKBONE_LOADING"
        )
        self._opening: asyncio.Task[None] | None = None
        self._healing: asyncio.Task[None] | None = None
        self._opened_at = -math.inf
        self._loader: Loader | None = None
        """None before `open`."""
        self._backbone: Backbone | None = None
        """None before it is described."""
        self._preparer: Preparer | None = None
        """None before it is described."""
        self._loaded: Loaded | None = None
        """None before it was READY for the first time."""

    @property
    def state(self) -> TrunkState:
        """Whether it can be used."""
        return self._state

    def _turn(self, state: TrunkState) -> None:
        """Changes the state, in one of the ways that `TrunkState` draws."""
        if state not in NEXT[self._state]:
            raise RuntimeError(f"a trunk does not go from {self._state.name} to {state.name}")
        self._state = state

    @property
    def memory_bytes(self) -> int:
        """By how much the process grew as its encoder was loaded and first run; 0: not loaded."""
        return self._loaded.memory_bytes if self._loaded else 0

    @property
    def backbone(self) -> Backbone:
        """What it is; raises BackboneError if even that could not be found out."""
        if self._backbone is None:
            raise self._unusable()
        return self._backbone

    @property
    def description(self) -> Backbone | None:
        """What it is, as far as that is known."""
        return self._backbone

    @property
    def modality(self) -> Modality | None:
        """What it reads; None where that could not be found out."""
        return self._backbone.modality if self._backbone else None

    @property
    def error(self) -> str:
        """Why it is FAILED, or ""."""
        return self._error.message if self._state is TrunkState.FAILED else ""

    @property
    def activity(self) -> str:
        """What is being done until it can be used, for people; "" where nothing is."""
        if self._state is not TrunkState.LOADING or self._loader is None:
            return ""
        return f"{self._loader.stage} the backbone {self.name}"

    @property
    def device(self) -> str:
        """What its encoder runs on, "cpu" or "cuda"; "": it is not loaded."""
        return self._loaded.device if self._loaded is not None else ""

    @property
    def parity(self) -> float:
        """By how much its exported features differ from torch's; 0: not known."""
        return self._cache.parity(self.backbone.reference_id)

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of input that it takes, sorted; none where that could not be found out."""
        return list(self._preparer.kinds) if self._preparer else []

    @property
    def warnings(self) -> tuple[str, ...]:
        """What users of its files should know, in sentences; none where that could not be found out."""
        return self._preparer.preprocessor.warnings if self._preparer else ()

    @property
    def encoder_id(self) -> str:
        """The digest that identifies what it computes."""
        return self.backbone.encoder_id

    async def ready(self) -> None:
        """Returns once it can be used, which loads a backbone that is loaded on use.

        One that could not be is tried again by itself, and by whoever asks after `probe_s`.

        Raises:
            BackboneError: It cannot be used.
        """
        if self._state is TrunkState.READY:
            return
        loader = self._loader
        if self._on_use and loader is not None and self._loaded is None and self._opening is None:
            waited = time.monotonic() - self._opened_at
            if self._state is TrunkState.UNLOADED or waited >= self._settings.probe_s:
                self._turn(TrunkState.LOADING)
                self._try(loader)
        if self._opening is not None and self._state is TrunkState.LOADING:
            await asyncio.shield(self._opening)
        self._require_loaded()

    def _require_loaded(self) -> Loaded:
        if self._state is not TrunkState.READY or self._loaded is None:
            raise self._unusable()
        return self._loaded

    def _require_preparer(self) -> Preparer:
        if self._preparer is None:
            raise self._unusable()
        return self._preparer

    @property
    def reduced(self) -> bool:
        """Whether it computes in less than float32: training then compares accuracy with the encoder that does."""
        return self.backbone.reference_id != self.backbone.encoder_id

    @property
    def preprocessor(self) -> Preprocessor:
        """What turns its inputs into what the encoder reads; raises BackboneError if its files do not say."""
        return self._require_preparer().preprocessor

    @property
    def limits(self) -> MediaLimits:
        """What its images and clips may be."""
        return self._settings.limits

    async def run(self, jobs: Jobs, job: Job[P, R], on_progress: OnProgress) -> R:
        """Runs a job that needs its graphs, wherever that runs; see `Jobs.run`."""
        return await self._require_loader().run(jobs, job, on_progress)

    async def cut(self, layer: int) -> tuple[Path, Path]:
        """The parts of its graph below and above a cut after so many layers, made if need be.

        Raises:
            BackboneError: It cannot be cut there.
        """
        await self.ready()
        return await self._require_loader().cut(self.backbone, layer)

    def _require_loader(self) -> Loader:
        if self._loader is None:
            raise self._unusable()
        return self._loader

    @property
    def batcher(self) -> Batcher:
        """Its batcher; raises BackboneError while the trunk cannot be used."""
        return self._require_loaded().batcher

    async def open(self, jobs: Jobs) -> None:
        """Describes the backbone, and loads it unless it is loaded on use.

        Loading exports its encoder first if that has not been done on this machine.

        Raises:
            BackboneError: It cannot be used now; the trunk is FAILED, and tries again by itself.
        """
        self._loader = loader = Loader(
            self.name, self._source, self._settings, jobs, self._loading, former_id=self._former_id
        )
        try:
            async with self._failing():
                await self._describe(loader)
                if self._on_use:
                    self._turn(TrunkState.UNLOADED)
                else:
                    await self._load(loader)
        except BackboneError:
            self._heal(loader)
            raise

    def _heal(self, loader: Loader) -> None:
        """Sees to it that a backbone which could not be loaded is tried again, whether or not somebody asks for it."""
        if self._healing is None or self._healing.done():
            self._healing = asyncio.create_task(self._try_until_loaded(loader))

    async def _try_until_loaded(self, loader: Loader) -> None:
        wait_s = self._settings.retry_s
        while self._loaded is None:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MOST_S)
            if self._loaded is None:
                await asyncio.shield(self._try(loader))

    def _try(self, loader: Loader) -> asyncio.Task[None]:
        """Begins to load it, in a task of its own: a caller who leaves does not take it away from the others."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open_again(loader))
        return self._opening

    async def _open_again(self, loader: Loader) -> None:
        """Loads it; never fails: the trunk's state says how it went.

        Until then it stays LOADING where a caller waits, and FAILED where nobody does: who asks is told at once.
        """
        before = self._state
        try:
            async with self._failing():
                await self._describe(loader)
                await self._load(loader)
        except BackboneError as error:
            _log.error("backbone %s: %s", self.name, error.message)
            self._heal(loader)
        self._opening = None
        if self._state is not before:
            self._on_change(self)

    @asynccontextmanager
    async def _failing(self) -> AsyncIterator[None]:
        """Whatever goes wrong, the trunk is FAILED and the error one of the backbone."""
        self._opened_at = time.monotonic()
        try:
            yield
        except Exception as error:
            if not isinstance(error, DomainError):
                _log.exception("backbone %s", self.name)
            self._error = load_failure(self.name, error)
            if self._state is not TrunkState.FAILED:
                self._turn(TrunkState.FAILED)
            raise self._unusable() from error
        finally:
            self._opened_at = time.monotonic()

    async def close(self) -> None:
        """Ends its workers."""
        for task in (self._healing, self._opening):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._loaded is not None:
            await self._loaded.close()

    async def _describe(self, loader: Loader) -> None:
        self._backbone = await loader.describe(self._backbone)
        preprocessor = await loader.preprocessor(self._backbone)
        described = self._backbone
        if self._preparer is None:
            for warning in preprocessor.warnings:
                _log.warning("backbone %s: %s", self.name, warning)
        self._preparer = Preparer(
            preprocessor, described.dimension, self._settings.preparing, described.max_tokens
        )

    async def _load(self, loader: Loader) -> None:
        self._loaded = await loader.load(self.backbone, self.preprocessor, self._encoder_turned)
        self._turn(TrunkState.READY)

    async def prepare_all(
        self, inputs: Sequence[Input], caller: Caller = NOBODY
    ) -> list[Prepared | InvalidError]:
        """Prepares inputs; see `Preparer.prepare_all`."""
        return await self._require_preparer().prepare_all(inputs, caller)

    async def unreadable(self, inputs: Sequence[Input], caller: Caller) -> list[InvalidError | None]:
        """What is wrong with each input; None where it can be read."""
        return await self._require_preparer().unreadable(inputs, caller)

    async def in_parts(
        self, caller: Caller, inputs: Sequence[Input], work: Work[T]
    ) -> list[tuple[list[int], T]]:
        """What `work` makes of the inputs of a request, part by part as room comes; see `parts.in_parts`.

        Raises:
            OverloadError: Too much is queued already.
            BackboneError: The backbone cannot be used now.
            Exception: What `work` raises.
        """
        await self.ready()
        windows = self.batcher.windows
        length = self._require_preparer().lengths(windows.most)
        self.batcher.require_room(caller, min(windows.part, length(inputs[0]) * len(inputs)))
        return await in_parts(windows, caller, inputs, length, work)

    async def in_turns(
        self, caller: Caller, inputs: Sequence[Input], work: Callable[[Sequence[Input]], Awaitable[T]]
    ) -> list[tuple[list[int], T]]:
        """What `work` makes of the inputs, in turns with other callers; see `preparing.in_turns`."""
        return await in_turns(self._turns, caller, inputs, work)

    async def encode(
        self,
        prepared: Sequence[Prepared],
        *,
        lane: Lane,
        reader: Reader = unread,
        tuned: TunedLayersRef | None = None,
        deadline: float = math.inf,
        caller: Caller = NOBODY,
        opens: bool = True,
    ) -> Encoded:
        """Gives what a reader makes of the features of prepared inputs; see `Batcher.encode`.

        Where some inputs are features already, the reader is given the view "pooled" alone.
        """

        async def others(items: Sequence[Sized], of_pooled: Reader) -> Encoded:
            await self.ready()
            return await self.batcher.encode(
                items, reader=of_pooled, lane=lane, deadline=deadline, caller=caller, opens=opens
            )

        if any(isinstance(it, ReadyFeatures) for it in prepared):
            return await beside_ready(prepared, reader, self._settings.preparing, caller, others)
        await self.ready()
        ready = None if tuned is None else await self.load(tuned)
        items = [it.item for it in prepared]
        try:
            return await self.batcher.encode(
                items, reader=reader, tuned=ready, lane=lane, deadline=deadline, caller=caller, opens=opens
            )
        except BackboneError:
            if tuned is not None and self._tuned_layers.renew(tuned.key, self._settings.probe_s):
                _log.warning("backbone %s: tuned layers that failed are loaded anew", self.name)
                self._require_loaded().split_encoder.expire_cut(tuned.below)
            raise

    @property
    def reads_names(self) -> bool:
        """Whether names of classes say something in the space of its features."""
        return self._require_preparer().reads_texts or self.backbone.family.names

    async def encode_names(self, names: Sequence[str], caller: Caller = NOBODY) -> Features:
        """Features of n >= 1 names, by view: where they are in the space of the backbone's inputs.

        Those of a name that the backbone cannot read are 0: it says nothing. They are encoded part by part, in turns
        with what other callers have: examples, or names.

        Raises:
            BackboneError: The backbone cannot be used now.
        """
        await self.ready()
        backbone = self.backbone
        if backbone.family.names:
            graph, found = self._cache.names(backbone.reference_id), []
            for start in range(0, len(names), NAMES_AT_ONCE):
                some = names[start : start + NAMES_AT_ONCE]
                named = await self._settings.preparing.run_in_turn(
                    caller, encode_names, graph, backbone.folder, some, backbone.max_tokens
                )
                self.name_scale = named.scale
                found.append(named.features)
            return {POOLED: np.concatenate(found)}

        async def encoded(part: Sequence[Input]) -> Features:
            return await self._encoded_names(part, caller)

        features = {POOLED: np.zeros((len(names), backbone.dimension), np.float32)}
        for places, part in await self.in_turns(caller, [Input(name) for name in names], encoded):
            for view, array in part.items():
                if view not in features:
                    features[view] = np.zeros((len(names), array.shape[1]), array.dtype)
                features[view][places] = array
        return features

    async def _encoded_names(self, names: Sequence[Input], caller: Caller) -> Features:
        """Features of the names of a part, by view; 0 for those that the backbone cannot read."""
        prepared = await self.prepare_all(names, caller)
        readable = [row for row, it in enumerate(prepared) if not isinstance(it, InvalidError)]
        items = [it for it in prepared if not isinstance(it, InvalidError)]
        found = (await self.encode(items, lane=Lane.ADAPT, caller=caller)).arrays if items else {}
        features = {view: np.zeros((len(names), it.shape[1]), it.dtype) for view, it in found.items()}
        for view, array in found.items():
            features[view][readable] = array
        return features

    async def load(self, ref: TunedLayersRef) -> TunedLayers:
        """Tuned layers, loaded if need be, with the parts of the backbone that they share.

        Raises:
            DomainError: They cannot be read or loaded, or the backbone cannot be cut where they begin.
        """
        await self.ready()
        loaded = self._require_loaded()
        if ref.below and not loaded.split_encoder.has_cut(ref.below):
            parts = await self.cut(ref.below)
            below, above = [await self._settings.loading.run(loaded.graph_part, it) for it in parts]
            loaded.split_encoder.add_cut(ref.below, below, above)
        if ref.adapted and not loaded.split_encoder.has_adapted(ref.below):
            adapted = await self._require_loader().adapted(self.backbone, ref.below)
            part = await self._settings.loading.run(loaded.graph_part, adapted)
            loaded.split_encoder.add_adapted(ref.below, part)
        return await self._tuned_layers.get(ref, loaded.graph_part)

    def forget(self, ref: TunedLayersRef) -> None:
        """Unloads tuned layers whose version is gone."""
        self._tuned_layers.forget(ref.key)

    def _unusable(self) -> BackboneError:
        # A new one each time: an error that is raised again keeps the frames of all who raised it before.
        return BackboneError(self._error.message, reason=self._error.reason, metadata=self._error.metadata)

    def _encoder_turned(self, answers: bool) -> None:
        """The encoder began to fail, or answers again."""
        if answers:
            _log.warning("backbone %s: its encoder answers again", self.name)
            self._turn(TrunkState.READY)
        else:
            _log.error("backbone %s: its encoder fails; it is asked again until it answers", self.name)
            self._error = BackboneError(
                f"The encoder of backbone {shown(self.name)} is failing; the server keeps asking it. Try again in "
                "some seconds.",
                reason="ENCODER_FAILED",
            )
            self._turn(TrunkState.FAILED)
        self._on_change(self)
