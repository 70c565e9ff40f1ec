"""What a caller says about an adaptation, turned into the message that starts one."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass

from graft._records.examples import ChangeLike, LabelsLike, label_messages, task_of
from graft._streams.adapt import AdaptExchange, Limits
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
    task: str,
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
        ValueError: This release does not know the method or the task.
    """
    adaptation_id = adaptation_id or uuid.uuid4().hex
    start = adaptation_pb2.AdaptStart(
        adaptation_id=adaptation_id,
        writer_id=writer_id,
        model=model,
        backbone=backbone,
        task=_task(task),
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


def with_task(task: str, examples: Iterable[ChangeLike]) -> tuple[str, Iterable[ChangeLike]]:
    """The task, which the first example tells where the caller does not, and the examples."""
    if task:
        return task, examples
    rest = iter(examples)
    try:
        first = list(itertools.islice(rest, 1))
    except Exception as error:  # noqa: BLE001 - raised again where examples are taken
        return "", _raising(error)
    return (task_of(first[0]) if first else ""), itertools.chain(first, rest)


async def with_task_async(
    task: str, examples: Iterable[ChangeLike] | AsyncIterable[ChangeLike]
) -> tuple[str, Iterable[ChangeLike] | AsyncIterable[ChangeLike]]:
    """The same of examples that may come asynchronously."""
    if not isinstance(examples, AsyncIterable):
        return with_task(task, examples)
    if task:
        return task, examples
    rest = aiter(examples)
    try:
        first = [await anext(rest)]
    except StopAsyncIteration:
        first = []
    except Exception as error:  # noqa: BLE001 - raised again where examples are taken
        return "", _raising(error)

    async def again() -> AsyncIterator[ChangeLike]:
        for example in first:
            yield example
        async for example in rest:
            yield example

    return (task_of(first[0]) if first else ""), again()


def _raising(error: Exception) -> Iterator[ChangeLike]:
    raise error
    yield  # so that it is raised when the first example is asked for


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
