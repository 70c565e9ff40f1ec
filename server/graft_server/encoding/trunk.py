"""A trunk: one backbone in service, from raw inputs to features. All models on it share it."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.decoding.limits import Bounded, MediaLimits
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.image.class_names import encode_names
from graft_server.backbones.preprocessing import Prepared, Preprocessor, ready_features
from graft_server.backbones.source import open_backbone
from graft_server.domain.errors import BackboneError, DomainError, InvalidError
from graft_server.domain.examples import Input, Kind, Modality
from graft_server.domain.names import shown
from graft_server.domain.views import POOLED
from graft_server.encoding.batcher import Batcher, Encoded, Lane, Limits, Reader, unread
from graft_server.encoding.encoder import Encoder, Features, Reference, device_for
from graft_server.encoding.layout import MEASURE_S, Layout, tuned
from graft_server.encoding.recovery import PROBE_S, RecoveringEncoder
from graft_server.encoding.tuned_layers import (
    GraphPart,
    SplitEncoder,
    TunedLayers,
    TunedLayersCache,
    TunedLayersRef,
)
from graft_server.jobs.job import Job, Jobs
from graft_server.sharing.turns import Turns

T = TypeVar("T")

_log = logging.getLogger(__name__)

"""The encoder's final view: the one that features which a caller has already are."""


FILES_AT_ONCE = 256
"""Images or clips of one caller that are decoded at a time: an image's pixels take 150 KB while they wait, 30 s of
sound 1 MB, whatever their files have."""

TURN = 32
"""Inputs that an adaptation brings to the encoder in its turn."""
TURNS_AT_ONCE = 8
"""How many such parts are prepared and queued. Fewer would leave the batcher without choice; more would make an
adaptation that has little wait for what others have brought."""


class TrunkState(enum.Enum):
    """Whether a trunk can be used."""

    UNLOADED = enum.auto()
    """It is described, and loaded when it is first used."""
    LOADING = enum.auto()
    READY = enum.auto()
    FAILED = enum.auto()


OnChange = Callable[["Trunk"], None]


@dataclass(frozen=True, slots=True)
class TrunkSettings:
    """How trunks are run."""

    cache: Path
    """Where exported encoders are kept."""
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
    """How often an encoder that fails is asked again, and a backbone that could not be loaded on use is tried."""
    limits: MediaLimits = field(default_factory=MediaLimits)
    """What images and clips may be."""


def _prepared(preprocessor: Preprocessor, value: Input) -> Prepared | InvalidError:
    try:
        return preprocessor.prepare(value)
    except InvalidError as error:
        return error


class _Ready(Prepared):
    """Features that a caller has already: its item is the vector, unit-norm."""

    __slots__ = ()


