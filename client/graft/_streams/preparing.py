"""What is learned of a caller's changes before the first is sent: the task, and ids that stand for several inputs."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from graft._records.inputs.examples import ChangeLike, Delete, Example
from graft._records.inputs.id_use import IdUse, Use
from graft._records.inputs.shapes import several_examples
from graft._records.inputs.targets import is_missing, word_of
from graft._records.inputs.task_guess import TaskGuess
from graft._streams.conversion import OVERRULED_BY, Conversion
from graft._streams.look_ahead import LookAhead
from graft._streams.options import AdaptOptions

LOG = logging.getLogger("graft")

Changes = TypeVar("Changes")

_LOOK_CHANGES: Final = 4_096
"""The most changes of an iterator that are looked at before the first is sent."""


@dataclass(frozen=True, slots=True)
class Prepared(Generic[Changes]):
    """The options of an adaptation with a task, its changes, and how they are converted."""

    options: AdaptOptions
    changes: Changes
    conversion: Conversion


def prepared(options: AdaptOptions, changes: Iterable[ChangeLike]) -> Prepared[Iterable[ChangeLike]]:
    """Looks at changes before they are sent: at all of a list or a tuple, else at the first until these tell the task.

    Raises:
        TypeError: The changes have a shape that is not read; see `several_examples`.
        ValueError: In a list or a tuple an id stands for several inputs, and `id_repeats` does not allow it.
    """
    if options.id_repeats not in ("", "replace"):
        raise ValueError(f"id_repeats is {options.id_repeats!r}; it must be 'replace' or empty")
    changes = several_examples(changes)
    if isinstance(changes, list | tuple):
        if not (options.validate_only or options.id_repeats == "replace"):
            _require_own_ids(changes)
        guess = TaskGuess()
        if not options.task:
            for change in changes:
                guess.add(change)
        return _prepared(options, guess, changes)
    guess = TaskGuess()
    if options.task:
        return _prepared(options, guess, changes)
    rest = iter(changes)
    look = _Look(guess)
    first: list[ChangeLike] = []
    try:
        while look.wanted and (more := list(itertools.islice(rest, 1))):
            first += more
            look.at(more[0])
    except Exception as error:  # noqa: BLE001 - raised again where changes are taken
        rest = _raising(error)
    return _prepared(options, guess, itertools.chain(first, rest))


async def prepared_async(
    options: AdaptOptions, changes: Iterable[ChangeLike] | AsyncIterable[ChangeLike]
) -> Prepared[Iterable[ChangeLike] | AsyncIterable[ChangeLike]]:
    """The same of changes that may come asynchronously."""
    if not isinstance(changes, AsyncIterable):
        found = prepared(options, changes)
        return Prepared(found.options, found.changes, found.conversion)
    guess = TaskGuess()
    if options.task:
        return _prepared(options, guess, changes)
    rest = aiter(changes)
    look = _Look(guess)
    first: list[ChangeLike] = []
    failure: list[Exception] = []
    try:
        while look.wanted:
            first.append(await anext(rest))
            look.at(first[-1])
    except StopAsyncIteration:
        pass
    except Exception as error:  # noqa: BLE001 - raised again where changes are taken
        failure.append(error)

    async def again() -> AsyncIterator[ChangeLike]:
        for change in first:
            yield change
        for error in failure:
            raise error
        async for change in rest:
            yield change

    return _prepared(options, guess, again())


def _prepared(options: AdaptOptions, guess: TaskGuess, changes: Changes) -> Prepared[Changes]:
    found = guess.result()
    if found.doubtful:
        LOG.warning("%s", found.said(OVERRULED_BY))
    options = replace(options, task=options.task or found.task)
    return Prepared(options, changes, Conversion(options.task, found, checked=options.validate_only))


class _Look:
    """Looks at changes until these tell the task, within the limits of a look ahead."""

    def __init__(self, guess: TaskGuess) -> None:
        self._guess = guess
        self._ahead = LookAhead(_LOOK_CHANGES)

    @property
    def wanted(self) -> bool:
        """Whether to look at another change."""
        return self._ahead.within and (self._guess.open or not self._ahead.count)

    def at(self, change: ChangeLike) -> None:
        """Looks at a change."""
        value = change.input if isinstance(change, Example) else change
        self._ahead.at(value if isinstance(value, tuple) else (value,))
        self._guess.add(change)


def _require_own_ids(changes: Sequence[ChangeLike]) -> None:
    use = IdUse()
    first: dict[str, int] = {}
    conflict: tuple[int, int] | None = None
    for number, change in enumerate(changes):
        if isinstance(change, Delete):
            use.forget(change.id)
        elif isinstance(change, Example) and not is_missing(change.id):
            if use.add(change) is Use.OTHER_INPUT and conflict is None:
                conflict = (first[word_of(change.id)], number)
            first.setdefault(word_of(change.id), number)
    if conflict is not None:
        one, other = conflict
        raise ValueError(
            f"examples {one} and {other} have the same id and different inputs ({use.said('examples', 'inputs')}): "
            "each would replace the one before. Give each example an id of its own, or none; id_repeats='replace' "
            "lets later ones replace earlier ones."
        )


def _raising(error: Exception) -> Iterator[ChangeLike]:
    raise error
    yield  # so that it is raised when the first change is asked for
