"""ModelService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from graft.v1 import model_pb2 as pb
from graft.v1 import types_pb2
from graft_server.adapting.adaptations import Adaptations
from graft_server.adapting.intake.targets import TargetRules
from graft_server.adapting.intake.validation import check_input, check_weight
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example
from graft_server.domain.model import BundleFile
from graft_server.domain.names import check_alias, check_model
from graft_server.domain.report import Measured
from graft_server.encoding.trunks import Trunks
from graft_server.erasing.deletion import Deletion
from graft_server.exporting.exporter import Exporter
from graft_server.frontends.grpc.converters import answers
from graft_server.frontends.grpc.converters.enums import TASK_MESSAGES
from graft_server.frontends.grpc.converters.reports import filled
from graft_server.frontends.grpc.converters.requests import labelled, selector
from graft_server.frontends.grpc.errors import Context
from graft_server.frontends.grpc.paging import MAX_BYTES, Page, bad_token, page_size, window
from graft_server.serving.evaluator import Evaluator
from graft_server.serving.predictor import Predictor
from graft_server.serving.versions import Versions
from graft_server.store.catalogue.catalogue import Catalogue

CHUNK_BYTES = 1 << 20
MAX_EXAMPLES = 10_000
MAX_REJECTIONS = 100
MAX_CLASS_REPORTS = 2_000


@dataclass(frozen=True, slots=True)
class ModelService:
    """Implements graft.v1.ModelService."""

    catalogue: Catalogue
    versions: Versions
    predictor: Predictor
    trunks: Trunks
    exporter: Exporter
    adaptations: Adaptations
    deletion: Deletion

    async def ListModels(self, request: pb.ListModelsRequest, _: Context) -> pb.ListModelsResponse:
        """Lists models by name."""
        models = self.catalogue.snapshot.models
        names = sorted(name for name in models if name.startswith(request.prefix))
        places, page = window(len(names), request.page_size, request.page_token), Page[pb.Model]()
        for place in places:
            if not page.add(answers.model(models[names[place]])):
                break
        return pb.ListModelsResponse(models=page.entries, next_page_token=page.token(places, len(names)))

    async def GetModel(self, request: pb.GetModelRequest, _: Context) -> pb.GetModelResponse:
        """Describes one model."""
        known = self.catalogue.snapshot.model(check_model(request.model))
        return pb.GetModelResponse(model=answers.model(known))

    async def ListVersions(self, request: pb.ListVersionsRequest, _: Context) -> pb.ListVersionsResponse:
        """Lists a model's versions, newest first."""
        known = self.catalogue.snapshot.model(check_model(request.model))
        newest_first = sorted(known.versions.values(), key=lambda version: -version.number)
        count = len(newest_first)
        places, page = window(count, request.page_size, request.page_token), Page[pb.Version]()
        for place in places:
            if not page.add(answers.version(newest_first[place], known)):
                break
        return pb.ListVersionsResponse(versions=page.entries, next_page_token=page.token(places, count))

    async def GetVersion(self, request: pb.GetVersionRequest, _: Context) -> pb.GetVersionResponse:
        """Describes one version, with its full report."""
        version = self.versions.resolve(request.model, selector(request))
        manifest, report = await self.versions.report(version)
        message = answers.version(version, self.catalogue.snapshot.model(version.model), report)
        message.labels.extend(answers.labels(manifest.labels))
        return pb.GetVersionResponse(version=message)

    async def SetAlias(self, request: pb.SetAliasRequest, _: Context) -> pb.SetAliasResponse:
        """Points an alias at a version."""
        check_model(request.model)
        check_alias(request.alias)
        expected = request.expected_version if request.HasField("expected_version") else None
        if request.version:
            # Loaded before it is promoted, so that nobody waits, and nothing broken is promoted.
            known = self.catalogue.snapshot.model(request.model)
            await self.versions.serve(known.version(request.version))
        moved = await asyncio.to_thread(
            self.catalogue.move_alias, request.model, request.alias, request.version, expected
        )
        return pb.SetAliasResponse(model=answers.model(moved))

    async def DeleteVersion(self, request: pb.DeleteVersionRequest, _: Context) -> pb.DeleteVersionResponse:
        """Takes a version out of service."""
        await self.deletion.version(check_model(request.model), request.version)
        return pb.DeleteVersionResponse()

    async def DeleteModel(self, request: pb.DeleteModelRequest, _: Context) -> pb.DeleteModelResponse:
        """Deletes a model with all that belongs to it."""
        await self.deletion.model(check_model(request.model), stop=self.adaptations.follow)
        return pb.DeleteModelResponse()

    async def ListExamples(self, request: pb.ListExamplesRequest, _: Context) -> pb.ListExamplesResponse:
        """Lists stored examples."""
        wanted = page_size(request.page_size)
        found = await self.adaptations.examples(
            request.model, request.adaptation_id, request.subject, _place(request.page_token)
        )
        page = Page[pb.StoredExample]()

        def fill() -> str:
            for it in found:
                if len(page.entries) == wanted or page.bytes >= MAX_BYTES:
                    return f"{it.adaptation_id}/{it.writer_id}/{it.sequence}"
                page.add(answers.stored_example(it, include_input=request.include_inputs))
            return ""

        token = await asyncio.to_thread(fill)
        return pb.ListExamplesResponse(examples=page.entries, next_page_token=token)

    async def DeleteExamples(
        self, request: pb.DeleteExamplesRequest, _: Context
    ) -> pb.DeleteExamplesResponse:
        """Erases examples for good."""
        check_model(request.model)
        _require_some(request)
        # Once begun it is carried through, also if the caller leaves.
        erasing = self.deletion.examples(
            request.model,
            list(request.ids),
            request.subject,
            delete_versions=request.delete_versions,
            forget=self.adaptations.follow,
        )
        erasure = await asyncio.shield(asyncio.ensure_future(erasing))
        return pb.DeleteExamplesResponse(
            erased=erasure.examples,
            affected_versions=erasure.affected,
            deleted_versions=erasure.deleted,
        )

    async def ExportModel(
        self, request: pb.ExportModelRequest, _: Context
    ) -> AsyncIterator[pb.ExportModelResponse]:
        """Streams a bundle."""
        version = self.versions.resolve(request.model, selector(request))
        served = await self.versions.serve(version)
        async with self.exporter.bundle(version, served.trunk, served.manifest.below) as files:
            for file in files:
                async for response in _chunks(file):
                    yield response

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
        version = self.versions.resolve(first.model, selector(first))
        served = await self.versions.serve(version)
        evaluator = Evaluator(self.predictor, served)
        response = pb.EvaluateModelResponse(model=version.model, version=version.number)
        place = await _evaluate(evaluator, first, 0, response)
        async for request in requests:
            place = await _evaluate(evaluator, request, place, response)
        return _measured(await evaluator.measure(), response)

    async def ListBackbones(self, _: pb.ListBackbonesRequest, __: Context) -> pb.ListBackbonesResponse:
        """Describes the backbones that this server has."""
        return pb.ListBackbonesResponse(
            backbones=[answers.backbone(trunk, trunk.name == self.trunks.default) for trunk in self.trunks]
        )


