"""What the command line says of the alias live: that it is pinned, or that a version did not go live."""

from __future__ import annotations

from graft._records.adapting.live import local, stays
from graft._records.adapting.told import AdaptResult, Event, Outcome
from graft._records.records import Model, Publication


def pinned(model: Model) -> str:
    """That live is pinned, and how that ends; "" if it is not."""
    if model.live_pinned_time is None:
        return ""
    return (
        f"live is pinned at version {model.aliases.get('live', 0)} since {local(model.live_pinned_time)}: what is "
        f"published does not go live until 'graft promote {model.name} latest'"
    )


def not_live(model: str, of: AdaptResult | Outcome) -> str:
    """That a version that was published is not live, and what makes it so; "" if it is."""
    why = stays(model, of.version, of.live_version, of.live_pinned_time, command=True)
    return why and f"published version {of.version}; {why}"


def live_then(of: Publication | Event) -> str:
    """That a version did not go live as it was published; "" if it did."""
    live = of.live_version
    if not of.version or live is None or live == of.version:
        return ""
    why = "live was pinned" if of.live_pinned_time is not None else "not promoted"
    return f"{why}, and stayed at version {live}" if live else why
