"""Graft's client: stream labelled examples in, get a served classifier back.

    import graft

    with graft.Client("127.0.0.1:50051") as client:
        result = client.adapt("banking", [("my card was declined", "declined_card_payment"), ...])
        for prediction in client.predict("banking", ["why was I charged twice?"]):
            print(prediction.label, prediction.probability)

It needs only gRPC and protobuf, neither torch nor NumPy. `AsyncClient` has the same methods,
awaited. Every error derives from `graft.GraftError`.
"""

from graft._client.asynchronous import AsyncClient
from graft._client.bundle import Bundle
from graft._client.sync import Client
from graft._data_files.columns import DataError, RowError
from graft._data_files.reader import read_examples
from graft._records.evaluations import EvaluationRejection, EvaluationResult, UnknownLabel
from graft._records.examples import Delete, Example, Label, TextPair
from graft._records.predictions import Prediction, Predictions, Score, Timings
from graft._records.records import (
    Adaptation,
    AdaptProgress,
    AdaptResult,
    Backbone,
    CheckResult,
    Erasure,
    Event,
    Model,
    Outcome,
    Progress,
    Publication,
    Rejection,
    StoredExample,
    Version,
)
from graft._records.reports import (
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
    Report,
    SimilarLabels,
    TuningPoint,
    TuningReport,
)
from graft._streams.options import FineTuning
from graft._version import __version__
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
    "AlreadyExistsError",
    "AsyncClient",
    "Backbone",
    "Bundle",
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
    "FailedPreconditionError",
    "FieldViolation",
    "FineTuning",
    "GraftError",
    "HeadChoice",
    "InternalError",
    "InvalidArgumentError",
    "Label",
    "LabelCount",
    "LabelError",
    "LearningCurve",
    "LookAlikes",
    "MapPoint",
    "Model",
    "MultiLabelFigures",
    "NotFoundError",
    "NoveltyReport",
    "Outcome",
    "PermissionDeniedError",
    "PredictedValue",
    "Prediction",
    "Predictions",
    "Progress",
    "Publication",
    "RegressionFigures",
    "Rejection",
    "ReliabilityBin",
    "Report",
    "ResourceExhaustedError",
    "RowError",
    "Score",
    "SimilarLabels",
    "StoredExample",
    "TextPair",
    "Timings",
    "TuningPoint",
    "TuningReport",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnknownLabel",
    "Version",
    "__version__",
    "read_examples",
]
