"""A trunk: one backbone in service, from raw inputs to features. All models on it share it."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graft_server.backbones.cache import EncoderCache
from graft_server.backbones.source import Backbone, open_backbone
from graft_server.backbones.text import TextTokenizer, TokenizedText
from graft_server.encoding.batcher import Batcher, Encoded, Lane, Limits, Reader, unread
from graft_server.encoding.recovery import PROBE_S, RecoveringEncoder
from graft_server.encoding.runtime import Encoder, Reference, device_for
from graft_server.encoding.tuning import Layout, tuned
from graft_server.errors import BackboneError, MissingError
from graft_server.jobs.job import Job, Jobs
from graft_server.names import shown

_log = logging.getLogger(__name__)

INLINE_CHARACTERS = 2_000
"""Texts up to this length are tokenized on the event loop (30 µs for a sentence); a thread costs 160 µs."""


class TrunkState(enum.Enum):
    """Whether a trunk can be used."""

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
    queued_requests: int = 4_096
    probe_s: float = PROBE_S
    """How often an encoder that fails is asked again."""


class Trunk:
    """One backbone in service.

    Attributes:
        name: What this server calls the backbone.
        state: Whether it can be used.
    """

    def __init__(
        self, name: str, source: str, settings: TrunkSettings, on_change: OnChange = lambda _: None
    ) -> None:
        self.name = name
        self.state = TrunkState.LOADING
        self._on_change = on_change
        self._source = source
        self._settings = settings
        self._cache = EncoderCache(settings.cache)
        self._error = BackboneError(
            f"Backbone {shown(name)} is being loaded: try again in some seconds.", reason="BACKBONE_LOADING"
        )
        self._backbone: Backbone | None = None
        self._tokenizer: TextTokenizer
        self._running = False
        self._batcher: Batcher
        self._encoder: RecoveringEncoder

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
    def encoder_id(self) -> str:
        """The digest that identifies what it computes."""
        return self.backbone.encoder_id

    def require_ready(self) -> None:
        """Raises BackboneError while the trunk cannot be used."""
        if self.state is not TrunkState.READY:
            raise self._unusable()

    @property
    def reference(self) -> Reference | None:
        """The same encoder in float32, if this one is not: what training compares accuracy with."""
        backbone = self.backbone
        if backbone.reference_id == backbone.encoder_id:
            return None
        graph = self._cache.graph(backbone.reference_id)
        return Reference(str(graph), str(backbone.folder), backbone.max_tokens, backbone.precision)

    @property
    def batcher(self) -> Batcher:
        """Its batcher; raises BackboneError while the trunk cannot be used."""
        self.require_ready()
        return self._batcher

    async def open(self, jobs: Jobs) -> None:
        """Loads the backbone, exporting its encoder first if that has not been done on this machine.

        Raises:
            BackboneError: It cannot be used; the trunk is FAILED.
        """
        try:
            await self._open(jobs)
        except BackboneError as error:
            self._error, self.state = error, TrunkState.FAILED
            raise
        self.state = TrunkState.READY
        self._running = True

    async def close(self) -> None:
        """Ends its workers."""
        if self._running:
            await self._encoder.close()
            await self._batcher.close()

    def tokenize(self, text: str) -> TokenizedText:
        """Tokenizes one text, here and now."""
        return self._tokenizer(text)

    async def tokenize_all(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Tokenizes texts: inline where they are short, in a thread beside the encoder where they are long."""
        if sum(map(len, texts)) <= INLINE_CHARACTERS:
            return [self._tokenizer(text) for text in texts]
        return await asyncio.to_thread(self._tokenizer.many, texts)

    async def encode(
        self,
        texts: Sequence[TokenizedText],
        *,
        lane: Lane,
        reader: Reader = unread,
        deadline: float = math.inf,
    ) -> Encoded:
        """Gives what a reader makes of the features of tokenized texts; see `Batcher.encode`."""
        return await self.batcher.encode(
            [text.ids for text in texts], reader=reader, lane=lane, deadline=deadline
        )

    async def _open(self, jobs: Jobs) -> None:
        settings = self._settings
        device = device_for(settings.precision, settings.device)
        backbone = await asyncio.to_thread(
            open_backbone, self.name, self._source, precision=settings.precision
        )
        self._backbone = backbone
        await self._make(backbone, jobs)
        self._tokenizer = await asyncio.to_thread(TextTokenizer, backbone.folder, backbone.max_tokens)
        try:
            encoder, layout = await self._load(backbone, device)
        except BackboneError as error:
            if error.reason != "ENCODER_LOAD_FAILED":
                raise
            # A damaged entry of the cache is not a reason to fail: it can be made again.
            _log.warning("backbone %s: its exported encoder cannot be loaded and is made again", self.name)
            for encoder_id in {backbone.encoder_id, backbone.reference_id}:
                self._cache.discard(encoder_id)
            await self._make(backbone, jobs)
            encoder, layout = await self._load(backbone, device)
        await asyncio.to_thread(_warm_up, encoder, layout)
        graph = self._cache.graph(backbone.encoder_id)
        self._encoder = RecoveringEncoder(
            encoder,
            lambda: Encoder(graph, device=device, threads=layout.threads),
            self._turned,
            probe_s=settings.probe_s,
        )
        limits = Limits(layout.budget, layout.workers, queued_requests=settings.queued_requests)
        self._batcher = Batcher(self._encoder, limits, backbone.dimension)
        await self._batcher.start()

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

    async def _load(self, backbone: Backbone, device: str) -> tuple[Encoder, Layout]:
        settings = self._settings
        graph = self._cache.graph(backbone.encoder_id)
        layout = await asyncio.to_thread(
            tuned, graph, device=device, cores=settings.cores, dimension=backbone.dimension
        )
        if settings.budget:
            layout = Layout(layout.workers, layout.threads, settings.budget)
        started = time.monotonic()
        encoder = await asyncio.to_thread(Encoder, graph, device=device, threads=layout.threads)
        _log.info(
            "backbone %s (%s): %s on %s, %d batches at once on %d threads each, %d tokens a batch, loaded in %.1f s",
            self.name,
            backbone.encoder_id,
            backbone.precision,
            encoder.device,
            layout.workers,
            layout.threads,
            layout.budget,
            time.monotonic() - started,
        )
        return encoder, layout

    async def _make(self, backbone: Backbone, jobs: Jobs) -> None:
        """Makes what the cache lacks: the graph in float32, and from it the one in the backbone's precision."""
        if not self._cache.has(backbone.reference_id):
            await self._export(backbone, jobs)
        if not self._cache.has(backbone.encoder_id):
            await self._reduce(backbone, jobs)

    async def _export(self, backbone: Backbone, jobs: Jobs) -> None:
        _log.info("backbone %s: exporting its encoder to ONNX, once (about 15 s)", self.name)
        payload = {
            "name": backbone.name,
            "folder": str(backbone.folder),
            "pooling": backbone.pooling,
            "layer": backbone.middle_layer,
            "encoder_id": backbone.reference_id,
            "max_tokens": backbone.max_tokens,
            "cache": str(self._settings.cache),
        }
        job = Job("graft_server.backbones.torch.export:export_encoder", payload, fresh=True)
        result = await jobs.run(job, lambda report: _log.info("backbone %s: %s", self.name, report["stage"]))
        _log.info("backbone %s: exported; differs from torch by %.1e at most", self.name, result["parity"])

    async def _reduce(self, backbone: Backbone, jobs: Jobs) -> None:
        payload = {
            "name": backbone.name,
            "folder": str(backbone.folder),
            "max_tokens": backbone.max_tokens,
            "precision": backbone.precision,
            "encoder_id": backbone.encoder_id,
            "reference_id": backbone.reference_id,
            "cache": str(self._settings.cache),
        }
        job = Job("graft_server.backbones.reducing:reduce_encoder", payload, fresh=True)
        result = await jobs.run(job, lambda report: _log.info("backbone %s: %s", self.name, report["stage"]))
        _log.info(
            "backbone %s: its features in %s have a cosine of %.4f to those in fp32, %.4f at least",
            self.name,
            backbone.precision,
            result["mean_cosine"],
            result["least_cosine"],
        )


