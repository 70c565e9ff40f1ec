"""Messages that are converted when they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, TypeVar, overload

M = TypeVar("M")
T = TypeVar("T")


class Converted(Sequence[T], Generic[M, T]):
    """A sequence of messages as the domain's types, each converted when it is read.

    A request with too many of them is refused before any is converted, and a reader of slices
    also converts in slices.
    """

    def __init__(self, messages: Sequence[M], convert: Callable[[M, int], T], first: int = 0) -> None:
        """Converts each message with its place, which counts from `first`."""
        self._messages = messages
        self._convert = convert
        self._first = first

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...

    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        """The noun at a place; of a slice without a step, the nouns, not converted yet."""
        if isinstance(place, slice):
            start = range(len(self))[place].start
            return Converted(self._messages[place], self._convert, self._first + start)
        return self._convert(
            self._messages[place], self._first + (place if place >= 0 else len(self) + place)
        )


class ConvertedStream(AsyncIterator[T], Generic[M, T]):
    """A stream of messages as the domain's types. Neither a message nor its conversion is kept once it is delivered."""

    def __init__(self, messages: AsyncIterator[M], convert: Callable[[M], T]) -> None:
        self._messages = messages
        self._convert = convert

    async def __anext__(self) -> T:
        return self._convert(await anext(self._messages))
