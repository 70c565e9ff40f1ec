"""What a caller hands in, as examples or inputs in their order: pairs, iterables of them, and tables."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from graft._client import operations as ops
from graft._records.adapting.told import AdaptResult, CheckResult
from graft._records.evaluation.evaluations import EvaluationRejection, EvaluationResult
from graft._records.inputs.examples import Input
from graft._records.inputs.shapes import is_array, several_examples
from graft._records.predicting.predictions import Prediction, Predictions
from graft._streams.look_ahead import LookAhead
from graft._tables.options import Asked, InputColumns, as_arguments, asked_of
from graft._tables.reading import TableExamples, TableInputs, TableRows
from graft._tables.sources import Records, Source, mapping_of, row_of, source_of
from graft.errors import GraftError, InvalidArgumentError, Rejection

_ROW_UNUSABLE: Final = "ROW_UNUSABLE"
"""The reason of a row that the client refuses."""
_LOOK_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True)
class GivenExamples:
    """Examples in their order, and the table that they come from, if they do."""

    changes: Any
    """The examples: an iterable, or of the asyncio client one that comes asynchronously."""
    task: str
    """The task, as it was named, or as a table tells; "" if nothing tells."""
    table: TableExamples | None = None
    """The table."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found in the table, in sentences."""
        return self.table.notes if self.table is not None else ()

    def adapted(self, result: AdaptResult, first_sequence: int) -> AdaptResult:
        """The result of an adaptation, with the rows of what was refused.

        Args:
            result: The result.
            first_sequence: The number of the first example in the writer's stream.
        """
        rejected = self.placed(result.rejected, first_sequence)
        return replace(result, rejected=rejected, notices=(*self.notes, *result.notices))

    @contextmanager
    def placing(self, first_sequence: Callable[[], int]) -> Iterator[None]:
        """Has an error name the rows of what was refused; `first_sequence` gives that of the first example."""
        try:
            yield
        except GraftError as error:
            error.rejections = self.placed(error.rejections, first_sequence())
            raise

    def checked(self, result: CheckResult) -> CheckResult:
        """The result of a check, with the rows of what would be refused."""
        return replace(
            result, rejected=self.placed(result.rejected, 0), notices=(*self.notes, *result.notices)
        )

    def placed(self, rejected: Iterable[Rejection], first_sequence: int) -> tuple[Rejection, ...]:
        """Rejections with their rows, and with the reasons of the rows that the client refused."""
        if self.table is None:
            return tuple(rejected)
        return tuple(self._placed(self.table, it, it.sequence - first_sequence) for it in rejected)

    def _placed(self, table: TableRows, rejection: Rejection, index: int) -> Rejection:
        if index < 0:
            return rejection
        rejection = replace(rejection, row=index, origin=table.place(index))
        if (refused := table.refused.get(index)) is None:
            return rejection
        return replace(rejection, reason=_ROW_UNUSABLE, field="", detail=as_arguments(refused.reason))

    def evaluated(self, result: EvaluationResult) -> EvaluationResult:
        """The result of an evaluation, with the rows of what was refused."""
        if (table := self.table) is None:
            return result

        def placed(it: EvaluationRejection) -> EvaluationRejection:
            refused = table.refused.get(it.index)
            found = replace(it, origin=table.place(it.index))
            return (
                found
                if refused is None
                else replace(found, reason=_ROW_UNUSABLE, detail=as_arguments(refused.reason))
            )

        return replace(result, rejected=tuple(map(placed, result.rejected)))


@dataclass(frozen=True, slots=True)
class Opened:
    """What a caller hands in for examples, before anything of it is taken."""

    given: Any
    """What was handed in."""
    asked: Asked
    """What the caller says of a table's columns."""
    source: Source | None
    """The table that it is; None for anything else, and for an iterable, which may bring rows."""
    method: str
    """The client's method, for messages."""

    def examples(self, *, task: str = "", id_repeats: str = "", checked: bool = False) -> GivenExamples:
        """The examples; a table is looked at.

        Args:
            task: The task that the caller names; "" for none.
            id_repeats: As for `adapt`.
            checked: Whether ids that lose rows are only told.

        Raises:
            DataError: The table has no such column.
            TypeError: Columns are named of what is no table.
            ValueError: Ids stand for several rows, and nothing allows that.
        """
        source, changes = self.source, self.given
        if source is None:
            if is_array(changes) and changes.ndim == 2 and changes.shape[1] == 2:
                changes = changes.tolist()
            if isinstance(changes, AsyncIterable) or (
                isinstance(changes, list | tuple) and not self.asked.named
            ):
                return GivenExamples(changes, task)
            first, rest = _with_first(changes)
            if first is None or mapping_of(first) is None:
                _refuse_columns(self.asked, changes, self.method)
                return GivenExamples(rest, task)
            source = Records(self.name, rest, whole=False)
        table = TableExamples(source, self.asked, task=task, id_repeats=id_repeats, checked=checked)
        return GivenExamples(table, table.task, table)

    async def coming(self, *, task: str = "", id_repeats: str = "", checked: bool = False) -> GivenExamples:
        """The same of examples that may come asynchronously."""
        if not isinstance(self.given, AsyncIterable):
            return self.examples(task=task, id_repeats=id_repeats, checked=checked)
        coming = aiter(self.given)
        first = [item async for item in _taken(coming, 1)]
        if not first or mapping_of(first[0]) is None:
            _refuse_columns(self.asked, self.given, self.method)
            return GivenExamples(_chained(first, coming), task)
        ahead = LookAhead(_LOOK_ROWS)
        async for item in coming:
            first.append(item)
            ahead.at([item])
            if not ahead.within:
                break
        rows = Records(self.name, first, whole=False)
        table = TableExamples(rows, self.asked, task=task, id_repeats=id_repeats, checked=checked)

        async def examples() -> AsyncIterator[Any]:
            for row in table.rows():
                yield table.example(row)
            position = len(first)
            async for item in coming:
                yield table.example(row_of(self.name, position, item))
                position += 1
            table.end()

        return GivenExamples(examples(), table.task, table)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the {type(self.given).__name__}"


