"""What a caller says about an adaptation, turned into the message that starts one."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from graft._adapting import AdaptExchange, Limits
from graft._examples import LabelsLike, label_messages
from graft.v1 import adaptation_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class FineTuning:
    """How the layers of a backbone are tuned; what is 0 is chosen by the server."""

    unfrozen_layers: int = 0
    """How many of the upper layers are tuned, for the methods "partial" and "auto"."""
    epochs: int = 0
    """How often each example is seen at most."""
    learning_rate: float = 0.0
    """Of the uppermost layer."""
    layer_decay: float = 0.0
    """The learning rate of each layer over that of the one above it, at most 1."""


def new_exchange(
    model: str,
    *,
    adaptation_id: str | None,
    writer_id: str,
    method: str,
    backbone: str,
    labels: LabelsLike | None,
    closed_labels: bool,
    base_version: int,
    seed: int,
    commit_id: str | None,
    limits: Limits,
    publish_every: int = 0,
    publish_seconds: float = 0.0,
    close: bool = True,
    append: bool = False,
    validate_only: bool = False,
    fine_tuning: FineTuning | None = None,
    time_budget_s: float | None = None,
) -> AdaptExchange:
    """The exchange of one `adapt`. Ids that the caller did not choose are chosen here.

    Raises:
        TypeError: A label is not a text.
        ValueError: This release does not know the method.
    """
    adaptation_id = adaptation_id or uuid.uuid4().hex
    start = adaptation_pb2.AdaptStart(
        adaptation_id=adaptation_id,
        writer_id=writer_id,
        model=model,
        backbone=backbone,
        labels=label_messages(labels),
        closed_labels=closed_labels,
        method=_method(method),
        base_version=base_version,
        seed=seed,
        publish=_policy(publish_every, publish_seconds),
        validate_only=validate_only,
    )
    if append and commit_id is None:
        commit_id = uuid.uuid4().hex  # what follows on is another commit each time
    if fine_tuning is not None:
        start.fine_tuning.CopyFrom(
            adaptation_pb2.FineTuning(
                unfrozen_layers=fine_tuning.unfrozen_layers,
                epochs=fine_tuning.epochs,
                learning_rate=fine_tuning.learning_rate,
                layer_decay=fine_tuning.layer_decay,
            )
        )
    if time_budget_s is not None:
        start.time_budget.FromNanoseconds(round(time_budget_s * 1e9))
    # A caller who starts the same adaptation again, say after a crash, means the same commit.
    commit_id = commit_id or str(uuid.uuid5(uuid.NAMESPACE_OID, f"{model}\0{adaptation_id}\0{writer_id}").hex)
    return AdaptExchange(start, commit_id, limits=limits, close=close, append=append)


def _policy(examples: int, seconds: float) -> adaptation_pb2.PublishPolicy | None:
    if not (examples or seconds):
        return None
    policy = adaptation_pb2.PublishPolicy(every_examples=examples)
    if seconds:
        policy.every.FromNanoseconds(round(seconds * 1e9))
    return policy


def _method(method: str) -> types_pb2.Method.ValueType:
    known = {name.removeprefix("METHOD_").lower(): value for name, value in types_pb2.Method.items()}
    del known["unspecified"]
    try:
        return known[method]
    except KeyError:
        raise ValueError(f"method is {method!r}; this release knows {', '.join(map(repr, known))}") from None
