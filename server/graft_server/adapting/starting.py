"""The checks of a start, before an adaptation is stored or opened."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from graft_server.adapting.publishing import fine_tuning
from graft_server.domain.adaptation import AdaptationSettings, PublishPolicy, Start, StartRequest
from graft_server.domain.errors import InvalidError, StateError
from graft_server.domain.examples import Label
from graft_server.domain.metadata import check_metadata
from graft_server.domain.names import check_identifier, check_model, clean_label, shown
from graft_server.domain.tasks.table import TASKS
from graft_server.encoding.trunk import Trunk

DEFAULT_WRITER = "default"
MAX_LABELS = 10_000
MAX_DESCRIPTION_BYTES = 1024
LEAST_EVERY_S = 1.0
"""The shortest interval: with a shorter one, a version would be served for less time than its training takes."""


def identified(request: StartRequest) -> StartRequest:
    """Returns the request with the ids that it leaves out.

    Raises:
        InvalidError: A name or an id is not valid.
    """
    check_model(request.model, "start.model")
    adaptation_id = request.adaptation_id or secrets.token_hex(8)
    check_identifier(adaptation_id, "start.adaptation_id")
    writer_id = request.writer_id or DEFAULT_WRITER
    check_identifier(writer_id, "start.writer_id")
    return replace(request, adaptation_id=adaptation_id, writer_id=writer_id)


def checked(settings: AdaptationSettings, trunk: Trunk) -> AdaptationSettings:
    """Returns the settings for an adaptation of a trunk, with labels as they are stored.

    Raises:
        InvalidError: The settings can never work.
        BackboneError: The backbone could not be described.
    """
    settings = replace(
        settings,
        backbone=trunk.name,
        labels=_checked_labels(settings.labels),
        metadata=check_metadata(settings.metadata, "start.metadata"),
    )
    fine_tuning.check(settings, trunk.backbone)
    if settings.closed_labels and not settings.labels:
        raise InvalidError(
            "start.closed_labels is set, but start.labels is empty: name the labels.",
            reason="LABELS_EMPTY",
            field="start.labels",
        )
    instead = TASKS[settings.task].instead_of_labels
    if settings.labels and instead:
        raise InvalidError(
            f"start.labels names {len(settings.labels):,}, but {instead}: leave them out, "
            "or choose another start.task.",
            reason="LABELS_WITHOUT_CLASSES",
            field="start.labels",
        )
    _check_policy(settings.publish)
    if settings.base_alias and settings.base_version:
        raise InvalidError(
            f"start.base_alias is {shown(settings.base_alias)}, and start.base_version is {settings.base_version}: an "
            "adaptation goes on from one version. Set one of the two.",
            reason="BASE_AMBIGUOUS",
            field="start.base_alias",
        )
    return settings


def require_same(known: Start, request: StartRequest) -> None:
    """Raises StateError (START_MISMATCH) if an adaptation that exists was started with other settings."""
    asked = request.settings
    if (
        known.extends is not None
        and not asked.base_alias
        and asked.base_version == known.extends.base_version
    ):
        # By number, it is what the alias pointed at.
        asked = replace(asked, base_version=known.settings.base_version, base_alias=known.settings.base_alias)
    differing = [
        name for name in AdaptationSettings.__slots__ if getattr(known.settings, name) != getattr(asked, name)
    ]
    if differing:
        raise StateError(
            f"Adaptation {shown(request.adaptation_id)} of model {shown(request.model)} was started with "
            f"another {', '.join(differing)}: resume it with the same settings, or choose another "
            "adaptation_id.",
            reason="START_MISMATCH",
            field=f"start.{differing[0]}",
        )


def _check_policy(policy: PublishPolicy) -> None:
    if policy.every_examples < 0:
        raise InvalidError(
            f"start.publish.every_examples is {policy.every_examples}: give a number of examples, or 0 for never.",
            reason="PUBLISH_INVALID",
            field="start.publish.every_examples",
        )
    if policy.every_s and policy.every_s < LEAST_EVERY_S:
        raise InvalidError(
            f"start.publish.every is {policy.every_s:g} s: give at least {LEAST_EVERY_S:g} s, or leave it unset for "
            "never.",
            reason="PUBLISH_INVALID",
            field="start.publish.every",
        )


def _checked_labels(labels: Sequence[Label]) -> tuple[Label, ...]:
    if len(labels) > MAX_LABELS:
        raise InvalidError(
            f"start.labels has {len(labels):,} entries: at most {MAX_LABELS:,} are accepted.",
            reason="TOO_MANY_LABELS",
            field="start.labels",
        )
    cleaned: dict[str, Label] = {}
    for index, label in enumerate(labels):
        field = f"start.labels[{index}]"
        name = clean_label(label.name, f"{field}.name")
        if name in cleaned:
            raise InvalidError(
                f"{field}.name is {shown(name)}, which an earlier entry has: name each label once.",
                reason="LABEL_REPEATED",
                field=f"{field}.name",
            )
        if len(label.description.encode()) > MAX_DESCRIPTION_BYTES:
            raise InvalidError(
                f"{field}.description has {len(label.description.encode()):,} bytes: at most "
                f"{MAX_DESCRIPTION_BYTES:,} are accepted.",
                reason="DESCRIPTION_TOO_LONG",
                field=f"{field}.description",
            )
        cleaned[name] = Label(name, label.description)
    return tuple(cleaned.values())
