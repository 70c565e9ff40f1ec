"""ModelService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from graft.v1 import model_pb2 as pb
from graft_server.api.models import ModelApi
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example
from graft_server.frontends.grpc.converters import models as answers
from graft_server.frontends.grpc.converters.requests import (
    candidates,
    evaluated_examples,
    examples_wanted,
    received_files,
    selector,
    suggestion_request,
)
from graft_server.frontends.grpc.converters.suggestions import suggest_response
from graft_server.frontends.grpc.errors import Context
from graft_server.frontends.grpc.handlers import takes
from graft_server.frontends.grpc.paging import page, page_request
from graft_server.frontends.grpc.sizes import MAX_LIST_BYTES, MAX_REQUEST_BYTES
from graft_server.frontends.grpc.times import keep_alive


class ModelService:
    """Implements graft.v1.ModelService."""

    def __init__(self, models: ModelApi) -> None:
        self._models = models

    async def ListModels(self, request: pb.ListModelsRequest, _: Context) -> pb.ListModelsResponse:
        """Lists models by name."""
        listed = self._models.list_models(request.prefix, page_request(request))
        models, token = await page(listed, answers.model)
        return pb.ListModelsResponse(models=models, next_page_token=token)

    async def GetModel(self, request: pb.GetModelRequest, _: Context) -> pb.GetModelResponse:
        """Describes one model."""
        found = await self._models.get_model(request.model)
        return pb.GetModelResponse(model=answers.model(found))

    async def ListVersions(self, request: pb.ListVersionsRequest, _: Context) -> pb.ListVersionsResponse:
        """Lists a model's versions, newest first."""
        listed = self._models.list_versions(request.model, page_request(request))
        versions, token = await page(listed, answers.version)
        return pb.ListVersionsResponse(versions=versions, next_page_token=token)

    async def GetVersion(self, request: pb.GetVersionRequest, _: Context) -> pb.GetVersionResponse:
        """Describes one version, with its full report."""
        found = await self._models.get_version(request.model, selector(request))
        return pb.GetVersionResponse(version=answers.version(found))

    async def UpdateModel(self, request: pb.UpdateModelRequest, _: Context) -> pb.UpdateModelResponse:
        """Sets and removes metadata."""
        updated = await self._models.update_model(
            request.model, dict(request.set_metadata), list(request.remove_metadata)
        )
        return pb.UpdateModelResponse(model=answers.model(updated))

    async def SetAlias(self, request: pb.SetAliasRequest, _: Context) -> pb.SetAliasResponse:
        """Points an alias at a version."""
        expected = request.expected_version if request.HasField("expected_version") else None
        moved = await self._models.set_alias(
            request.model, request.alias, request.version, expected, latest=request.latest
        )
        return pb.SetAliasResponse(model=answers.model(moved))

    async def DeleteVersion(self, request: pb.DeleteVersionRequest, _: Context) -> pb.DeleteVersionResponse:
        """Takes a version out of service."""
        await self._models.delete_version(request.model, request.version)
        return pb.DeleteVersionResponse()

    async def DeleteModel(self, request: pb.DeleteModelRequest, _: Context) -> pb.DeleteModelResponse:
        """Deletes a model with all its objects."""
        await self._models.delete_model(request.model)
        return pb.DeleteModelResponse()

    @takes(MAX_LIST_BYTES)
    async def ListExamples(self, request: pb.ListExamplesRequest, _: Context) -> pb.ListExamplesResponse:
        """Lists stored examples."""
        listed = self._models.list_examples(request.model, page_request(request), examples_wanted(request))
        with_inputs = request.include_inputs
        examples, token = await page(listed, lambda it: answers.stored_example(it, include_input=with_inputs))
        return pb.ListExamplesResponse(examples=examples, next_page_token=token)

    @takes(MAX_LIST_BYTES)
    async def DeleteExamples(
        self, request: pb.DeleteExamplesRequest, _: Context
    ) -> pb.DeleteExamplesResponse:
        """Erases examples for good."""
        erasure = await self._models.delete_examples(
            request.model, list(request.ids), request.subject, delete_versions=request.delete_versions
        )
        return answers.delete_examples_response(erasure)

    async def ExportModel(
        self, request: pb.ExportModelRequest, _: Context
    ) -> AsyncIterator[pb.ExportModelResponse]:
        """Streams a bundle."""
        export = self._models.export_model(
            request.model,
            selector(request),
            received_files(request),
            keep_alive_s=keep_alive(request.keep_alive, "keep_alive"),
        )
        async with aclosing(export) as chunks:
            async for chunk in chunks:
                yield answers.export_response(chunk)

    @takes(MAX_REQUEST_BYTES)
    async def EvaluateModel(
        self, requests: AsyncIterator[pb.EvaluateModelRequest], _: Context
    ) -> pb.EvaluateModelResponse:
        """Measures a version on examples that the client streams in."""
        first = await anext(requests, None)
        if first is None:
            raise InvalidError(
                "EvaluateModel got no message: the first names the model.",
                reason="MESSAGE_EMPTY",
                field="model",
            )
        batches = _batches(first, requests)
        evaluated = await self._models.evaluate_model(
            first.model, selector(first), batches, all_places=first.all_places
        )
        return answers.evaluate_response(evaluated)

    @takes(MAX_REQUEST_BYTES)
    async def SuggestExamples(
        self, requests: AsyncIterator[pb.SuggestExamplesRequest], _: Context
    ) -> pb.SuggestExamplesResponse:
        """Says which candidates are worth a label next."""
        first = await anext(requests, None)
        if first is None:
            raise InvalidError(
                "SuggestExamples got no message: the first names the model.",
                reason="MESSAGE_EMPTY",
                field="model",
            )
        suggested = await self._models.suggest_examples(
            first.model, selector(first), suggestion_request(first), _candidates(first, requests)
        )
        return await suggest_response(suggested)

    async def ListBackbones(self, _: pb.ListBackbonesRequest, __: Context) -> pb.ListBackbonesResponse:
        """Describes the backbones that this server has."""
        backbones = await self._models.list_backbones()
        return pb.ListBackbonesResponse(backbones=[answers.backbone(it) for it in backbones])


async def _candidates(
    first: pb.SuggestExamplesRequest, others: AsyncIterator[pb.SuggestExamplesRequest]
) -> AsyncIterator[Sequence[Example | InvalidError]]:
    """The candidates of each message."""
    yield candidates(first)
    async for request in others:
        yield candidates(request)


async def _batches(
    first: pb.EvaluateModelRequest, others: AsyncIterator[pb.EvaluateModelRequest]
) -> AsyncIterator[Sequence[Example | InvalidError]]:
    """The examples of each message."""
    yield evaluated_examples(first)
    async for request in others:
        yield evaluated_examples(request)
