"""Which version has the examples of a commit already: the base, where only what it has was sent once more.

This holds where examples are matched by content alone: there a file that is sent again is meant as the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from graft_server.domain.adaptation import AdaptationSettings
from graft_server.domain.errors import MissingError
from graft_server.domain.model import Manifest
from graft_server.store.adaptations.segments import recorded, walk
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.catalogue.snapshot import Snapshot
from graft_server.store.catalogue.versions import read_manifest
from graft_server.store.objects.objects import Objects


def version_with_the_same(
    objects: Objects, snapshot: Snapshot, store: AdaptationStore, commit_id: str, encoder_id: str
) -> int:
    """Returns the version that was made of the very examples that a commit asks for, in the same way; 0: none."""
    base = store.start.extends
    if base is None or not store.start.settings.match_content:
        return 0
    wanted = store.commits[commit_id].watermarks
    for version, reached in _published(store, base.base_version):
        if not all(reached.get(writer, 0) <= end for writer, end in wanted.items()):
            continue
        if not _changes_nothing(store, reached, wanted):
            return 0  # and nothing that reaches less far
        if version != base.base_version:
            return version
        return version if _made_alike(objects, snapshot, store, version, encoder_id) else 0
    return 0


def _published(store: AdaptationStore, base_version: int) -> Iterator[tuple[int, Mapping[str, int]]]:
    """Yields what was published of an adaptation, newest first, with how far each reaches; at the end its base."""
    for commit_id, outcome in reversed(list(store.outcomes.items())):
        if outcome.version and outcome.version != base_version:
            yield outcome.version, store.commits[commit_id].watermarks
    yield base_version, {}


def _changes_nothing(store: AdaptationStore, after: Mapping[str, int], until: Mapping[str, int]) -> bool:
    """Whether what lies between two places of each writer's stream repeats what the base has, or was refused."""
    return not any(
        it.record.change is not None and not (it.record.renames and it.record.unchanged)
        for writer_id, end in until.items()
        for segment, first in walk(partial(store.segment, writer_id), end)
        for it in recorded(segment, max(first, after.get(writer_id, 0)), end)
    )


def _made_alike(
    objects: Objects, snapshot: Snapshot, store: AdaptationStore, number: int, encoder_id: str
) -> bool:
    """Whether the base is what training would give: its encoder and its settings are asked for, or no others are."""
    known = snapshot.models.get(store.model)
    version = known.versions.get(number) if known else None
    if version is None:
        return False
    manifest: Manifest = read_manifest(objects, version.manifest)
    if manifest.encoder_id != encoder_id:
        return False
    try:
        made = AdaptationStore.load(objects, store.model, manifest.sources[-1].adaptation_id).start.settings
    except MissingError:
        return False
    asked, unsaid = store.start.settings, AdaptationSettings(backbone="")
    names = ("labels", "closed_labels", "method", "seed", "fine_tuning", "time_budget_s")
    return all(getattr(asked, it) in (getattr(made, it), getattr(unsaid, it)) for it in names)
