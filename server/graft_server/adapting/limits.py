"""How much work on adaptations a server takes in at once."""

from __future__ import annotations

from dataclasses import dataclass

from graft_server.domain.errors import OverloadError

RETRY_S = 10.0
"""The wait for a caller who is one too many: adaptations and commits end in some seconds to minutes."""


@dataclass(frozen=True, slots=True)
class AdaptationLimits:
    """The limits of work that this server takes in at once."""

    open: int = 1024
    """The most adaptations whose examples are taken."""
    open_per_model: int = 256
    calls: int = 4096
    """The most calls of Adapt; an adaptation may have one for each writer."""
    publications: int = 1024
    """The most commits that wait or are trained."""
    publications_per_model: int = 64
    intake_bytes: int = 256 << 20
    """Memory for changes that wait for the disk and the encoder."""
    idle_s: float = 60.0
    """After how long without work an adaptation's calls give way to another adaptation's, where there are too many."""


def require_fewer(count: int, limit: int, what: str, model: str = "") -> None:
    """Raises OverloadError if there are as many as there may be, of all or of one model."""
    if count < limit:
        return
    whose = f"Model {model}" if model else "This server"
    raise OverloadError(
        f"{whose} has {count:,} {what}, and at most {limit:,} are taken at once: try again later.",
        reason=f"TOO_MANY_{what.rsplit(maxsplit=1)[-1].upper()}",
        retry_after_s=RETRY_S,
    )
