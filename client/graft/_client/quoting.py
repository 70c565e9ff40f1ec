"""Joins what a report names with the examples themselves, for whoever may read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from graft._client.operations import (
    MAX_LISTED_IDS,
    MODELS,
    Call,
    Operation,
    Selector,
    examples_request,
    get_version,
    list_examples,
)
from graft._records.evaluation.probable_errors import ProbableError, probable_errors
from graft._records.evaluation.quotes import Quote, Quotes, quote_of
from graft._records.evaluation.reports import Report
from graft._records.records import Version
from graft._records.stored_examples import StoredExample, stored_example_of
from graft.errors import GraftError
from graft.v1 import model_pb2

_QUOTED_BYTES: Final = 24 * 1024 * 1024
"""Of inputs that are read for one report; of examples beyond that only where they came from is shown."""


def get_quoted(model: str, selector: Selector) -> Operation[Version]:
    """A version whose report has quotes of the examples that it names, as far as they may be read."""
    version = yield from get_version(model, selector)
    quotes = yield from _quotes(version.model, version.version, list(dict.fromkeys(_named(version.report))))
    return replace(version, report=replace(version.report, quotes=quotes))


def _named(report: Report) -> Iterator[str]:
    """The ids of the examples that a report names, those that a person should look at first."""
    data = report.data
    if data is None:
        return
    yield from (error.example.id for error in data.label_errors)
    groups = (data.conflicts, data.validation_copy_pairs, data.near_duplicate_pairs, data.duplicate_groups)
    for group in (*groups, () if report.look_alikes is None else report.look_alikes.largest):
        yield from (example.id for one in group for example in one.examples)


def _quotes(model: str, number: int, ids: list[str]) -> Operation[Quotes]:
    found: dict[str, Quote] = {}
    left = _QUOTED_BYTES
    try:
        for start in range(0, len(ids), MAX_LISTED_IDS):
            chunk = ids[start : start + MAX_LISTED_IDS]
            while chunk and left > 0:
                page = yield from _page(model, number, chunk, inputs=True)
                left -= page.ByteSize()
                # Each page is asked for anew, without what is there already: the order of ids is that of need.
                chunk = _taken(page, found, chunk)
            while chunk:
                page = yield from _page(model, number, chunk, inputs=False)
                chunk = _taken(page, found, chunk)
    except GraftError as error:
        return Quotes(reason=error.message)
    return Quotes(found, missing=len(set(ids) - found.keys()))


def _page(
    model: str, number: int, ids: list[str], *, inputs: bool
) -> Operation[model_pb2.ListExamplesResponse]:
    request = examples_request(model, version=number, include_inputs=inputs)
    request.ids.extend(ids)
    request.page_size = MAX_LISTED_IDS
    page: model_pb2.ListExamplesResponse = yield Call(
        MODELS + "ListExamples", request, model_pb2.ListExamplesResponse
    )
    return page


def _taken(page: model_pb2.ListExamplesResponse, found: dict[str, Quote], ids: list[str]) -> list[str]:
    """Takes in a page, and returns the ids that further pages have; none after the last one."""
    for message in page.examples:
        stored = stored_example_of(message)
        found[stored.id] = quote_of(stored.input, stored.origin, confirmed=stored.confirmed)
    return [it for it in ids if it not in found] if page.next_page_token else []


def get_probable_errors(
    model: str, selector: Selector, *, include_inputs: bool
) -> Operation[list[ProbableError]]:
    """The examples of a version whose label is worth a second look."""
    version = yield from get_version(model, selector)
    data = version.report.data
    ids = [] if data is None else [error.example.id for error in data.label_errors]
    request = examples_request(model, version=version.version, include_inputs=include_inputs)
    examples = yield from list_examples(request, ids)
    return errors_among(version, examples)


def errors_among(version: Version, examples: list[StoredExample]) -> list[ProbableError]:
    """A version's probable errors, of which these are the examples."""
    data = version.report.data
    found = {it.id: it for it in examples}
    return (
        [] if data is None else probable_errors(data.label_errors, found, [it.name for it in version.labels])
    )
