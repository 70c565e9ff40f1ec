"""What an adaptation goes on from, where its caller says `extend`; and what is said where it goes on from nothing."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from graft._records.records import Adaptation, Model
from graft._streams.options import AdaptOptions
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
