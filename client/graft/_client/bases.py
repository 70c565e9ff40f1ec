"""What an adaptation goes on from, where its caller says `extend`, and what was published beside it meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from graft._client import operations as ops
from graft._records.adapting.told import AdaptResult
from graft._streams.extending import extending, going_on, may_be_overtaken, meanwhile, require_one_base
from graft._streams.options import AdaptOptions
from graft.errors import GraftError, NotFoundError


def based(run: Callable[[ops.Operation[Any]], Any], model: str, options: AdaptOptions) -> AdaptOptions:
    """The options with what `extend` means: for an adaptation that exists, what it was started with.

    Raises:
        ValueError: Two versions are named to go on from.
        GraftError: The server cannot be asked.
    """
    require_one_base(options)
    if not options.extend:
        return options
    options = replace(options, match_content=True)
    if options.adaptation_id is not None:
        with suppress(NotFoundError):
            return going_on(options, run(ops.get_adaptation(model, options.adaptation_id)))
    if not (options.base_version or options.base_alias):
        with suppress(NotFoundError):
            return extending(options, run(ops.get_model(model)))
    return options


async def based_async(
    run: Callable[[ops.Operation[Any]], Awaitable[Any]], model: str, options: AdaptOptions
) -> AdaptOptions:
    """The same of the asyncio client."""
    require_one_base(options)
    if not options.extend:
        return options
    options = replace(options, match_content=True)
    if options.adaptation_id is not None:
        with suppress(NotFoundError):
            return going_on(options, await run(ops.get_adaptation(model, options.adaptation_id)))
    if not (options.base_version or options.base_alias):
        with suppress(NotFoundError):
            return extending(options, await run(ops.get_model(model)))
    return options


def with_meanwhile(
    run: Callable[[ops.Operation[Any]], Any], options: AdaptOptions, result: AdaptResult
) -> AdaptResult:
    """The result of an adaptation that extends the live version, with the versions that others published meanwhile."""
    if not may_be_overtaken(options, result):
        return result
    try:
        began = run(ops.get_adaptation(result.model, result.adaptation_id))
        return meanwhile(result, began, run(ops.list_versions(result.model)))
    except GraftError:  # the version is there all the same
        return result


async def with_meanwhile_async(
    run: Callable[[ops.Operation[Any]], Awaitable[Any]], options: AdaptOptions, result: AdaptResult
) -> AdaptResult:
    """The same of the asyncio client."""
    if not may_be_overtaken(options, result):
        return result
    try:
        began = await run(ops.get_adaptation(result.model, result.adaptation_id))
        return meanwhile(result, began, await run(ops.list_versions(result.model)))
    except GraftError:
        return result