def _place(token: str) -> tuple[str, str, int] | None:
    """Where a page of examples begins: adaptation, writer and sequence."""
    if not token:
        return None
    match token.split("/"):
        case [adaptation_id, writer_id, sequence] if sequence.isascii() and sequence.isdigit():
            return adaptation_id, writer_id, int(sequence)
    raise bad_token(token)


def _require_some(request: pb.DeleteExamplesRequest) -> None:
    if not request.ids and not request.subject:
        raise InvalidError(
            "Neither ids nor subject is set: say which examples to erase.",
            reason="EXAMPLES_UNNAMED",
            field="ids",
        )
    if len(request.ids) > MAX_EXAMPLES:
        raise InvalidError(
            f"ids has {len(request.ids):,} entries: at most {MAX_EXAMPLES:,} a request are accepted.",
            reason="TOO_MANY_EXAMPLES",
            field="ids",
        )
    if "" in request.ids:
        raise InvalidError(
            "ids has an empty entry: name the examples to erase.", reason="ID_EMPTY", field="ids"
        )


async def _chunks(file: BundleFile) -> AsyncIterator[pb.ExportModelResponse]:
    with file.place.open("rb") as opened:
        while True:
            chunk = await asyncio.to_thread(opened.read, CHUNK_BYTES)
            # An empty file is told by one empty chunk.
            if chunk or not file.size:
                yield pb.ExportModelResponse(path=file.path, size=file.size, sha256=file.sha256, chunk=chunk)
            if len(chunk) < CHUNK_BYTES:
                return


async def _evaluate(
    evaluator: Evaluator, request: pb.EvaluateModelRequest, place: int, response: pb.EvaluateModelResponse
) -> int:
    """Takes in one message's examples, the first of which is the stream's number `place`."""
    if len(request.examples) > MAX_EXAMPLES:
        raise InvalidError(
            f"examples has {len(request.examples):,} entries: at most {MAX_EXAMPLES:,} a message are accepted.",
            reason="TOO_MANY_EXAMPLES",
            field="examples",
        )
    targets = TargetRules(evaluator.task)
    examples: list[Example] = []
    places: list[int] = []
    for index, message in enumerate(request.examples, place):
        try:
            examples.append(_labelled(message, targets))
        except InvalidError as error:
            _reject(response, index, error)
        else:
            places.append(index)
    found = await evaluator.add(examples)
    for index, wrong in zip(places, found, strict=True):
        if wrong is not None:
            _reject(response, index, wrong)
    return place + len(request.examples)


def _labelled(message: types_pb2.Example, targets: TargetRules) -> Example:
    example = labelled(message)
    check_input(example.input, "input")
    check_weight(example.weight, "weight")
    if not example.labelled:
        raise InvalidError("target is not set: give the right answer.", reason="LABEL_EMPTY", field="target")
    return targets.check(example, "")


def _reject(response: pb.EvaluateModelResponse, index: int, error: InvalidError) -> None:
    response.rejected_count += 1
    if len(response.rejected) < MAX_REJECTIONS:
        response.rejected.add(index=index, reason=error.reason, detail=error.message)


def _measured(measured: Measured, response: pb.EvaluateModelResponse) -> pb.EvaluateModelResponse:
    response.examples = measured.examples
    filled(response, measured.figures)
    response.task = TASK_MESSAGES[measured.task]
    for name in ("multi_label", "regression"):
        if (further := getattr(measured, name)) is not None:
            filled(getattr(response, name), further)
    for report in measured.per_class[:MAX_CLASS_REPORTS]:
        filled(response.per_class.add(), report)
    for confusion in measured.confusions:
        filled(response.confusions.add(), confusion)
    return response