def opened(given: Any, columns: Mapping[str, Any], method: str) -> Opened:
    """What a caller hands in for examples.

    Args:
        given: Pairs, `Example`s and `Delete`s, or a table.
        columns: What the caller says of a table's columns.
        method: The client's method, for messages.

    Raises:
        DataError: It is a table that cannot be read.
        TypeError: It is neither examples nor a table, or an argument names no column.
    """
    asked = asked_of(columns, method)
    source = source_of(given, named=asked.named)
    return Opened(given if source is not None else several_examples(given), asked, source, method)


class GivenInputs:
    """Inputs in their order, of whatever shape they are given in, and what was refused of a table."""

    def __init__(
        self, given: Any, columns: Mapping[str, Any], method: str, *, asynchronous: bool = False
    ) -> None:
        """Begins; nothing is taken.

        Args:
            given: What the caller hands in.
            columns: What the caller says of a table's columns.
            method: The client's method, for messages.
            asynchronous: Whether they may come asynchronously.

        Raises:
            DataError: A table has no such column.
            TypeError: They have a shape that is not read, or an argument names no column.
        """
        self._given = given
        self._method = method
        self._asked = asked_of(columns, method, InputColumns.__annotations__)
        self._table: TableInputs | None = None
        self._inputs: Iterable[Any] = ()
        if asynchronous and isinstance(given, AsyncIterable):
            return
        one = isinstance(given, str | os.PathLike)  # a text or the path of an image, not of a table
        source = None if one else source_of(given, named=self._asked.named)
        if source is not None:
            self._table = TableInputs(source, self._asked)
        else:
            self._inputs = ops.several(given)

    def __iter__(self) -> Iterator[Input]:
        """The inputs. Mappings, of which an iterable has the first, are rows of a table."""
        if self._table is None:
            first, rest = _with_first(self._inputs)
            if first is None or mapping_of(first) is None:
                _refuse_columns(self._asked, self._given, self._method)
                yield from rest
                return
            self._table = TableInputs(Records(self._name, rest, whole=False), self._asked)
        yield from self._table

    async def coming(self) -> AsyncIterator[Input]:
        """The inputs, of an iterable that comes asynchronously or not."""
        if not isinstance(self._given, AsyncIterable):
            for value in self:
                yield value
            return
        position = 0
        async for item in self._given:
            if not position and mapping_of(item) is not None:
                self._table = TableInputs(Records(self._name, (), whole=False), self._asked)
            elif not position:
                _refuse_columns(self._asked, self._given, self._method)
            yield item if self._table is None else self._table.input(row_of(self._name, position, item))
            position += 1
        if self._table is not None:
            self._table.end()

    @property
    def _name(self) -> str:
        return f"the {type(self._given).__name__}"

    def answered(self, predictions: Predictions) -> Predictions:
        """Predictions, with the reasons of the rows that the client refused."""
        for index in self._table.refused if self._table is not None else ():
            predictions[index] = self.answer(index, predictions[index])
        return predictions

    def answer(self, index: int, prediction: Prediction) -> Prediction:
        """The answer for the input with this number, from 0."""
        refused = self._table.refused.get(index) if self._table is not None else None
        return (
            prediction
            if refused is None
            else replace(prediction, error=InvalidArgumentError(as_arguments(str(refused))))
        )


def _with_first(items: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """The first of some items, None if there is none, and all of them; what it raises is raised where all are taken."""
    rest = iter(items)
    try:
        first = list(itertools.islice(rest, 1))
    except Exception as error:  # noqa: BLE001 - raised again where items are taken
        return None, _raising(error)
    return (first[0] if first else None), itertools.chain(first, rest)


def _raising(error: Exception) -> Iterator[Any]:
    raise error
    yield  # so that it is raised when the first item is asked for


def _refuse_columns(asked: Asked, given: Any, method: str) -> None:
    """Refuses arguments that name columns where there are none."""
    if asked.named:
        kind = type(given).__name__
        raise TypeError(
            f"{method}() was told which columns hold what, but the {kind} is no table: give a data frame, an Arrow "
            "table, a split of a data set, or rows as dicts"
        )


async def _taken(items: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        try:
            yield await anext(items)
        except StopAsyncIteration:
            return


async def _chained(first: list[Any], rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    for item in first:
        yield item
    async for item in rest:
        yield item