class Trunk:
    """One backbone in service.

    Attributes:
        name: What this server calls the backbone.
        name_scale: What the cosine of an input and a name is multiplied with to be a logit, once names were
            encoded; 0 where the backbone has not learned that.
        state: Whether it can be used.
        memory_bytes: By how much the process grew as its encoder was loaded and first run; 0: not loaded.
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
    ) -> None:
        """Makes it; `open` loads it, one of those that share `loading` at a time, or has it loaded on its first use."""
        self.memory_bytes = 0
        self._turns = Turns(TURNS_AT_ONCE)
        self._on_use = on_use
        self._opening: asyncio.Task[None] | None = None
        self._opened_at = -math.inf
        self._loading = loading or asyncio.Lock()
        self.name = name
        self.name_scale = 0.0
        self.state = TrunkState.LOADING
        self._on_change = on_change
        self._source = source
        self._settings = settings
        self._cache = EncoderCache(settings.cache)
        self._error = BackboneError(
            f"Backbone {shown(name)} is being loaded: try again in some seconds.", reason="BACKBONE_LOADING"
        )
        self._backbone: Backbone | None = None
        self._preprocessor: Preprocessor | None = None
        self._cutting = asyncio.Lock()
        self._jobs: Jobs
        self._running = False
        self._batcher: Batcher
        self._encoder: RecoveringEncoder
        self._split_encoder: SplitEncoder
        self._tuned_layers = tuned_layers or TunedLayersCache(settings.tuned_bytes)
        self._device = settings.device
        self._layout: Layout

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
        return self._error.message if self.state is TrunkState.FAILED else ""

    @property
    def parity(self) -> float:
        """By how much its exported features differ from torch's; 0: not known."""
        return self._cache.parity(self.backbone.reference_id)

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of input that it takes, sorted; none where that could not be found out."""
        return sorted({*self._preprocessor.kinds, Kind.FEATURES}) if self._preprocessor else []

    @property
    def encoder_id(self) -> str:
        """The digest that identifies what it computes."""
        return self.backbone.encoder_id

    async def ready(self) -> None:
        """Returns once it can be used, which loads a backbone that is loaded on use.

        One that could not be is tried again by whoever asks after `probe_s`.

        Raises:
            BackboneError: It cannot be used.
        """
        if self.state is TrunkState.READY:
            return
        if self._on_use and not self._running and self._opening is None:
            waited = time.monotonic() - self._opened_at
            if self.state is TrunkState.UNLOADED or waited >= self._settings.probe_s:
                # A task of its own, so that a caller who leaves does not take it away from the others.
                self._opening = asyncio.create_task(self._open_on_use())
        if self._opening is not None:
            await asyncio.shield(self._opening)
        self._require_ready()

    def _require_ready(self) -> None:
        if self.state is not TrunkState.READY:
            raise self._unusable()

    @property
    def reference(self) -> Reference | None:
        """The same encoder in float32, if this one is not: what training compares accuracy with."""
        backbone = self.backbone
        if backbone.reference_id == backbone.encoder_id:
            return None
        return Reference(
            str(self._cache.graph(backbone.reference_id)), backbone.payload(), backbone.precision
        )

    @property
    def preprocessor(self) -> Preprocessor:
        """What turns its inputs into what the encoder reads; raises BackboneError if its files do not say."""
        if self._preprocessor is None:
            raise self._unusable()
        return self._preprocessor

    @property
    def limits(self) -> MediaLimits:
        """What its images and clips may be."""
        return self._settings.limits

    @property
    def graph(self) -> Path:
        """The file of its exported graph."""
        return self._cache.graph(self.encoder_id)

    async def cut(self, layer: int) -> tuple[Path, Path]:
        """The parts of its graph below and above a cut after so many layers, made if need be.

        Raises:
            BackboneError: It cannot be cut there.
        """
        await self.ready()
        parts = self._cache.below(self.encoder_id, layer), self._cache.above(self.encoder_id, layer)
        async with self._cutting:
            if not all(it.is_file() for it in parts):
                payload = {
                    "name": self.name,
                    "encoder_id": self.encoder_id,
                    "reference_id": self.backbone.reference_id,
                    "layer": layer,
                    "cache": str(self._settings.cache),
                }
                job = Job("graft_server.backbones.graphs.cutting:cut_encoder", payload)
                await self._jobs.run(job, lambda _: None)
        return parts

    @property
    def batcher(self) -> Batcher:
        """Its batcher; raises BackboneError while the trunk cannot be used."""
        self._require_ready()
        return self._batcher

    async def open(self, jobs: Jobs) -> None:
        """Describes the backbone, and loads it unless it is loaded on use.

        Loading exports its encoder first if that has not been done on this machine.

        Raises:
            BackboneError: It cannot be used; the trunk is FAILED.
        """
        self._jobs = jobs
        async with self._failing():
            await self._describe()
            if self._on_use:
                self.state = TrunkState.UNLOADED
                return
            await self._open()

    async def _open_on_use(self) -> None:
        """Loads it in a task of its own, which never fails: the trunk's state says how it went."""
        self.state = TrunkState.LOADING
        try:
            async with self._failing():
                await self._describe()
                await self._open()
        except BackboneError as error:
            _log.error("backbone %s: %s", self.name, error.message)
        self._opening = None
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
            self._error, self.state = self._failure(error), TrunkState.FAILED
            raise self._unusable() from error
        finally:
            self._opened_at = time.monotonic()

    def _failure(self, error: Exception) -> BackboneError:
        if isinstance(error, BackboneError):
            return error
        if isinstance(error, DomainError):
            return BackboneError(
                f"Backbone {shown(self.name)} cannot be loaded. {error.message}", reason=error.reason
            )
        return BackboneError(
            f"Backbone {shown(self.name)} cannot be loaded ({type(error).__name__}); the server's log has the details.",
            reason="BACKBONE_LOAD_FAILED",
        )

    async def close(self) -> None:
        """Ends its workers."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._running:
            await self._encoder.close()
            await self._batcher.close()

    async def prepare_all(self, inputs: Sequence[Input]) -> list[Prepared | InvalidError]:
        """Prepares inputs: inline where they are short texts, in a thread beside the encoder otherwise.

        An input that cannot be read fails alone. Features that a caller has already are not for the encoder: their
        item is the vector.
        """
        if any(it.kind is Kind.FEATURES for it in inputs):
            return await self._prepare_mixed(inputs)
        preprocessor = self.preprocessor
        if preprocessor.quick(inputs):
            return [_prepared(preprocessor, it) for it in inputs]
        return await asyncio.to_thread(preprocessor.many, inputs)

    async def unreadable(self, inputs: Sequence[Input]) -> list[InvalidError | None]:
        """What is wrong with each input; None where it can be read.

        A text always can, so no time is spent on it.
        """
        if Kind.TEXT in self.preprocessor.kinds and all(it.kind is Kind.TEXT for it in inputs):
            return [None] * len(inputs)
        errors: list[InvalidError | None] = []
        for part in self.parts(inputs):
            prepared = await self.prepare_all(part)
            errors += [it if isinstance(it, InvalidError) else None for it in prepared]
        return errors

    def parts(self, inputs: Sequence[Input]) -> Iterator[Sequence[Input]]:
        """The inputs, so many at a time as may be prepared at once: of files, what they become may be far larger."""
        at_once = len(inputs) if Kind.TEXT in self.preprocessor.kinds else FILES_AT_ONCE
        for start in range(0, len(inputs), max(at_once, 1)):
            yield inputs[start : start + at_once]

    async def in_turns(
        self, key: str, inputs: Sequence[Input], work: Callable[[Sequence[Input]], Awaitable[T]]
    ) -> list[tuple[list[int], T]]:
        """What `work` makes of the inputs, part by part, each with its inputs' places. Keys that compete take turns.

        Inputs of like size are in one part, so that batches have little to pad.

        Raises:
            Exception: The first that `work` raised; the other parts are given up.
        """

        async def turn(places: list[int]) -> tuple[list[int], T]:
            async with self._turns.place(key):
                return places, await work([inputs[place] for place in places])

        order = sorted(range(len(inputs)), key=lambda place: inputs[place].size)
        tasks = [
            asyncio.create_task(turn(order[start : start + TURN])) for start in range(0, len(order), TURN)
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def encode(
        self,
        prepared: Sequence[Prepared],
        *,
        lane: Lane,
        reader: Reader = unread,
        tuned: TunedLayersRef | None = None,
        deadline: float = math.inf,
    ) -> Encoded:
        """Gives what a reader makes of the features of prepared inputs; see `Batcher.encode`.

        Where some inputs are features already, the reader is given the view "pooled" alone.
        """
        if any(isinstance(it, _Ready) for it in prepared):
            return await self._encode_mixed(prepared, lane, reader, deadline)
        await self.ready()
        ready = None if tuned is None else await self.load(tuned)
        return await self.batcher.encode(
            [it.item for it in prepared], reader=reader, tuned=ready, lane=lane, deadline=deadline
        )

    @property
    def reads_names(self) -> bool:
        """Whether names of classes say something in the space of its features."""
        return Kind.TEXT in self.preprocessor.kinds or self.backbone.family.names

    async def encode_names(self, names: Sequence[str]) -> Features:
        """Features of n >= 1 names, by view: where they are in the space of the backbone's inputs.

        Raises:
            BackboneError: The backbone cannot be used now.
        """
        await self.ready()
        backbone = self.backbone
        if backbone.family.names:
            graph = self._cache.names(backbone.reference_id)
            named = await asyncio.to_thread(encode_names, graph, backbone.folder, names, backbone.max_tokens)
            self.name_scale = named.scale
            return {POOLED: named.features}
        prepared = await self.prepare_all([Input(name) for name in names])
        readable = [it for it in prepared if not isinstance(it, InvalidError)]  # a text always is
        return (await self.encode(readable, lane=Lane.ADAPT)).arrays

    async def _prepare_mixed(self, inputs: Sequence[Input]) -> list[Prepared | InvalidError]:
        others = iter(await self.prepare_all([it for it in inputs if it.kind is not Kind.FEATURES]))
        return [self._ready(it) if it.kind is Kind.FEATURES else next(others) for it in inputs]

    def _ready(self, value: Input) -> Prepared | InvalidError:
        try:
            return _Ready(ready_features(value, self.backbone.dimension))
        except InvalidError as error:
            return error

    async def _encode_mixed(
        self, prepared: Sequence[Prepared], lane: Lane, reader: Reader, deadline: float
    ) -> Encoded:
        """Ready features meet the reader beside the encoder; the rows come back in their order."""

        def of_pooled(features: Features) -> Mapping[str, NDArray[Any]]:
            return reader({POOLED: features[POOLED]})

        ready = [row for row, it in enumerate(prepared) if isinstance(it, _Ready)]
        others = [row for row, it in enumerate(prepared) if not isinstance(it, _Ready)]
        started = time.monotonic()
        arrays = await asyncio.to_thread(of_pooled, {POOLED: np.stack([prepared[row].item for row in ready])})
        encoded = Encoded(arrays, 0.0, 0.0, time.monotonic() - started)
        if not others:
            return encoded
        await self.ready()
        batched = await self.batcher.encode(
            [prepared[row].item for row in others], reader=of_pooled, lane=lane, deadline=deadline
        )
        back = np.argsort([*ready, *others])
        return Encoded(
            {name: np.concatenate([array, batched.arrays[name]])[back] for name, array in arrays.items()},
            batched.queue_s,
            batched.encode_s,
            batched.read_s + encoded.read_s,
        )

    async def load(self, ref: TunedLayersRef) -> TunedLayers:
        """Tuned layers, loaded if need be, with the parts of the backbone that they share.

        Raises:
            DomainError: They cannot be read or loaded, or the backbone cannot be cut where they begin.
        """
        await self.ready()
        if ref.below and not self._split_encoder.has_cut(ref.below):
            parts = await self.cut(ref.below)
            below, above = [await asyncio.to_thread(self._graph_part, it) for it in parts]
            self._split_encoder.add_cut(ref.below, below, above)
        return await self._tuned_layers.get(ref, self._graph_part)

    def forget(self, ref: TunedLayersRef) -> None:
        """Unloads tuned layers whose version is gone."""
        self._tuned_layers.forget(ref.key)

    def _graph_part(self, graph: Path | bytes) -> GraphPart:
        return GraphPart(graph, device=self._device, threads=self._layout.threads)

    async def _describe(self) -> None:
        """Reads everything but the weights."""
        settings = self._settings
        device_for(settings.precision, settings.device)
        backbone = await asyncio.to_thread(
            open_backbone, self.name, self._source, precision=settings.precision
        )
        if self._backbone not in (None, backbone):
            raise BackboneError(
                f"Backbone {shown(self.name)}: its files are not those that were there at start. Put them back, or "
                "restart the server.",
                reason="BACKBONE_CHANGED",
            )
        self._backbone = backbone
        preprocessor = await asyncio.to_thread(backbone.preprocessor)
        if isinstance(preprocessor, Bounded):
            preprocessor = preprocessor.within(settings.limits)
        self._preprocessor = preprocessor

    async def _open(self) -> None:
        settings, backbone, preprocessor, jobs = self._settings, self.backbone, self.preprocessor, self._jobs
        device = device_for(settings.precision, settings.device)
        await self._make(backbone, jobs)
        try:
            encoder, layout = await self._load(backbone, device, preprocessor)
        except BackboneError as error:
            if error.reason != "ENCODER_LOAD_FAILED":
                raise
            # A damaged entry of the cache is not a reason to fail: it can be made again.
            _log.warning("backbone %s: its exported encoder cannot be loaded and is made again", self.name)
            for encoder_id in {backbone.encoder_id, backbone.reference_id}:
                self._cache.discard(encoder_id)
            await self._make(backbone, jobs)
            encoder, layout = await self._load(backbone, device, preprocessor)
        self._encoder = RecoveringEncoder(
            encoder,
            lambda: self._encoder_on(backbone, device, layout, preprocessor),
            self._turned,
            probe=preprocessor.shortest(),
            probe_s=settings.probe_s,
        )
        limits = Limits(layout.budget, layout.workers, queued_requests=settings.queued_requests)
        self._device, self._layout = encoder.device, layout
        self._split_encoder = SplitEncoder(self._encoder, preprocessor)
        self._batcher = Batcher(self._split_encoder, limits, preprocessor.price)
        await self._batcher.start()
        self.state = TrunkState.READY
        self._running = True

    def _unusable(self) -> BackboneError:
        # A new one each time: an error that is raised again keeps the frames of all who raised it before.
        return BackboneError(self._error.message, reason=self._error.reason, metadata=self._error.metadata)

    def _turned(self, answers: bool) -> None:
        """The encoder began to fail, or answers again."""
        if answers:
            _log.warning("backbone %s: its encoder answers again", self.name)
            self.state = TrunkState.READY
        else:
            _log.error("backbone %s: its encoder fails; it is asked again until it answers", self.name)
            self._error = BackboneError(
                f"The encoder of backbone {shown(self.name)} is failing; the server keeps asking it. Try again in "
                "some seconds.",
                reason="ENCODER_FAILED",
            )
            self.state = TrunkState.FAILED
        self._on_change(self)

    async def _load(
        self, backbone: Backbone, device: str, preprocessor: Preprocessor
    ) -> tuple[Encoder, Layout]:
        settings = self._settings
        graph = self._cache.graph(backbone.encoder_id)
        # One after the other: beside each other none could be measured, nor told what each takes.
        async with self._loading:
            layout = await asyncio.to_thread(
                tuned,
                graph,
                device=device,
                cores=settings.cores,
                preprocessor=preprocessor,
                measure_s=settings.measure_s,
            )
            if settings.budget and backbone.modality is Modality.TEXT:
                layout = Layout(layout.workers, layout.threads, settings.budget)
            started = time.monotonic()
            before = resident_bytes()
            encoder = await asyncio.to_thread(self._encoder_on, backbone, device, layout, preprocessor)
            await asyncio.to_thread(_warm_up, encoder, layout, preprocessor)
            self.memory_bytes = max(0, resident_bytes() - before)
        _log.info(
            "backbone %s (%s): %s on %s, %d batches at once on %d threads each, a cost of %d a batch, %.1f s, %d MB",
            self.name,
            backbone.encoder_id,
            backbone.precision,
            encoder.device,
            layout.workers,
            layout.threads,
            layout.budget,
            time.monotonic() - started,
            self.memory_bytes // 1_000_000,
        )
        return encoder, layout

    def _encoder_on(
        self, backbone: Backbone, device: str, layout: Layout, preprocessor: Preprocessor
    ) -> Encoder:
        graph = self._cache.graph(backbone.encoder_id)
        return Encoder(graph, device=device, threads=layout.threads, collate=preprocessor.collate)

    async def _make(self, backbone: Backbone, jobs: Jobs) -> None:
        """Makes what the cache lacks: the graph in float32, and from it the one in the backbone's precision."""
        if not self._cache.has(backbone.reference_id):
            await self._export(backbone, jobs)
        if not self._cache.has(backbone.encoder_id):
            await self._reduce(backbone, jobs)

    async def _export(self, backbone: Backbone, jobs: Jobs) -> None:
        _log.info("backbone %s: exporting its encoder to ONNX, once (about 15 s)", self.name)
        payload = {"backbone": backbone.payload(), "cache": str(self._settings.cache)}
        job = Job("graft_server.backbones.torch.export:export_encoder", payload, fresh=True, passed_on=True)
        result = await jobs.run(job, lambda report: _log.info("backbone %s: %s", self.name, report["stage"]))
        _log.info(
            "backbone %s: exported; differs from torch by %.1e at most",
            self.name,
            result["parity"],
        )

    async def _reduce(self, backbone: Backbone, jobs: Jobs) -> None:
        payload = {"backbone": backbone.payload(), "cache": str(self._settings.cache)}
        job = Job(
            "graft_server.backbones.graphs.reducing:reduce_encoder", payload, fresh=True, passed_on=True
        )
        result = await jobs.run(job, lambda report: _log.info("backbone %s: %s", self.name, report["stage"]))
        _log.info(
            "backbone %s: its features in %s have a cosine of %.4f to those in fp32, %.4f at least",
            self.name,
            backbone.precision,
            result["mean_cosine"],
            result["least_cosine"],
        )


def resident_bytes() -> int:
    """The resident memory of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _warm_up(encoder: Encoder, layout: Layout, preprocessor: Preprocessor) -> None:
    """Runs a short, a usual and a full batch, so that the first requests find memory already laid out."""
    for item in (preprocessor.shortest(), preprocessor.typical(np.random.default_rng(0))):
        for count in {1, max(1, layout.budget // len(item))}:
            encoder.encode([item] * count)
