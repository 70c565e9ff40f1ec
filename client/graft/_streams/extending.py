"""What an adaptation goes on from, where its caller says `extend`; and what is said where it goes on from nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from graft._records.adapting.told import AdaptResult
from graft._records.records import Adaptation, Model, Version
from graft._streams.options import AdaptOptions
from graft.errors import GraftError, UnimplementedError
from graft.v1 import adaptation_pb2, report_pb2

FEWER = logging.getLogger("graft.fewer_examples")
"""Warns of versions with far fewer examples than the one that was live: a program that asked for that turns it off."""
LIVE: Final = "live"
_FEW: Final = 0.5
"""The share of the live version's examples below which a version has far fewer."""


def require_one_base(options: AdaptOptions) -> None:
    """Raises ValueError where two versions are named to go on from."""
    if options.base_version and options.base_alias:
        raise ValueError(
            f"base_version is {options.base_version}, and base_alias is {options.base_alias!r}; give one of them"
        )


def going_on(options: AdaptOptions, known: Adaptation) -> AdaptOptions:
    """The options that resume an adaptation: it keeps the version that it went on from when it was started."""
    base = known.extension
    if base is None:
        return replace(options, base_version=0, base_alias="", match_content=False)
    return replace(options, base_version=base.base_version, base_alias="", match_content=base.match_content)


def extending(options: AdaptOptions, model: Model | None) -> AdaptOptions:
    """The options of an adaptation that is to go on from the live version of a model; None: there is no model yet."""
    if model is None or not model.versions:
        return options
    return replace(options, base_alias=LIVE, match_content=True)


def may_be_overtaken(options: AdaptOptions, result: AdaptResult) -> bool:
    """Whether others may have published between the live version that was extended and the result."""
    extension = result.extension
    if extension is None or options.base_alias != LIVE:
        return False
    return result.version > extension.base_version + 1


def meanwhile(result: AdaptResult, began: Adaptation, versions: Iterable[Version]) -> AdaptResult:
    """The result with the versions that others published since its adaptation began, and a notice of them."""
    base = result.extension.base_version if result.extension is not None else result.version
    between = sorted(
        it.version
        for it in versions
        if base < it.version < result.version
        and it.adaptation_id != result.adaptation_id
        and it.create_time is not None
        and began.create_time is not None
        and it.create_time > began.create_time
    )
    if not between:
        return result
    shown = ", ".join(map(str, between))
    notice = (
        f"version {result.version} extends version {base}, and others published {shown} meanwhile: it does not have "
        f"the examples that they added. With base_version={between[-1]} the same examples make a version of both"
    )
    return replace(result, meanwhile=tuple(between), notices=(*result.notices, notice))


def not_extended(start: adaptation_pb2.AdaptStart, started: adaptation_pb2.Started) -> GraftError | None:
    """The error where a server passed over that an adaptation is to go on from a version; None where it did not.

    A server that is older than the fields `base_alias` and `match_content` would make a version of the new examples
    alone, or double those that are sent again. It is asked before it has any of them.
    """
    if started.HasField("extension") or not (
        start.base_alias or (start.base_version and start.match_content)
    ):
        return None
    return UnimplementedError(
        "The server does not know how to go on from a version by its alias, or to match examples by their content: it "
        "is older than this client. It was sent no example. Update it.",
        reason="SERVER_TOO_OLD",
        domain="graft",
    )


def far_fewer(version: int, report: report_pb2.Report, live: adaptation_pb2.LiveVersion | None) -> str:
    """Says that a version has far fewer examples than the one that was live; "" where it has not.

    Args:
        version: The version that was published.
        report: Its report.
        live: The version that was live when the adaptation was started; None: there was none.
    """
    examples = report.examples + report.validation_examples
    if live is None or not version or live.version == version or examples >= _FEW * live.examples:
        return ""
    return (
        f"version {version} was trained on {examples:,} examples, and version {live.version}, which was live before "
        f"it, on {live.examples:,}, which it does not go on from: extend=True takes those, too"
    )
