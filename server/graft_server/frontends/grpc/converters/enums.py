"""The contract's enumerations, and what each value means here."""

from __future__ import annotations

from graft.v1 import model_pb2, types_pb2
from graft_server.domain.examples import Modality, Split, Task
from graft_server.domain.method import Method
from graft_server.encoding.trunk import TrunkState

METHOD_MESSAGES = {
    Method.AUTO: types_pb2.METHOD_AUTO,
    Method.FROZEN: types_pb2.METHOD_FROZEN,
    Method.PARTIAL: types_pb2.METHOD_PARTIAL,
    Method.FULL: types_pb2.METHOD_FULL,
}


TASK_MESSAGES = {
    Task.SINGLE_LABEL: types_pb2.TASK_SINGLE_LABEL,
    Task.MULTI_LABEL: types_pb2.TASK_MULTI_LABEL,
    Task.REGRESSION: types_pb2.TASK_REGRESSION,
}

METHODS = {
    types_pb2.METHOD_UNSPECIFIED: Method.AUTO,
    **{number: name for name, number in METHOD_MESSAGES.items()},
}


TASKS = {
    types_pb2.TASK_UNSPECIFIED: Task.SINGLE_LABEL,
    **{number: task for task, number in TASK_MESSAGES.items()},
}


SPLITS = {
    types_pb2.SPLIT_UNSPECIFIED: Split.UNSPECIFIED,
    types_pb2.SPLIT_TRAIN: Split.TRAIN,
    types_pb2.SPLIT_VALIDATION: Split.VALIDATION,
}


SPLIT_NUMBERS = {split: number for number, split in SPLITS.items()}


MODALITIES = {
    Modality.TEXT: model_pb2.MODALITY_TEXT,
    Modality.IMAGE: model_pb2.MODALITY_IMAGE,
    Modality.AUDIO: model_pb2.MODALITY_AUDIO,
}


TRUNK_STATES = {
    TrunkState.UNLOADED: model_pb2.BACKBONE_STATE_UNLOADED,
    TrunkState.LOADING: model_pb2.BACKBONE_STATE_LOADING,
    TrunkState.READY: model_pb2.BACKBONE_STATE_READY,
    TrunkState.FAILED: model_pb2.BACKBONE_STATE_FAILED,
}
