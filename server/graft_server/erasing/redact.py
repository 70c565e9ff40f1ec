"""The job that takes what versions hold of erased examples out of them, in a worker.

It writes the parts of each version anew; the catalogue then makes them count. It must run while what is left of the
erased examples, their old segments and features, is still there to compare with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.model import ManifestRef
from graft_server.domain.report import DataReport, DuplicateGroup, Report
from graft_server.domain.views import names_of
from graft_server.erasing.contract import REDACT, Redacted, Redacting, Written
from graft_server.heads import Head, decode, encode
from graft_server.heads.graph import to_onnx
from graft_server.heads.graph_parity import check_parity
from graft_server.heads.redaction import coarsened, without
from graft_server.jobs.job import OnProgress, Place
from graft_server.store.adaptations.erasure import Erased, erased_examples
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.catalogue.versions import (
    HEAD,
    HEAD_ONNX,
    REPORT,
    has_tuned_layers,
    read_part,
    read_report,
    write_version,
)
from graft_server.store.objects.formats import stamped
from graft_server.store.objects.objects import Objects

PARITY_ROWS = 64
"""Random rows that the new graph is compared on, beside what is left of landmarks and anchors."""


@REDACT.done_by
def redact(payload: Redacting, place: Place, _: OnProgress) -> Redacted:
    """Writes versions anew, without features and ids of examples that were erased and not yet swept away."""
    objects = Objects.open(place.store)
    stores = [AdaptationStore.load(objects, payload.model, it) for it in payload.adaptations]
    erased = [it for store in stores for it in erased_examples(objects, store)]
    if not erased:
        return Redacted((None,) * len(payload.versions))
    return Redacted(tuple(_redacted(objects, it, erased) for it in payload.versions))


def _redacted(objects: Objects, version: Written, erased: Sequence[Erased]) -> ManifestRef | None:
    ref = version.manifest
    manifest, report = read_report(objects, ref)
    parts = {name: read_part(objects, ref, manifest, name) for name in manifest.parts}
    head = decode(parts[HEAD])
    if has_tuned_layers(manifest):
        redacted = None if version.redacted else coarsened(head)
    else:
        features = _features(erased, manifest.encoder_id, head.view)
        redacted = without(head, features) if len(features) else None
    cleaned = without_ids(report, {it.id for it in erased})
    if redacted is None and cleaned == report:
        return None
    if redacted is not None:
        parts[HEAD], parts[HEAD_ONNX] = encode(redacted), to_onnx(redacted)
        check_parity(decode(parts[HEAD]), parts[HEAD_ONNX], _rows(redacted))
    parts[REPORT] = stamped(cleaned)
    return write_version(objects, manifest, parts)


def _features(erased: Sequence[Erased], encoder_id: str, view: str) -> NDArray[np.float32]:
    """Shape (e, d): those of the erased examples that have the view, but for NaN, which no head has learned."""
    names = names_of(view)
    found = [it.features[encoder_id] for it in erased if encoder_id in it.features]
    rows = [np.concatenate([it[name] for name in names]) for it in found if it.keys() >= set(names)]
    return np.array([it for it in rows if np.isfinite(it).all()], np.float32)


def _rows(head: Head) -> NDArray[np.float16]:
    """Rows to compare the graph with the head on."""
    rng = np.random.default_rng(0)
    random = rng.standard_normal((PARITY_ROWS, head.dimension))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    return np.concatenate([random.astype(np.float16), head.novelty.anchors])


def without_ids(report: Report, ids: Collection[str]) -> Report:
    """The report without entries that name one of the examples. Counts and figures stay."""
    data, alike = report.data, report.look_alikes
    return dataclasses.replace(
        report,
        data=None if data is None else _data_without(data, ids),
        feature_map=tuple(it for it in report.feature_map if it.id not in ids),
        predicted_values=tuple(it for it in report.predicted_values if it.id not in ids),
        look_alikes=alike and dataclasses.replace(alike, largest=_groups_without(alike.largest, ids)),
    )


def _data_without(data: DataReport, ids: Collection[str]) -> DataReport:
    return dataclasses.replace(
        data,
        duplicate_groups=_groups_without(data.duplicate_groups, ids),
        near_duplicate_pairs=_groups_without(data.near_duplicate_pairs, ids),
        conflicts=_groups_without(data.conflicts, ids),
        validation_copy_pairs=_groups_without(data.validation_copy_pairs, ids),
        label_errors=tuple(it for it in data.label_errors if it.example.id not in ids),
    )


def _groups_without(groups: Sequence[DuplicateGroup], ids: Collection[str]) -> tuple[DuplicateGroup, ...]:
    """The groups without those examples, and without what is no group any more."""
    left = (
        dataclasses.replace(it, examples=tuple(one for one in it.examples if one.id not in ids))
        for it in groups
    )
    return tuple(it for it in left if len(it.examples) > 1)
