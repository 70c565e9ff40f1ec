"""Turns a caller's options into the message that starts an adaptation."""

from __future__ import annotations

import uuid
from dataclasses import replace

from graft._records.inputs.examples import label_messages
from graft._records.metadata import checked_metadata
from graft._streams.adapt import AdaptExchange
from graft._streams.limits import Limits
from graft._streams.options import AdaptOptions
from graft._transport.progress_timeout import keep_alive_s
from graft.v1 import adaptation_pb2, types_pb2


def new_exchange(model: str, options: AdaptOptions, limits: Limits) -> AdaptExchange:
    """The exchange of one `adapt`. Ids that the caller did not choose are chosen here.

    Raises:
        TypeError: A label, or a key or value of the metadata, is not a text.
        ValueError: This release does not know the method or the task.
    """
    options = replace(options, adaptation_id=options.adaptation_id or uuid.uuid4().hex)
    return AdaptExchange(
        _start(model, options, keep_alive_s(limits.resume_timeout_s)),
        options.commit_id or _commit_id(model, options),
        limits=limits,
        close=options.close,
        append=options.append,
    )


def _start(model: str, options: AdaptOptions, keep_alive: float) -> adaptation_pb2.AdaptStart:
    start = adaptation_pb2.AdaptStart(
        adaptation_id=options.adaptation_id or "",
        writer_id=options.writer_id,
        model=model,
        backbone=options.backbone,
        task=_task(options.task),
        labels=label_messages(options.labels),
        closed_labels=options.closed_labels,
        method=_method(options.method),
        base_version=options.base_version,
        base_alias=options.base_alias,
        match_content=options.match_content,
        seed=options.seed,
        publish=_policy(options.publish_every, options.publish_seconds, promote=options.promote),
        metadata=checked_metadata({} if options.metadata is None else options.metadata),
        validate_only=options.validate_only,
    )
    start.keep_alive.FromNanoseconds(round(keep_alive * 1e9))
    if (tuning := options.fine_tuning) is not None:
        start.fine_tuning.CopyFrom(
            adaptation_pb2.FineTuning(
                unfrozen_layers=tuning.unfrozen_layers,
                epochs=tuning.epochs,
                learning_rate=tuning.learning_rate,
                layer_decay=tuning.layer_decay,
            )
        )
    if options.time_budget is not None:
        start.time_budget.FromNanoseconds(round(options.time_budget * 1e9))
    return start


def _commit_id(model: str, options: AdaptOptions) -> str:
    if options.append and options.commit_id is None:
        return uuid.uuid4().hex  # what follows on is another commit each time
    # A caller who starts the same adaptation again, say after a crash, means the same commit.
    name = f"{model}\0{options.adaptation_id}\0{options.writer_id}"
    return uuid.uuid5(uuid.NAMESPACE_OID, name).hex


def _policy(examples: int, seconds: float, *, promote: bool) -> adaptation_pb2.PublishPolicy | None:
    if not (examples or seconds) and promote:
        return None
    policy = adaptation_pb2.PublishPolicy(every_examples=examples)
    if seconds:
        policy.every.FromNanoseconds(round(seconds * 1e9))
    if not promote:
        policy.promote = False
    return policy


def _task(task: str) -> types_pb2.Task.ValueType:
    known = {name.removeprefix("TASK_").lower(): value for name, value in types_pb2.Task.items()}
    known[""] = known.pop("unspecified")
    try:
        return known[task.replace("-", "_")]
    except KeyError:
        named = ", ".join(repr(name) for name in known if name)
        raise ValueError(f"task is {task!r}; this release knows {named}") from None


def _method(method: str) -> types_pb2.Method.ValueType:
    known = {name.removeprefix("METHOD_").lower(): value for name, value in types_pb2.Method.items()}
    del known["unspecified"]
    try:
        return known[method]
    except KeyError:
        raise ValueError(f"method is {method!r}; this release knows {', '.join(map(repr, known))}") from None
