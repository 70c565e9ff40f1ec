"""All backbones of a server, by name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping

from graft_server.backbones.former import former
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.domain.errors import BackboneError, MissingError
from graft_server.domain.examples import Modality
from graft_server.domain.names import listed, shown
from graft_server.encoding.loading import TrunkSettings
from graft_server.encoding.trunk import OnChange, Trunk
from graft_server.encoding.tuned_layers import TunedLayersCache
from graft_server.jobs.job import Jobs

_log = logging.getLogger(__name__)


class Trunks:
    """The trunks of a server, by name."""

    def __init__(
        self,
        sources: Mapping[str, str],
        default: str,
        settings: TrunkSettings,
        on_change: OnChange = lambda _: None,
        on_use: Collection[str] = (),
    ) -> None:
        """Makes the trunks; none is open yet.

        Args:
            sources: Backbone name to source.
            default: The name of the default trunk.
            settings: The settings of all trunks.
            on_change: Called on the event loop with a trunk that was READY and fails, or the reverse, and with one
                that was loaded on use, or could not be.
            on_use: The names of the trunks that are loaded on their first use.
        """
        tuned_layers, loading = TunedLayersCache(settings.tuned_bytes), asyncio.Lock()
        self._sources = sources
        self._settings = settings
        self._shared = tuned_layers, loading
        self._cache = EncoderCache(settings.cache)
        self._jobs: Jobs | None = None
        self._former: dict[tuple[str, str], Trunk] = {}
        self._opening: dict[tuple[str, str], asyncio.Task[Trunk]] = {}
        self._trunks = {
            name: Trunk(
                name,
                source,
                settings,
                on_change,
                on_use=name in on_use,
                tuned_layers=tuned_layers,
                loading=loading,
            )
            for name, source in sources.items()
        }
        self.default = default

    def __iter__(self) -> Iterator[Trunk]:
        return iter(sorted(self._trunks.values(), key=lambda trunk: trunk.name))

    @property
    def activity(self) -> str:
        """What is being done until backbones can be used, for people; "" where nothing is."""
        return ", ".join(it.activity for it in self if it.activity)

    def reading(self, modality: Modality | None) -> Trunk:
        """Returns the default trunk, or the first that reads a modality if the default does not; None: the default."""
        default = self._trunks[self.default]
        if modality in (None, default.modality):
            return default
        return next((it for it in self._trunks.values() if it.modality is modality), default)

    def get(self, name: str) -> Trunk:
        """Returns a trunk by name, the default one for "".

        Raises:
            MissingError: This server has no such backbone.
        """
        name = name or self.default
        if name not in self._trunks:
            raise MissingError(
                f"There is no backbone {shown(name)} on this server: it has "
                f"{listed(sorted(self._trunks))}. ListBackbones describes them.",
                reason="BACKBONE_NOT_FOUND",
                field="backbone",
            )
        return self._trunks[name]

    def can_serve(self, name: str, encoder_id: str) -> bool:
        """Whether there is a trunk with an encoder, or one can be made of what the cache has; see `of_encoder`."""
        if self._with_encoder(encoder_id) is not None:
            return True
        present = self._trunks.get(name)
        known = present.description if present is not None else None
        return known is not None and former(self._cache, known, encoder_id) is not None

    async def of_encoder(self, name: str, encoder_id: str) -> Trunk:
        """Returns a trunk with the encoder that a version was trained on.

        That is the backbone of that name, another one with that encoder, or the backbone with an encoder that it had
        before, which is loaded on its first use.

        Raises:
            MissingError: This server has no such backbone.
            BackboneError: No trunk of this server has the encoder (ENCODER_MISMATCH).
        """
        found = self._with_encoder(encoder_id)
        if found is not None:
            return found
        trunk = self.get(name)
        if trunk.encoder_id == encoder_id:
            return trunk
        key = name, encoder_id
        opening = self._opening.get(key)
        if opening is None:
            opening = self._opening[key] = asyncio.create_task(self._open_former(name, encoder_id))
            opening.add_done_callback(lambda _: self._opening.pop(key, None))
        return await asyncio.shield(opening)

    def _with_encoder(self, encoder_id: str) -> Trunk | None:
        trunks = (*self._trunks.values(), *self._former.values())
        return next((it for it in trunks if it.description and it.description.encoder_id == encoder_id), None)

    async def _open_former(self, name: str, encoder_id: str) -> Trunk:
        assert self._jobs is not None  # noqa: S101 - a trunk that is described was opened
        present = self.get(name)
        if await self._settings.preparing.run(former, self._cache, present.backbone, encoder_id) is None:
            raise BackboneError(
                f"Backbone {shown(name)} is encoder {present.encoder_id}, and encoder {encoder_id}, which it was "
                "before, is not in the cache, or reads other inputs.",
                reason="ENCODER_MISMATCH",
            )
        tuned_layers, loading = self._shared
        trunk = Trunk(
            name,
            self._sources[name],
            self._settings,
            on_use=True,
            tuned_layers=tuned_layers,
            loading=loading,
            former_id=encoder_id,
        )
        try:
            await trunk.open(self._jobs)
        except BackboneError:
            await trunk.close()  # it would try again for ever
            raise
        self._former[name, encoder_id] = trunk
        return trunk

    async def open(self, jobs: Jobs) -> None:
        """Opens all trunks. A failed one does not stop the others; the default trunk's failure is raised."""
        self._jobs = jobs
        results = await asyncio.gather(*(trunk.open(jobs) for trunk in self), return_exceptions=True)
        for trunk, result in zip(self, results, strict=True):
            if isinstance(result, BackboneError) and trunk.name != self.default:
                _log.error("backbone %s: %s", trunk.name, result.message)
            elif isinstance(result, BaseException):
                raise result

    async def close(self) -> None:
        """Closes all trunks, and opens none any more."""
        opening = list(self._opening.values())
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        await asyncio.gather(*(trunk.close() for trunk in (*self, *self._former.values())))
