"""The requests of each method of the clients, and the reading of their answers: everything but the I/O.

An operation is a generator. It yields the calls to make, is sent their responses (or their errors are raised in it),
and returns the result;
`Client` and `AsyncClient` each have one loop that makes the calls. So paging, chunking and parsing are
written once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from graft._records.inputs.examples import MAX_MESSAGE_BYTES, Input, TextPair, sendable_input, split_number
from graft._records.inputs.shapes import several_inputs
from graft._records.inputs.targets import is_missing
from graft._records.metadata import checked_metadata
from graft._records.predicting.predictions import Predictions, Timings, joined, predictions_of
from graft._records.records import (
    Adaptation,
    Backbone,
    CancelledAdaptation,
    Model,
    Version,
    adaptation_of,
    backbone_of,
    cancelled_of,
    model_of,
    version_of,
)
from graft._records.stored_examples import Erasure, StoredExample, stored_example_of
from graft._streams.limits import BATCH_BYTES, BATCH_EXAMPLES
from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2

T = TypeVar("T")

ADAPTATIONS: Final = "/graft.v1.AdaptationService/"
PREDICTIONS: Final = "/graft.v1.PredictionService/"
MODELS: Final = "/graft.v1.ModelService/"
_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"

MAX_LISTED_IDS: Final = 1_000
"""The most ids that a server takes in one ListExamples."""
MAX_INPUTS: Final = 10_000
"""The most inputs that a server takes in one Predict."""
_DEFAULT_TOP_K: Final = 5
# Answers stay below the servers' limit of 4 MiB: a score is about 30 bytes, features up to 16 KiB.
_MAX_SCORES: Final = 50_000
_MAX_FEATURE_ROWS: Final = 256
_MAX_REQUEST_BYTES: Final = MAX_MESSAGE_BYTES // 2
BULK_INPUTS: Final = 128
"""Inputs of one request in bulk prediction: several of the server's batches, so that none waits for the client."""
_PAGE_SIZE: Final = 200
# A tag and a length before each message inside another.
_FRAME_BYTES: Final = 8

_SERVING: Final = {0: "unknown", 1: "serving", 2: "not_serving", 3: "service_unknown"}


@dataclass(frozen=True, slots=True)
class Call:
    """One unary call to make."""

    path: str
    """The method's full name, "/package.Service/Method"."""
    request: Message
    """The request."""
    response: type[Message]
    """The type of the response."""


HEALTH_CALL: Final = Call(_HEALTH_CHECK, StringValue(), Int32Value)
"""The request for the health of the server as a whole."""

Operation: TypeAlias = Generator[Call, Any, T]


