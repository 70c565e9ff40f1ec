"""The contract's enumerations, and the domain's value for each."""

from __future__ import annotations

from graft.v1 import adaptation_pb2, model_pb2, types_pb2
from graft_server.domain.adaptation import AdaptationState, PublicationState
from graft_server.domain.backbone import BackboneState
from graft_server.domain.examples import Modality, Split, Task
from graft_server.domain.method import Method
from graft_server.domain.model import RenewalState
from graft_server.domain.suggestion import Why

METHOD_MESSAGES = {
    Method.AUTO: types_pb2.METHOD_AUTO,
    Method.FROZEN: types_pb2.METHOD_FROZEN,
    Method.PARTIAL: types_pb2.METHOD_PARTIAL,
    Method.FULL: types_pb2.METHOD_FULL,
}


TASK_MESSAGES = {task: types_pb2.Task.Value(f"TASK_{task.name}") for task in Task}

METHODS = {
    types_pb2.METHOD_UNSPECIFIED: Method.AUTO,
    **{number: name for name, number in METHOD_MESSAGES.items()},
}


TASKS = {
    types_pb2.TASK_UNSPECIFIED: Task.DEFAULT,
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


BACKBONE_STATES = {
    BackboneState.UNLOADED: model_pb2.BACKBONE_STATE_UNLOADED,
    BackboneState.LOADING: model_pb2.BACKBONE_STATE_LOADING,
    BackboneState.READY: model_pb2.BACKBONE_STATE_READY,
    BackboneState.FAILED: model_pb2.BACKBONE_STATE_FAILED,
}

RENEWAL_STATES = {
    RenewalState.WAITING: model_pb2.RENEWAL_STATE_WAITING,
    RenewalState.RUNNING: model_pb2.RENEWAL_STATE_RUNNING,
    RenewalState.FAILED: model_pb2.RENEWAL_STATE_FAILED,
}

ADAPTATION_STATES = {
    AdaptationState.OPEN: adaptation_pb2.ADAPTATION_STATE_OPEN,
    AdaptationState.CLOSED: adaptation_pb2.ADAPTATION_STATE_CLOSED,
    AdaptationState.CANCELLED: adaptation_pb2.ADAPTATION_STATE_CANCELLED,
}


PUBLICATION_STATES = {
    PublicationState.QUEUED: adaptation_pb2.PUBLICATION_STATE_QUEUED,
    PublicationState.TRAINING: adaptation_pb2.PUBLICATION_STATE_TRAINING,
    PublicationState.PUBLISHED: adaptation_pb2.PUBLICATION_STATE_PUBLISHED,
    PublicationState.FAILED: adaptation_pb2.PUBLICATION_STATE_FAILED,
    PublicationState.CANCELLED: adaptation_pb2.PUBLICATION_STATE_CANCELLED,
}

SUGGESTION_REASONS = {why: model_pb2.SuggestionReason.Value(f"SUGGESTION_REASON_{why.name}") for why in Why}
