"""Graft's client: stream labelled examples in, get a served classifier back.

    import graft

    with graft.Client("127.0.0.1:50051") as client:
        result = client.adapt("banking", [("my card was declined", "declined_card_payment"), ...])
        for prediction in client.predict("banking", ["why was I charged twice?"]):
            print(prediction.label, prediction.probability)

It needs only gRPC and protobuf, neither torch nor NumPy. `AsyncClient` has the same methods,
awaited. Every error derives from `graft.GraftError`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graft._version import __version__

if TYPE_CHECKING:
    from graft._client.asynchronous import AsyncClient
    from graft._client.bundle import Bundle
    from graft._client.sync import Client
    from graft._data_files.columns import DataError, RowError
    from graft._data_files.reader import read_examples
    from graft._records.adapting.row_counts import RowCounts
    from graft._records.adapting.told import AdaptProgress, AdaptResult, CheckResult, Event, Outcome
    from graft._records.evaluation.evaluations import EvaluationRejection, EvaluationResult, UnknownLabel
    from graft._records.evaluation.probable_errors import ProbableError
    from graft._records.evaluation.quotes import Quote, Quotes
    from graft._records.evaluation.reports import (
        Advice,
        Candidate,
        ClassAdvice,
        ClassReport,
        Confusion,
        CurvePoint,
        DataReport,
        DuplicateGroup,
        ExampleRef,
        HeadChoice,
        LabelCount,
        LabelError,
        LearningCurve,
        LookAlikes,
        MapPoint,
        MultiLabelFigures,
        NoveltyReport,
        PredictedValue,
        RegressionFigures,
        ReliabilityBin,
        Renewal,
        Report,
        SimilarLabels,
        TuningPoint,
        TuningReport,
        UnlabelledReport,
    )
    from graft._records.extensions import Extension
    from graft._records.inputs.examples import Delete, Example, Label, TextPair
    from graft._records.predicting.predictions import Prediction, Predictions, Score, Timings
    from graft._records.predicting.suggestions import Suggestion, Suggestions
    from graft._records.records import (
        Adaptation,
        Backbone,
        CancelledAdaptation,
        Model,
        ModelRenewal,
        Progress,
        Publication,
        Version,
    )
    from graft._records.stored_examples import Erasure, StoredExample
    from graft._streams.options import FineTuning
    from graft._tables.options import InputColumns, TableColumns
    from graft.errors import (
        AbortedError,
        AlreadyExistsError,
        CancelledError,
        DataLossError,
        DeadlineExceededError,
        FailedPreconditionError,
        FieldViolation,
        GraftError,
        InternalError,
        InvalidArgumentError,
        NotFoundError,
        PermissionDeniedError,
        Rejection,
        ResourceExhaustedError,
        UnauthenticatedError,
        UnavailableError,
        UnimplementedError,
    )

__all__ = [
    "AbortedError",
    "AdaptProgress",
    "AdaptResult",
    "Adaptation",
    "Advice",
    "AlreadyExistsError",
    "AsyncClient",
    "Backbone",
    "Bundle",
    "CancelledAdaptation",
    "CancelledError",
    "Candidate",
    "CheckResult",
    "ClassAdvice",
    "ClassReport",
    "Client",
    "Confusion",
    "CurvePoint",
    "DataError",
    "DataLossError",
    "DataReport",
    "DeadlineExceededError",
    "Delete",
    "DuplicateGroup",
    "Erasure",
    "EvaluationRejection",
    "EvaluationResult",
    "Event",
    "Example",
    "ExampleRef",
    "Extension",
    "FailedPreconditionError",
    "FieldViolation",
    "FineTuning",
    "GraftError",
    "HeadChoice",
    "InputColumns",
    "InternalError",
    "InvalidArgumentError",
    "Label",
    "LabelCount",
    "LabelError",
    "LearningCurve",
    "LookAlikes",
    "MapPoint",
    "Model",
    "ModelRenewal",
    "MultiLabelFigures",
    "NotFoundError",
    "NoveltyReport",
    "Outcome",
    "PermissionDeniedError",
    "PredictedValue",
    "Prediction",
    "Predictions",
    "ProbableError",
    "Progress",
    "Publication",
    "Quote",
    "Quotes",
    "RegressionFigures",
    "Rejection",
    "ReliabilityBin",
    "Renewal",
    "Report",
    "ResourceExhaustedError",
    "RowCounts",
    "RowError",
    "Score",
    "SimilarLabels",
    "StoredExample",
    "Suggestion",
    "Suggestions",
    "TableColumns",
    "TextPair",
    "Timings",
    "TuningPoint",
    "TuningReport",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnknownLabel",
    "UnlabelledReport",
    "Version",
    "__version__",
    "read_examples",
]

_NAMES_BY_MODULE = {
    "_client.asynchronous": ("AsyncClient",),
    "_client.bundle": ("Bundle",),
    "_client.sync": ("Client",),
    "_data_files.columns": (
        "DataError",
        "RowError",
    ),
    "_data_files.reader": ("read_examples",),
    "_records.evaluation.evaluations": (
        "EvaluationRejection",
        "EvaluationResult",
        "UnknownLabel",
    ),
    "_records.inputs.examples": (
        "Delete",
        "Example",
        "Label",
        "TextPair",
    ),
    "_records.extensions": ("Extension",),
    "_records.predicting.predictions": (
        "Prediction",
        "Predictions",
        "Score",
        "Timings",
    ),
    "_records.evaluation.probable_errors": ("ProbableError",),
    "_records.evaluation.quotes": (
        "Quote",
        "Quotes",
    ),
    "_records.records": (
        "Adaptation",
        "Backbone",
        "CancelledAdaptation",
        "Model",
        "ModelRenewal",
        "Progress",
        "Publication",
        "Version",
    ),
    "_records.predicting.suggestions": ("Suggestion", "Suggestions"),
    "_records.stored_examples": ("Erasure", "StoredExample"),
    "_records.adapting.told": ("AdaptProgress", "AdaptResult", "CheckResult", "Event", "Outcome"),
    "_records.adapting.row_counts": ("RowCounts",),
    "_records.evaluation.reports": (
        "Advice",
        "Candidate",
        "ClassAdvice",
        "ClassReport",
        "Confusion",
        "CurvePoint",
        "DataReport",
        "DuplicateGroup",
        "ExampleRef",
        "HeadChoice",
        "LabelCount",
        "LabelError",
        "LearningCurve",
        "LookAlikes",
        "MapPoint",
        "MultiLabelFigures",
        "NoveltyReport",
        "PredictedValue",
        "RegressionFigures",
        "ReliabilityBin",
        "Renewal",
        "Report",
        "SimilarLabels",
        "TuningPoint",
        "TuningReport",
        "UnlabelledReport",
    ),
    "_streams.options": ("FineTuning",),
    "_tables.options": (
        "InputColumns",
        "TableColumns",
    ),
    "errors": (
        "AbortedError",
        "AlreadyExistsError",
        "CancelledError",
        "DataLossError",
        "DeadlineExceededError",
        "FailedPreconditionError",
        "FieldViolation",
        "GraftError",
        "InternalError",
        "InvalidArgumentError",
        "NotFoundError",
        "PermissionDeniedError",
        "Rejection",
        "ResourceExhaustedError",
        "UnauthenticatedError",
        "UnavailableError",
        "UnimplementedError",
    ),
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}


_SUBMODULES = ("errors", "v1")
"""What `import graft` alone makes attributes of the package, without loading it."""

if not TYPE_CHECKING:  # who checks types knows the names above, and that there are no others

    def __getattr__(name: str) -> Any:
        """Imports a public name where it is first used: the stubs in `graft.v1` load nothing of the client."""
        if name in _SUBMODULES:
            return importlib.import_module(f"{__name__}.{name}")
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