@dataclass(frozen=True, slots=True)
class Selector:
    """Selects a model's version by number, by alias, or (all unset) by the alias "live".

    Or selects the interim head of an open adaptation.
    """

    version: int | None = None
    alias: str | None = None
    adaptation_id: str | None = None

    def __post_init__(self) -> None:
        if self.adaptation_id is not None and (self.version is not None or self.alias is not None):
            raise ValueError(
                f"give an adaptation_id ({self.adaptation_id!r}), a version or an alias, not several"
            )
        if self.version is not None and self.alias is not None:
            raise ValueError(f"give a version ({self.version}) or an alias ({self.alias!r}), not both")

    def fields(self) -> dict[str, Any]:
        """Returns the fields of a request for the selection."""
        if self.version is not None:
            return {"version": self.version}
        if self.adaptation_id is not None:
            return {"adaptation_id": self.adaptation_id}
        return {} if self.alias is None else {"alias": self.alias}


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """The common settings of all requests of one prediction."""

    model: str
    selector: Selector
    top_k: int
    include_features: bool
    chunk_size: int = BULK_INPUTS

    def __post_init__(self) -> None:
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size is {self.chunk_size}; it must be 1 or more")

    @property
    def max_inputs(self) -> int:
        """The most inputs in one request, so that its answer stays small."""
        if self.include_features:
            return _MAX_FEATURE_ROWS
        return max(1, min(MAX_INPUTS, _MAX_SCORES // max(1, self.top_k or _DEFAULT_TOP_K)))

    @property
    def bulk_inputs(self) -> int:
        """The inputs in one request of a bulk prediction."""
        return min(self.chunk_size, self.max_inputs)

    def request(
        self, inputs: list[types_pb2.Input], selector: Selector | None = None
    ) -> prediction_pb2.PredictRequest:
        """The request for some of the inputs."""
        return prediction_pb2.PredictRequest(
            model=self.model,
            inputs=inputs,
            top_k=self.top_k,
            include_features=self.include_features,
            **(selector or self.selector).fields(),
        )


def predict(settings: PredictSettings, inputs: Input | Iterable[Input]) -> Operation[Predictions]:
    """Sends as many requests as needed, none without inputs; the version that answers the first one answers all."""
    parts: list[Predictions] = []
    selector = settings.selector
    for chunk in _input_chunks(inputs, settings.max_inputs):
        request = settings.request(chunk, selector)
        response = yield Call(PREDICTIONS + "Predict", request, prediction_pb2.PredictResponse)
        parts.append(predictions_of(response))
        if parts[-1].version:
            selector = Selector(version=parts[-1].version)
    if not parts:
        return Predictions([], settings.model, selector.version or 0, Timings(0.0, 0.0, 0.0, 0.0))
    return parts[0] if len(parts) == 1 else joined(parts, settings.model)


def bulk_requests(
    settings: PredictSettings, inputs: Input | Iterable[Input]
) -> Iterator[prediction_pb2.PredictRequest]:
    """Yields the requests of a bulk prediction, in order, as the inputs arrive."""
    for chunk in _input_chunks(inputs, settings.bulk_inputs):
        yield settings.request(chunk)


def _pages(method: str, request: Any, response: type[Message]) -> Operation[list[Any]]:
    """All pages of a list: the server gives each page the token of the next."""
    pages: list[Any] = []
    request.page_size = _PAGE_SIZE
    while not pages or pages[-1].next_page_token:
        wanted = type(request)()
        wanted.CopyFrom(request)  # a call may be sent again, so its request must not change
        wanted.page_token = pages[-1].next_page_token if pages else ""
        pages.append((yield Call(method, wanted, response)))
    return pages


def list_models(prefix: str) -> Operation[list[Model]]:
    """All models whose name starts with `prefix`."""
    request = model_pb2.ListModelsRequest(prefix=prefix)
    pages = yield from _pages(MODELS + "ListModels", request, model_pb2.ListModelsResponse)
    return [model_of(model) for page in pages for model in page.models]


def get_model(model: str) -> Operation[Model]:
    """One model."""
    request = model_pb2.GetModelRequest(model=model)
    response = yield Call(MODELS + "GetModel", request, model_pb2.GetModelResponse)
    return model_of(response.model)


def list_versions(model: str) -> Operation[list[Version]]:
    """All versions of a model, newest first."""
    request = model_pb2.ListVersionsRequest(model=model)
    pages = yield from _pages(MODELS + "ListVersions", request, model_pb2.ListVersionsResponse)
    return [version_of(version) for page in pages for version in page.versions]


def get_version(model: str, selector: Selector) -> Operation[Version]:
    """One version with its full report."""
    request = model_pb2.GetVersionRequest(model=model, **selector.fields())
    response = yield Call(MODELS + "GetVersion", request, model_pb2.GetVersionResponse)
    return version_of(response.version)


def set_metadata(model: str, metadata: Mapping[str, str | None]) -> Operation[Model]:
    """Sets and removes pairs of a model's metadata."""
    named = checked_metadata(metadata, removable=True)
    request = model_pb2.UpdateModelRequest(
        model=model,
        set_metadata={key: value for key, value in named.items() if value is not None},
        remove_metadata=[key for key, value in named.items() if value is None],
    )
    response = yield Call(MODELS + "UpdateModel", request, model_pb2.UpdateModelResponse)
    return model_of(response.model)


def set_alias(model: str, alias: str, version: int | str, expected_version: int | None) -> Operation[Model]:
    """Points an alias at a version.

    Raises:
        ValueError: The version is a text other than "latest".
    """
    if isinstance(version, str) and version != "latest":
        raise ValueError(f"version is {version!r}; give a number, or 'latest'")
    request = model_pb2.SetAliasRequest(
        model=model,
        alias=alias,
        version=0 if isinstance(version, str) else version,
        expected_version=expected_version,
        latest=isinstance(version, str),
    )
    response = yield Call(MODELS + "SetAlias", request, model_pb2.SetAliasResponse)
    return model_of(response.model)


def delete_version(model: str, version: int) -> Operation[None]:
    """Deletes a version."""
    request = model_pb2.DeleteVersionRequest(model=model, version=version)
    yield Call(MODELS + "DeleteVersion", request, model_pb2.DeleteVersionResponse)


def delete_model(model: str) -> Operation[None]:
    """Deletes a model."""
    request = model_pb2.DeleteModelRequest(model=model)
    yield Call(MODELS + "DeleteModel", request, model_pb2.DeleteModelResponse)


def list_examples(
    request: model_pb2.ListExamplesRequest, ids: Iterable[str] | None
) -> Operation[list[StoredExample]]:
    """Lists stored examples of a model.

    Args:
        request: The model, and which of its examples.
        ids: Only those with these ids, any number; None: all.
    """
    named = [""] if ids is None else list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
    found: list[StoredExample] = []
    for start in range(0, len(named), MAX_LISTED_IDS):
        request.ids[:] = [] if ids is None else named[start : start + MAX_LISTED_IDS]
        pages = yield from _pages(MODELS + "ListExamples", request, model_pb2.ListExamplesResponse)
        found += [stored_example_of(example) for page in pages for example in page.examples]
    return found


def examples_request(
    model: str,
    *,
    adaptation_id: str = "",
    subject: str = "",
    version: int | None = None,
    label: str = "",
    split: str = "",
    include_inputs: bool = False,
) -> model_pb2.ListExamplesRequest:
    """The request for some of a model's examples.

    Raises:
        ValueError: The split is none.
    """
    return model_pb2.ListExamplesRequest(
        model=model,
        adaptation_id=adaptation_id,
        subject=subject,
        version=version or 0,
        label=label,
        split=split_number(split),
        include_inputs=include_inputs,
    )


def delete_examples(
    model: str, ids: Iterable[str], subject: str, *, delete_versions: bool
) -> Operation[Erasure]:
    """Erases examples for good."""
    request = model_pb2.DeleteExamplesRequest(
        model=model,
        ids=[ids] if isinstance(ids, str) else ids,
        subject=subject,
        delete_versions=delete_versions,
    )
    response = yield Call(MODELS + "DeleteExamples", request, model_pb2.DeleteExamplesResponse)
    return Erasure(
        erased=response.erased,
        affected_versions=tuple(response.affected_versions),
        deleted_versions=tuple(response.deleted_versions),
    )


def list_backbones() -> Operation[list[Backbone]]:
    """The server's backbones."""
    request = model_pb2.ListBackbonesRequest()
    response = yield Call(MODELS + "ListBackbones", request, model_pb2.ListBackbonesResponse)
    return [backbone_of(backbone) for backbone in response.backbones]


def get_adaptation(model: str, adaptation_id: str) -> Operation[Adaptation]:
    """One adaptation."""
    request = adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id=adaptation_id)
    response = yield Call(ADAPTATIONS + "GetAdaptation", request, adaptation_pb2.GetAdaptationResponse)
    return adaptation_of(response.adaptation)


def list_adaptations(model: str) -> Operation[list[Adaptation]]:
    """All adaptations of a model, newest first."""
    request = adaptation_pb2.ListAdaptationsRequest(model=model)
    pages = yield from _pages(
        ADAPTATIONS + "ListAdaptations", request, adaptation_pb2.ListAdaptationsResponse
    )
    return [adaptation_of(adaptation) for page in pages for adaptation in page.adaptations]


def cancel_adaptation(model: str, adaptation_id: str) -> Operation[CancelledAdaptation]:
    """Stops an adaptation's work."""
    request = adaptation_pb2.CancelAdaptationRequest(model=model, adaptation_id=adaptation_id)
    response = yield Call(ADAPTATIONS + "CancelAdaptation", request, adaptation_pb2.CancelAdaptationResponse)
    return cancelled_of(response)


def check_health(service: str) -> Operation[str]:
    """Whether a service is being served.

    grpc.health.v1 has one string in and one enum out, both in field 1; the well-known wrappers are the same
    on the wire, and spare callers a package.
    """
    response = yield replace(HEALTH_CALL, request=StringValue(value=service))
    return _SERVING.get(response.value, str(response.value))


class Batcher(Generic[T]):
    """Collects items in lists of at most `count` items and `size` bytes; a single item may be larger."""

    def __init__(self, size_of: Callable[[T], int], count: int, size: int) -> None:
        self._size_of = size_of
        self._count = count
        self._size = size
        self._batch: list[T] = []
        self._batch_size = 0

    def add(self, item: T) -> list[T]:
        """Takes an item and returns the batch that it completes, or an empty one."""
        item_size = self._size_of(item)
        full: list[T] = []
        if self._batch and (len(self._batch) >= self._count or self._batch_size + item_size > self._size):
            full = self.take()
        self._batch.append(item)
        self._batch_size += item_size
        return full

    def take(self) -> list[T]:
        """Returns the items so far."""
        batch, self._batch, self._batch_size = self._batch, [], 0
        return batch


def input_batcher(count: int) -> Batcher[types_pb2.Input]:
    """Gathers inputs into requests."""
    return Batcher(lambda message: message.ByteSize() + _FRAME_BYTES, count, _MAX_REQUEST_BYTES)


def example_batcher() -> Batcher[types_pb2.Example]:
    """Gathers examples into the messages of an evaluation."""
    return Batcher(lambda message: message.ByteSize() + _FRAME_BYTES, BATCH_EXAMPLES, BATCH_BYTES)


def evaluate_request(model: str, version: int, *, all_places: bool) -> model_pb2.EvaluateModelRequest:
    """The first message of an evaluation of a version."""
    return model_pb2.EvaluateModelRequest(model=model, all_places=all_places, **Selector(version).fields())


def batched(items: Iterable[T], batcher: Batcher[T]) -> Iterator[list[T]]:
    """Yields the items in batches, as they arrive."""
    for item in items:
        if full := batcher.add(item):
            yield full
    if rest := batcher.take():
        yield rest


def numbered_input_message(number: int, value: object) -> types_pb2.Input:
    """The protobuf form of input `number`, counted from 0 in errors.

    One that is missing is a text without a character, which the server refuses alone.
    """
    try:
        return sendable_input("" if is_missing(value) else value)
    except TypeError as error:
        raise TypeError(f"input {number}: {error}") from None
    except ValueError as error:
        raise ValueError(f"input {number}: {error}") from None


def several(inputs: Input | Iterable[Input]) -> Iterable[Input]:
    """Returns the inputs as a sequence; a single text is one input, not an iterable of letters.

    Raises:
        TypeError: They have a shape that is not read; see `several_inputs`.
    """
    if isinstance(inputs, str | TextPair | bytes | bytearray | memoryview | os.PathLike):
        return [cast("Input", inputs)]
    return several_inputs(inputs)


def _input_chunks(inputs: Input | Iterable[Input], count: int) -> Iterator[list[types_pb2.Input]]:
    messages = (numbered_input_message(number, value) for number, value in enumerate(several(inputs)))
    return batched(messages, input_batcher(count))
