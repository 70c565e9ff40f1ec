"""What `import graft` gives and what it costs."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import graft
from graft._streams.options import AdaptOptions

METHODS = {
    "adapt", "adaptation", "adaptations", "backbones", "cancel", "check", "close", "delete_examples",
    "delete_model", "delete_version", "evaluate", "examples", "export", "health", "model", "models",
    "predict", "predict_stream", "probable_errors", "promote", "report", "set_alias", "set_metadata",
    "suggest", "version", "versions", "watch",
}  # fmt: skip


def test_the_exported_names_are_these_and_exist() -> None:
    assert set(graft.__all__) == {
        "AbortedError", "AdaptProgress", "AdaptResult", "Adaptation", "AlreadyExistsError", "AsyncClient",
        "Backbone", "Bundle", "CancelledError", "Candidate", "ClassReport", "Client", "Confusion", "DataError",
        "DataLossError", "DeadlineExceededError", "EvaluationRejection", "EvaluationResult", "Event", "Example",
        "FailedPreconditionError", "FieldViolation", "GraftError", "HeadChoice", "InternalError",
        "InvalidArgumentError", "Label", "Model", "NotFoundError", "PermissionDeniedError", "Prediction",
        "Predictions", "Progress", "Publication", "Rejection", "Report", "ResourceExhaustedError", "Score",
        "Timings", "UnauthenticatedError", "UnavailableError", "UnimplementedError", "Version", "__version__",
        "read_examples", "ClassAdvice", "CurvePoint", "DataReport", "DuplicateGroup", "ExampleRef",
        "LabelError", "LearningCurve", "MapPoint", "NoveltyReport", "ReliabilityBin", "CheckResult", "Delete",
        "Outcome", "Erasure", "StoredExample", "TuningReport", "TuningPoint", "FineTuning",
        "Extension", "RowCounts", "RowError", "TextPair", "LabelCount", "LookAlikes", "SimilarLabels", "UnknownLabel",
        "MultiLabelFigures", "PredictedValue", "RegressionFigures", "Renewal", "ModelRenewal", "InputColumns",
        "TableColumns",
        "Advice", "UnlabelledReport", "CancelledAdaptation", "ProbableError", "Quote", "Quotes", "Suggestion",
        "Suggestions",
    }  # fmt: skip
    for name in graft.__all__:
        assert getattr(graft, name) is not None


def test_both_clients_have_the_same_methods() -> None:
    for client in (graft.Client, graft.AsyncClient):
        methods = {name for name, _ in inspect.getmembers(client, inspect.isfunction) if name[0] != "_"}
        assert methods == METHODS


def test_both_clients_take_the_same_arguments() -> None:
    for name in METHODS:
        blocking = inspect.signature(getattr(graft.Client, name)).parameters
        asynchronous = inspect.signature(getattr(graft.AsyncClient, name)).parameters
        assert list(blocking) == list(asynchronous), name
        for parameter in blocking:
            assert blocking[parameter].default == asynchronous[parameter].default, (name, parameter)


def test_the_options_of_an_adaptation_are_the_arguments_of_adapt() -> None:
    options = {field.name: field.default for field in dataclasses.fields(AdaptOptions)}
    del options["validate_only"]  # what `check` is
    arguments = dict(inspect.signature(graft.Client.adapt).parameters)
    for name in ("self", "model", "examples", "on_progress", "progress", "on_published", "columns"):
        del arguments[name]
    assert {name: argument.default for name, argument in arguments.items()} == options
    checked = set(inspect.signature(graft.Client.check).parameters)
    assert checked - {"self", "model", "examples", "on_progress", "columns"} < set(options)


def test_importing_the_client_loads_neither_numpy_nor_torch_nor_rich() -> None:
    loaded = {
        name.partition(".")[0] for name in modules_after("import graft; graft.Client; graft.AsyncClient")
    }
    assert "grpc" in loaded
    assert not {"numpy", "torch", "rich", "onnxruntime", "graft_server", "grpc_status"} & loaded


def test_the_package_and_the_stubs_load_nothing_of_the_client() -> None:
    assert "grpc" not in modules_after("import graft")
    loaded = modules_after("import graft.v1.adaptation_pb2_grpc, graft.v1.model_pb2_grpc")
    assert {name for name in loaded if name.split(".")[0] == "graft"} == {
        "graft", "graft._version", "graft.v1", "graft.v1.adaptation_pb2", "graft.v1.adaptation_pb2_grpc",
        "graft.v1.model_pb2", "graft.v1.model_pb2_grpc", "graft.v1.prediction_pb2", "graft.v1.report_pb2",
            "graft.v1.types_pb2",
    }  # fmt: skip


def test_names_are_seen_before_they_are_loaded_and_others_are_not_there() -> None:
    assert set(graft.__all__) <= set(dir(graft))
    assert not hasattr(graft, "Cleint")
    listed = set(modules_after("import graft; graft.errors.GraftError; from graft import *; Client, Report"))
    assert "graft._client.asynchronous" in listed


def modules_after(statements: str) -> list[str]:
    """What a fresh interpreter has loaded after some statements."""
    script = f"import sys; {statements}; print(*sorted(sys.modules))"
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