class Trunks:
    """The trunks of a server, by name."""

    def __init__(
        self,
        sources: Mapping[str, str],
        default: str,
        settings: TrunkSettings,
        on_change: OnChange = lambda _: None,
    ) -> None:
        """Makes them; none is open yet.

        Args:
            sources: Backbone name to source.
            default: The name of the default one.
            settings: How all are run.
            on_change: Told, on the event loop, of a trunk that was READY and fails, or the reverse.
        """
        self._trunks = {name: Trunk(name, source, settings, on_change) for name, source in sources.items()}
        self.default = default

    def __iter__(self) -> Iterator[Trunk]:
        return iter(sorted(self._trunks.values(), key=lambda trunk: trunk.name))

    def get(self, name: str) -> Trunk:
        """Returns a trunk by name, the default one for "".

        Raises:
            MissingError: This server has no such backbone.
        """
        name = name or self.default
        if name not in self._trunks:
            raise MissingError(
                f"There is no backbone {shown(name)} on this server: it has "
                f"{', '.join(map(shown, sorted(self._trunks)))}. ListBackbones describes them.",
                reason="BACKBONE_NOT_FOUND",
                field="backbone",
            )
        return self._trunks[name]

    async def open(self, jobs: Jobs) -> None:
        """Opens all trunks. One that fails does not stop the others, unless it is the default."""
        results = await asyncio.gather(*(trunk.open(jobs) for trunk in self), return_exceptions=True)
        for trunk, result in zip(self, results, strict=True):
            if isinstance(result, BackboneError) and trunk.name != self.default:
                _log.error("backbone %s: %s", trunk.name, result.message)
            elif isinstance(result, BaseException):
                raise result

    async def close(self) -> None:
        """Closes all trunks."""
        await asyncio.gather(*(trunk.close() for trunk in self))


def _warm_up(encoder: Encoder, layout: Layout) -> None:
    """Runs a short, a usual and a full batch, so that the first requests find memory already laid out."""
    for length in (4, 16):
        for count in {1, max(1, layout.budget // length)}:
            encoder.encode([np.full(length, 1)] * count)
