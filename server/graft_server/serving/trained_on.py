"""Which inputs a version was trained on: a caller's examples with the same ones say nothing of how good it is.

They are read from the store when a version is measured, so that whichever server measures it knows them, and so that
what was erased is known to none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from graft_server.domain.errors import CorruptError
from graft_server.domain.examples import DIGEST_BYTES, Input, Split
from graft_server.domain.model import Manifest
from graft_server.domain.wording import wording_digest
from graft_server.store.adaptations.training_rows import read_reduced
from graft_server.store.objects.objects import ObjectMissingError, Objects

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """The inputs that a version was trained on, as digests."""

    digests: frozenset[bytes]
    """Those of the inputs themselves."""
    wordings: frozenset[bytes]
    """Those of what is left of texts without case, spacing, punctuation and invisible characters."""
    complete: bool
    """Whether all examples that the version was trained on could be read: some may have been erased since."""

    def knows(self, inputs: Sequence[Input]) -> list[bool]:
        """Returns, for each input, whether the version was trained on it, whatever its label, or on a copy of it."""
        return [it.digest() in self.digests or wording_digest(it) in self.wordings for it in inputs]


def read_trained_on(objects: Objects, manifest: Manifest, *, erased: bool) -> TrainedOn:
    """Reads which inputs a version was trained on; those of validation examples are not among them.

    Args:
        objects: The store.
        manifest: The version's manifest.
        erased: Whether it may have been trained on examples that have since been erased.
    """
    try:
        found = read_reduced(objects, manifest.model, manifest.sources, _digests_of)
    except (ObjectMissingError, CorruptError) as error:
        _log.warning("the training examples of %s cannot be read: %s", manifest.model, error.message)
        return TrainedOn(frozenset(), frozenset(), complete=False)
    labels = {label.name for label in manifest.labels}
    # What was sent without a target, or with one beside a closed set of labels, was left out of training.
    trained = [
        it.input.data
        for it in found
        if it.labelled and it.split is not Split.VALIDATION and labels.issuperset(it.labels)
    ]
    return TrainedOn(
        frozenset(it[:DIGEST_BYTES] for it in trained),
        frozenset(it[DIGEST_BYTES:] for it in trained if len(it) > DIGEST_BYTES),
        complete=not erased,
    )


def _digests_of(value: Input) -> Input:
    """Returns, in place of an input, the digests by which it is known again."""
    return Input(kind=value.kind, data=value.digest() + wording_digest(value))
