"""Where aliases go: what moves them, and what does not.

`live` follows publications unless their adaptation does not promote, or somebody has pinned it: pointed it at another
version than the newest. No other alias ever follows one. A renewal is the same version for another encoder, so all
aliases that point at the version follow to the new one, pinned or not, and no others do.
"""

from __future__ import annotations

from datetime import UTC, datetime

from graft_server.domain.errors import ConflictError, InvalidError, StateError
from graft_server.domain.model import LIVE, HeldBack, Model, no_alias
from graft_server.domain.names import shown
from graft_server.store.catalogue.entries import MoveAlias


def by_publication(model: Model | None, *, promote: bool) -> tuple[tuple[str, ...], HeldBack | None]:
    """Returns the aliases that a publication moves, and why `live` is not among them if it is not.

    Args:
        model: The model; None: this is its first version.
        promote: Whether `live` is meant to follow.
    """
    if promote and (model is None or model.live_pinned is None):
        return (LIVE,), None
    if model is None:
        return (), HeldBack(0)
    return (), HeldBack(model.aliases.get(LIVE, 0), model.live_pinned if promote else None)


def by_renewal(
    name: str, model: Model | None, adaptation_id: str, commit_id: str, renewed: int
) -> tuple[tuple[str, ...], HeldBack | None]:
    """Returns the aliases that follow from a version to the one that renews it, and why `live` does not if so.

    Args:
        name: The model's name.
        model: The model; None: it has no versions.
        adaptation_id: The adaptation of both versions.
        commit_id: What the renewal is entered as.
        renewed: The version, which must be the newest.

    Raises:
        StateError: It is not the newest (RENEWAL_SUPERSEDED).
    """
    # A renewal may publish several: COMMIT/ENCODER/METHOD on the way, then COMMIT/ENCODER.
    root = "/".join(commit_id.split("/")[:2])
    parts = {
        number
        for number, it in (model.versions.items() if model else ())
        if it.adaptation_id == adaptation_id and f"{it.commit_id}/".startswith(f"{root}/")
    }
    if model is None or model.latest_version not in {renewed, *parts}:
        raise StateError(
            f"Version {renewed} of model {shown(name)} needs no renewal: it is not the newest any more.",
            reason="RENEWAL_SUPERSEDED",
        )
    aliases = tuple(alias for alias, number in model.aliases.items() if number in {renewed, *parts})
    live = model.aliases.get(LIVE, 0)
    return aliases, None if LIVE in aliases else HeldBack(live, model.live_pinned)


def by_hand(
    model: Model, alias: str, version: int, expected_version: int | None, *, if_newest: bool
) -> MoveAlias | None:
    """Returns the entry that points an alias at a version; None: it is as it should be already.

    Args:
        model: The model.
        alias: The alias.
        version: The version; 0: the alias is removed.
        expected_version: Where the alias should point now, 0 for nowhere; None: not checked.
        if_newest: Whether to refuse it where the version is not the newest.

    Raises:
        MissingError: There is no such version, or alias to remove.
        ConflictError: The alias does not point at expected_version (ALIAS_MOVED), or the version is not the newest
            (NEWEST_MOVED).
        InvalidError: `live` was to be removed.
    """
    _check(model, alias, version, expected_version)
    if if_newest and version != model.latest_version:
        raise ConflictError(
            f"Version {model.latest_version} of model {shown(model.name)} was published meanwhile: ask again.",
            reason="NEWEST_MOVED",
        )
    pinned = alias == LIVE and version != model.latest_version
    known = alias == LIVE and model.live_pinned is not None
    if model.aliases.get(alias) == version and pinned == known:
        return None
    return MoveAlias(time=datetime.now(UTC), model=model.name, alias=alias, version=version, pinned=pinned)


def _check(model: Model, alias: str, version: int, expected_version: int | None) -> None:
    current = model.aliases.get(alias, 0)
    if expected_version is not None and expected_version != current:
        where = f"points at version {current}" if current else "points nowhere"
        raise ConflictError(
            f"Alias {shown(alias)} of model {shown(model.name)} {where}, not at version {expected_version}: "
            "look at the model again, then decide.",
            reason="ALIAS_MOVED",
            field="expected_version",
            metadata={"version": str(current)},
        )
    if version:
        model.version(version)
    elif alias == LIVE:
        raise InvalidError(
            f"version is 0, which would remove the alias {shown(LIVE)}: point it at another version, or "
            "delete the model.",
            reason="ALIAS_REQUIRED",
            field="version",
        )
    elif not current:
        raise no_alias(model.name, alias)
