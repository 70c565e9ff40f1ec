"""From a backbone's source to an encoder in service: described, exported, reduced, measured, loaded, warmed up."""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.decoding.limits import Bounded, MediaLimits
from graft_server.backbones.former import former, note
from graft_server.backbones.graphs.cache import NOT_CACHED, EncoderCache
from graft_server.backbones.graphs.contract import ADAPT, CUT, EXPORT, REDUCE, Cutting, Making
from graft_server.backbones.preprocessing import Preprocessor
from graft_server.backbones.source import open_backbone
from graft_server.domain.errors import BackboneError, DomainError
from graft_server.domain.examples import Modality
from graft_server.domain.names import shown
from graft_server.encoding.batcher import Batcher
from graft_server.encoding.encoder import Encoder, device_for
from graft_server.encoding.layout import MEASURE_S, Layout, tuned
from graft_server.encoding.queueing import Limits
from graft_server.encoding.recovery import PROBE_S, RecoveringEncoder
from graft_server.encoding.tuned_layers import GraphPart, SplitEncoder
from graft_server.jobs.job import Job, Jobs, OnProgress, P, Progress, R, unwatched
from graft_server.sharing.background import survived
from graft_server.sharing.events import SHORT_ID, log_event
from graft_server.sharing.threads import Threads
from graft_server.store.objects.objects import Objects

_log = logging.getLogger(__name__)


class TrunkState(enum.Enum):
    """Whether a trunk can be used.

    ::

        LOADING --described, to be loaded on use--> UNLOADED --first use--> LOADING
        LOADING --loaded--> READY        READY --the encoder fails--> FAILED
        LOADING --error---> FAILED       FAILED --the encoder answers again--> READY
                                         FAILED --tried again, where it was never loaded--> LOADING
    """

    UNLOADED = enum.auto()
    """It is described, and loaded when it is first used."""
    LOADING = enum.auto()
    READY = enum.auto()
    FAILED = enum.auto()


NEXT = {
    TrunkState.LOADING: {TrunkState.UNLOADED, TrunkState.READY, TrunkState.FAILED},
    TrunkState.UNLOADED: {TrunkState.LOADING},
    TrunkState.READY: {TrunkState.FAILED},
    TrunkState.FAILED: {TrunkState.LOADING, TrunkState.READY},
}
"""The states that may follow each state."""


LOADING_THREADS = 4


@dataclass(frozen=True, slots=True)
class TrunkSettings:
    """How trunks are run."""

    cache: Path
    """Where exported encoders are kept."""
    objects: Objects | None = None
    """The store, by way of which encoders come from other caches; None: there is none."""
    device: str = "auto"
    precision: str = "fp32"
    """One of `backbones.source.PRECISIONS`."""
    cores: int = 1
    """How many processor cores may be used."""
    budget: int = 0
    """Cost of a batch in tokens; 0: measured."""
    measure_s: float = MEASURE_S
    """How long each way to drive an encoder is measured at its first start; 0: not at all, the usual one is used."""
    queued_requests: int = 4_096
    tuned_bytes: int = 2 << 30
    """How much memory tuned layers may take, of all models together."""
    probe_s: float = PROBE_S
    """How often an encoder that fails is asked again, and callers have a backbone tried that could not be loaded."""
    retry_s: float = PROBE_S
    """After how long a backbone that could not be loaded is tried again by itself; the wait doubles with each try."""
    limits: MediaLimits = field(default_factory=MediaLimits)
    """What images and clips may be."""
    preparing: Threads = field(default_factory=lambda: Threads("preparing", 2))
    """Where inputs are prepared that take long, and what looks after encoders runs."""
    loading: Threads = field(default_factory=lambda: Threads("loading", LOADING_THREADS))
    """Where backbones are described, measured and loaded: from local files, also while the store hangs."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What exists of a trunk once it is loaded."""

    encoder: RecoveringEncoder
    split_encoder: SplitEncoder
    batcher: Batcher
    device: str
    """Where it runs: "cpu" or "cuda"."""
    layout: Layout
    memory_bytes: int
    """By how much the process grew as the encoder was loaded and first run."""

    def graph_part(self, graph: Path | bytes) -> GraphPart:
        """Loads a part of an encoder's graph onto the same device."""
        return GraphPart(graph, device=self.device, threads=self.layout.threads)

    async def close(self) -> None:
        """Ends the encoder's threads and what watches it."""
        await self.encoder.close()
        await self.batcher.close()


