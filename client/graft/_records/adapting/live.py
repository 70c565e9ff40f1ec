"""Says in words that a version was published, and that the alias "live" stays where it is."""

from __future__ import annotations

import datetime as dt


def stays(
    model: str, version: int, live_version: int | None, pinned_time: dt.datetime | None, *, command: bool
) -> str:
    """Why a version is not live, and what makes it so; "" if it is, or if that is not known.

    Args:
        model: The model.
        version: The version that was published.
        live_version: The version that "live" pointed at then; 0: none; None: not known.
        pinned_time: Since when it was pinned there; None: it was not.
        command: Whether the reader is at a shell; if not, in Python.
    """
    if not version or live_version is None or live_version == version:
        return ""
    if pinned_time is not None:
        remedy = f"{_promote(model, 'latest', command=command)} moves it and releases the pin"
        return f"live stays at version {live_version}, which was pinned on {local(pinned_time)}: {remedy}"
    remedy = _promote(model, version, command=command)
    if live_version:
        return f"live stays at version {live_version}, as asked: {remedy} moves it"
    by_number = f"--version {version}" if command else f"version={version}"
    return f"it is not live, as asked, and is asked for by its number ({by_number}) until {remedy}"


def local(time: dt.datetime) -> str:
    """A time, where the program runs, to the second."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _promote(model: str, version: int | str, *, command: bool) -> str:
    return f"'graft promote {model} {version}'" if command else f"promote({model!r}, {version!r})"
