"""Notices when an encoder begins to fail and when it answers again, without a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence, Sized

import numpy as np

from graft_server.domain.errors import BackboneError
from graft_server.encoding.encoder import Encoder, Features
from graft_server.sharing.threads import Threads

_log = logging.getLogger(__name__)

PROBE_S = 3.0
"""The seconds between two probes of a failing encoder."""
REOPEN_AFTER = 3
"""The failures in a row after which a new session is opened: a device reset leaves the old one dead."""


class RecoveringEncoder:
    """An encoder that is watched, and replaced if need be. `encode` may be called from several threads at once.

    A failed batch proves little: its inputs may be at fault. So a short probe is encoded at once, and
    the encoder is failing only if the probe fails too. Then it is probed every few seconds until it answers.
    """

    def __init__(
        self,
        encoder: Encoder,
        reopen: Callable[[], Encoder],
        on_change: Callable[[bool], None],
        *,
        probe: Sized | None = None,
        probe_s: float = PROBE_S,
        threads: Threads | None = None,
    ) -> None:
        """Begins to watch. Call it on the event loop.

        Args:
            encoder: The encoder.
            reopen: Opens another session on the same graph; called on a thread, may raise BackboneError.
            on_change: Called on the event loop, with False when the encoder begins to fail, True when it answers again.
            probe: The item of the probe; None: a text of four tokens.
            probe_s: The seconds between two probes of a failing encoder.
            threads: Where probes run and sessions are opened; None: on the event loop's own.
        """
        self._encoder = encoder
        self._reopen = reopen
        self._on_change = on_change
        self._probe: Sized = np.ones(4, np.int64) if probe is None else probe
        self._probe_s = probe_s
        self._run = asyncio.to_thread if threads is None else threads.run
        self._loop = asyncio.get_running_loop()
        self._recovering: asyncio.Task[None] | None = None
        self._closed = False

    def encode(self, items: Sequence[Sized]) -> Features:
        """See `Encoder.encode`."""
        try:
            return self._encoder.encode(items)
        except Exception:
            self._loop.call_soon_threadsafe(self._failed)
            raise

    async def close(self) -> None:
        """Stops watching."""
        self._closed = True
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.gather(self._recovering, return_exceptions=True)

    def _failed(self) -> None:
        if not self._closed and (self._recovering is None or self._recovering.done()):
            self._recovering = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        if await self._answers():
            return
        self._on_change(False)
        failures = 1
        while True:
            await asyncio.sleep(self._probe_s)
            if failures % REOPEN_AFTER == 0:
                await self._open_anew()
            if await self._answers():
                break
            failures += 1
        self._on_change(True)

    async def _answers(self) -> bool:
        try:
            await self._run(self._encoder.encode, [self._probe])
        except Exception as error:  # noqa: BLE001 - whatever it is, the encoder does not answer
            _log.debug("the encoder does not answer: %r", error)
            return False
        return True

    async def _open_anew(self) -> None:
        try:
            self._encoder = await self._run(self._reopen)
        except BackboneError as error:
            _log.warning("%s", error.message)
        except Exception:  # noqa: BLE001 - it is tried again, whatever it was
            _log.exception("the encoder cannot be opened anew")