class Loader:
    """Describes and loads one backbone, by way of the cache of exported graphs."""

    def __init__(
        self,
        name: str,
        source: str,
        settings: TrunkSettings,
        jobs: Jobs,
        loading: asyncio.Lock,
        *,
        former_id: str = "",
    ) -> None:
        """Makes it.

        Args:
            name: What this server calls the backbone.
            source: Where the backbone's files are; see `backbones.source`.
            settings: How it is run.
            jobs: Where graphs are exported, reduced and cut.
            loading: Held while an encoder is measured and loaded.
            former_id: Another encoder that the backbone had; see `backbones.former`. "": the one that it has.
        """
        self._former_id = former_id
        self._name = name
        self._source = source
        self._settings = settings
        self._cache = EncoderCache(settings.cache, settings.objects)
        self._jobs = jobs
        self._loading = loading
        self._cutting = asyncio.Lock()
        self.stage = "loading"
        """What it is doing, for people."""
        self._backbone: Backbone | None = None

    async def describe(self, known: Backbone | None) -> Backbone:
        """Reads everything but the weights.

        Args:
            known: What was described before; None at first.

        Raises:
            DomainError: The files cannot be read, are not those that are known, or cannot be run as the settings say.
        """
        settings = self._settings
        device_for(settings.precision, settings.device)
        backbone = await settings.loading.run(
            partial(open_backbone, self._name, self._source, precision=settings.precision)
        )
        if self._former_id:
            backbone = await self._settings.preparing.run(self._as_former, backbone)
        if known not in (None, backbone):
            raise BackboneError(
                f"Backbone {shown(self._name)}: its files are not those that were there at start. Put them back, or "
                "restart the server.",
                reason="BACKBONE_CHANGED",
            )
        return backbone

    def _as_former(self, backbone: Backbone) -> Backbone:
        found = former(self._cache, backbone, self._former_id)
        if found is None:
            raise BackboneError(
                f"Backbone {shown(self._name)} is encoder {backbone.encoder_id}, and encoder {self._former_id}, which "
                "it was before, is not in the cache, or reads other inputs.",
                reason="ENCODER_MISMATCH",
            )
        return found

    async def preprocessor(self, backbone: Backbone) -> Preprocessor:
        """What turns the backbone's inputs into what its encoder reads, within the settings' limits.

        Raises:
            DomainError: The files do not say.
        """
        preprocessor = await self._settings.loading.run(backbone.preprocessor)
        return (
            preprocessor.within(self._settings.limits) if isinstance(preprocessor, Bounded) else preprocessor
        )

    async def load(
        self, backbone: Backbone, preprocessor: Preprocessor, on_turn: Callable[[bool], None]
    ) -> Loaded:
        """Loads the encoder and starts its batcher; exports the graph first if the cache does not have it.

        Args:
            backbone: What `describe` gave.
            preprocessor: What `preprocessor` gave.
            on_turn: Called on the event loop: False when the encoder begins to fail, True when it answers again.

        Raises:
            DomainError: It cannot be exported or loaded.
        """
        settings = self._settings
        device = device_for(backbone.precision, settings.device)
        self._backbone = backbone
        if not self._former_id:
            await self._make(backbone)
            await survived(
                self._settings.preparing.run(note, self._cache, backbone), "noting an encoder", _log
            )
        try:
            encoder, layout, memory_bytes = await self._open(backbone, device, preprocessor)
        except BackboneError as error:
            if error.reason != "ENCODER_LOAD_FAILED" or self._former_id:
                raise
            # A damaged entry of the cache is not a reason to fail: it can be made again.
            _log.warning("backbone %s: its exported encoder cannot be loaded and is made again", self._name)
            for encoder_id in {backbone.encoder_id, backbone.reference_id}:
                await asyncio.to_thread(self._cache.discard, encoder_id)
            await self._make(backbone)
            encoder, layout, memory_bytes = await self._open(backbone, device, preprocessor)

        def loaded_again() -> Encoder:
            if not self._cache.intact(self._cache.graph(backbone.encoder_id)):
                raise _damaged()
            return self._encoder_on(backbone, device, layout, preprocessor)

        recovering = RecoveringEncoder(
            encoder,
            loaded_again,
            on_turn,
            probe=preprocessor.shortest(),
            probe_s=settings.probe_s,
            threads=settings.preparing,
        )
        limits = Limits(layout.budget, layout.workers, queued_requests=settings.queued_requests)
        split_encoder = SplitEncoder(recovering, preprocessor)
        batcher = Batcher(split_encoder, limits, preprocessor.price, preprocessor.shortest())
        await batcher.start()
        return Loaded(recovering, split_encoder, batcher, encoder.device, layout, memory_bytes)

    async def cut(self, backbone: Backbone, layer: int) -> tuple[Path, Path]:
        """The parts of its graph below and above a cut after so many layers, made if need be.

        Raises:
            BackboneError: It cannot be cut there.
        """
        parts = self._cache.below(backbone.encoder_id, layer), self._cache.above(backbone.encoder_id, layer)
        async with self._cutting:
            if not all([await self._settings.loading.run(self._cache.usable, it) for it in parts]):
                cutting = Cutting(self._name, backbone.encoder_id, self._cache.identity, layer)
                await self.run(self._jobs, CUT.job(cutting), unwatched)
                for part in parts:
                    await asyncio.to_thread(self._cache.require, part)
        return parts

    async def adapted(self, backbone: Backbone, layer: int) -> Path:
        """The part of its graph above a cut, or for layer 0 all of it, with room for adapters, made if need be.

        Raises:
            BackboneError: It has no products that adapters could be added to.
        """
        if layer:
            await self.cut(backbone, layer)
        part = self._cache.adapted(backbone.encoder_id, layer)
        async with self._cutting:
            if not await self._settings.loading.run(self._cache.usable, part):
                cutting = Cutting(self._name, backbone.encoder_id, self._cache.identity, layer)
                await self.run(self._jobs, ADAPT.job(cutting), unwatched)
                await asyncio.to_thread(self._cache.require, part)
        return part

    async def run(self, jobs: Jobs, job: Job[P, R], on_progress: OnProgress) -> R:
        """Runs a job that needs graphs of this backbone; a worker whose cache lacks one gets it through the store.

        Raises:
            DomainError: See `Jobs.run`.
        """
        shared: set[str] = set()
        while True:
            try:
                return await jobs.run(job, on_progress)
            except BackboneError as error:
                missing = error.metadata.get("encoder_id", "")
                if error.reason != NOT_CACHED or missing in shared:
                    raise
                if not await asyncio.to_thread(self._cache.share, missing) and not await self._remade(
                    missing
                ):
                    raise
                shared.add(missing)

    async def _open(
        self, backbone: Backbone, device: str, preprocessor: Preprocessor
    ) -> tuple[Encoder, Layout, int]:
        """The encoder, how it is driven, and how much memory it takes, in bytes."""
        settings = self._settings
        graph = self._cache.graph(backbone.encoder_id)
        # One after the other: encoders beside each other would spoil the measurements of speed and of memory.
        async with self._loading:
            layout = await settings.loading.run(
                partial(
                    tuned,
                    graph,
                    device=device,
                    cores=settings.cores,
                    preprocessor=preprocessor,
                    measure_s=0.0 if self._former_id else settings.measure_s,
                )
            )
            if settings.budget and backbone.modality is Modality.TEXT:
                layout = Layout(layout.workers, layout.threads, settings.budget)
            started = time.monotonic()
            before = resident_bytes()
            # While it is loaded: reading 90 MB once more would take a tenth of a second of the start.
            intact = asyncio.create_task(settings.loading.run(self._cache.intact, graph))
            try:
                encoder = await settings.loading.run(self._encoder_on, backbone, device, layout, preprocessor)
                await settings.loading.run(_warm_up, encoder, layout, preprocessor)
            finally:
                usable = await intact
            if not usable:
                raise _damaged()
            memory_bytes = max(0, resident_bytes() - before)
        log_event(
            _log,
            "backbone loaded",
            backbone=self._name,
            encoder=backbone.encoder_id[:SHORT_ID],
            precision=backbone.precision,
            device=encoder.device,
            batches_at_once=layout.workers,
            threads_each=layout.threads,
            batch_cost=layout.budget,
            seconds=round(time.monotonic() - started, 1),
            memory_mb=memory_bytes // 1_000_000,
        )
        return encoder, layout, memory_bytes

    def _encoder_on(
        self, backbone: Backbone, device: str, layout: Layout, preprocessor: Preprocessor
    ) -> Encoder:
        graph = self._cache.graph(backbone.encoder_id)
        return Encoder(graph, device=device, threads=layout.threads, collate=preprocessor.collate)

    async def _make(self, backbone: Backbone) -> None:
        """Makes what the cache lacks: the graph in float32, and from it the one in the backbone's precision."""
        if not await self._has(backbone.reference_id):
            await self._export(backbone)
            await asyncio.to_thread(self._cache.require, self._cache.graph(backbone.reference_id))
        if not await self._has(backbone.encoder_id):
            await self._reduce(backbone)
            await asyncio.to_thread(self._cache.require, self._cache.graph(backbone.encoder_id))

    async def _remade(self, encoder_id: str) -> bool:
        """Makes a graph again that was found to be missing or damaged; False if it is none of the loaded backbone."""
        backbone = self._backbone
        if (
            self._former_id
            or backbone is None
            or encoder_id not in (backbone.encoder_id, backbone.reference_id)
        ):
            return False
        await self._make(backbone)
        return True

    async def _has(self, encoder_id: str) -> bool:
        return self._cache.has(encoder_id) or await asyncio.to_thread(self._cache.fetch, encoder_id)

    def _making(self, backbone: Backbone) -> Making:
        return Making(self._name, backbone.encoder_id, self._cache.identity)

    async def _export(self, backbone: Backbone) -> None:
        _log.info("backbone %s: exporting its encoder to ONNX, once (about 15 s)", self._name)
        self.stage = "exporting"
        try:
            result = await self._jobs.run(EXPORT.job(self._making(backbone)), self._log_stage)
        finally:
            self.stage = "loading"
        _log.info("backbone %s: exported; differs from torch by %.1e at most", self._name, result.parity)

    async def _reduce(self, backbone: Backbone) -> None:
        result = await self.run(self._jobs, REDUCE.job(self._making(backbone)), self._log_stage)
        _log.info(
            "backbone %s: its features in %s have a cosine of %.4f to those in fp32, %.4f at least",
            self._name,
            backbone.precision,
            result.mean_cosine,
            result.least_cosine,
        )

    def _log_stage(self, report: Progress) -> None:
        _log.info("backbone %s: %s", self._name, report.stage)


def load_failure(name: str, error: Exception) -> BackboneError:
    """Returns the error of a backbone that could not be loaded."""
    if isinstance(error, BackboneError):
        return error
    if isinstance(error, DomainError):
        return BackboneError(f"Backbone {shown(name)} cannot be loaded. {error.message}", reason=error.reason)
    return BackboneError(
        f"Backbone {shown(name)} cannot be loaded ({type(error).__name__}); the server's log has the details.",
        reason="BACKBONE_LOAD_FAILED",
    )


def resident_bytes() -> int:
    """The resident memory of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _damaged() -> BackboneError:
    return BackboneError(
        "The exported encoder in the server's cache is damaged; the server's log names it.",
        reason="ENCODER_LOAD_FAILED",
    )


def _warm_up(encoder: Encoder, layout: Layout, preprocessor: Preprocessor) -> None:
    """Runs a short, a usual and a full batch, so that the first requests find memory already laid out."""
    for item in (preprocessor.shortest(), preprocessor.typical(np.random.default_rng(0))):
        for count in {1, max(1, layout.budget // len(item))}:
            encoder.encode([item] * count)
