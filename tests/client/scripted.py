"""A gRPC server in this process that follows a script, up to the stage at which it falls silent or ends."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from graft.v1 import (
    adaptation_pb2,
    adaptation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    prediction_pb2,
    prediction_pb2_grpc,
)

FILES = {"model.onnx": b"a graph of several bytes", "empty": b"", "labels.json": b"[]"}


class Scripted(
    adaptation_pb2_grpc.AdaptationServiceServicer,
    prediction_pb2_grpc.PredictionServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
):
    """Answers each method in stages, counted from 0.

    Attributes:
        stage: At which stage of a call `ends` is called; None: at none.
        ends: What happens then.
        calls: What was asked so far, by method.
        resumes: Whether an export goes on where the caller is.
    """

    def __init__(self) -> None:
        self.stage: int | None = None
        self.ends: Callable[[Any], None] = silent
        self.calls: dict[str, list[Any]] = {}
        self.resumes = True
        self.stored = 0

    def at(self, stage: int, context: Any) -> None:
        if stage == self.stage:
            self.ends(context)

    def Adapt(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        self.at(0, context)
        start = next(requests).start
        yield adaptation_pb2.AdaptResponse(
            started=adaptation_pb2.Started(adaptation_id=start.adaptation_id, next_sequence=self.stored)
        )
        self.at(1, context)
        if self.stored:
            self.at(2, context)
        for request in requests:
            if request.WhichOneof("message") == "commit":
                break
            self.stored += len(request.examples.changes)
            accepted = adaptation_pb2.Accepted(next_sequence=self.stored)
            yield adaptation_pb2.AdaptResponse(accepted=accepted)
            self.at(2, context)
        commit_id = request.commit.commit_id
        self.at(3, context)
        yield adaptation_pb2.AdaptResponse(committed=adaptation_pb2.Committed(commit_id=commit_id))
        self.at(4, context)
        progress = adaptation_pb2.Progress(commit_id=commit_id, stage="selecting")
        yield adaptation_pb2.AdaptResponse(progress=progress)
        self.at(5, context)
        published = adaptation_pb2.Published(commit_id=commit_id, model=start.model, version=1)
        yield adaptation_pb2.AdaptResponse(published=published)

    def WatchAdaptation(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.calls.setdefault("WatchAdaptation", []).append(request)
        for event in range(max(1, request.from_event), 4):
            self.at(event - 1, context)
            yield adaptation_pb2.WatchAdaptationResponse(event=event)
        self.at(3, context)

    def PredictStream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        self.at(0, context)
        for number, request in enumerate(requests):
            answer = prediction_pb2.PredictResponse(results=[prediction_pb2.Prediction()], version=1)
            yield prediction_pb2.PredictStreamResponse(request_id=request.request_id, response=answer)
            self.at(number + 1, context)

    def GetVersion(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return model_pb2.GetVersionResponse(version=model_pb2.ModelVersion(model=request.model, version=7))

    def EvaluateModel(self, requests: Iterator[Any], context: Any) -> Any:  # noqa: N802
        self.at(0, context)
        examples, versions = 0, []
        for number, request in enumerate(requests):
            examples += len(request.examples)
            versions.append(request.version)
            self.at(number + 1, context)
        self.calls.setdefault("EvaluateModel", []).append(versions)
        self.at(9, context)
        return model_pb2.EvaluateModelResponse(version=versions[0], examples=examples)

    def ExportModel(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.calls.setdefault("ExportModel", []).append(request)
        had = {it.path: it.size for it in request.received} if self.resumes else {}
        pieces = 0
        self.at(0, context)
        for path, content in FILES.items():
            for piece in pieces_of(path, content, had.get(path, 0)):
                yield piece
                pieces += 1
                self.at(pieces, context)


def pieces_of(path: str, content: bytes, begin: int) -> Iterator[model_pb2.ExportModelResponse]:
    """A file's pieces from some byte on, at least one, of ten bytes each."""
    digest = hashlib.sha256(content).hexdigest()
    for offset in range(begin, max(begin + 1, len(content)), 10):
        yield model_pb2.ExportModelResponse(
            path=path,
            size=len(content),
            sha256=digest,
            chunk=content[offset : offset + 10],
            offset=offset,
            version=7,
        )


def silent(context: Any) -> None:
    """Says no more, until the client leaves."""
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait()
    context.abort(grpc.StatusCode.CANCELLED, "the client has left")


def breaks(context: Any) -> None:
    """Ends the call as a server does that stops."""
    context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops")


class Server:
    """A server for a script."""

    def __init__(self, script: Scripted, *options: tuple[str, int]) -> None:
        self.server = grpc.server(ThreadPoolExecutor(16), options=options)
        adaptation_pb2_grpc.add_AdaptationServiceServicer_to_server(script, self.server)
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(script, self.server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(script, self.server)
        self.target = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(None).wait()

    def dies(self, context: Any) -> None:
        """Ends with all its calls, and comes not back."""
        self.server.stop(None)
        silent(context)
