"""What a version has stored: the inputs that are labelled, and the unlabelled examples that may be next."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import CorruptError, NewerError
from graft_server.domain.examples import DIGEST_BYTES, Example, Input
from graft_server.domain.model import Manifest
from graft_server.domain.views import names_of, stacked
from graft_server.domain.wording import wording_digest
from graft_server.store.adaptations.training_rows import read_reduced
from graft_server.store.catalogue.versions import has_tuned_layers
from graft_server.store.objects.objects import ObjectMissingError, Objects

_log = logging.getLogger(__name__)

MAX_FEATURED = 100_000
"""The most stored examples, labelled or not, whose features are read."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """What a version has stored."""

    digests: frozenset[bytes] = frozenset()
    """The digests of inputs that are labelled."""
    wordings: frozenset[bytes] = frozenset()
    """Those of their texts without case, spacing and punctuation."""
    labelled: NDArray[np.float16] | None = None
    """shape (m, d): the features that the head reads of the inputs that are labelled; None: they are not read."""
    unlabelled: tuple[Example, ...] = ()
    """The unlabelled examples, each with its digests in the place of its input."""
    features: NDArray[np.float16] | None = None
    """shape (n, d): the features that the head reads of the unlabelled ones; None: they are not read."""

    def knows(self, digest: bytes, wording: bytes) -> bool:
        """Whether an input, or a text of the same wording, is labelled."""
        return digest in self.digests or wording in self.wordings


def read_stored(objects: Objects, manifest: Manifest, view: str) -> Stored:
    """Reads what a version has stored.

    Args:
        objects: The store.
        manifest: The version's manifest.
        view: The features that its head reads.
    """
    # Of a tuned backbone's features none are stored.
    of_frozen = not has_tuned_layers(manifest)
    for encoder_id in [manifest.encoder_id, ""] if of_frozen else [""]:
        try:
            found, features = read_reduced(
                objects,
                manifest.model,
                manifest.sources,
                _digests_of,
                encoder_id,
                views=names_of(view),
                most_featured=MAX_FEATURED,
            )
        except (ObjectMissingError, CorruptError, NewerError) as error:
            _log.warning("stored examples of %s cannot be read: %s", manifest.model, error.message)
        else:
            return _stored(found, stacked(features, view) if features.keys() >= {*names_of(view)} else None)
    return Stored()


def _stored(found: Sequence[Example], features: NDArray[np.float16] | None) -> Stored:
    labelled = np.array([it.labelled for it in found], bool)
    digests = frozenset(it.input.data[:DIGEST_BYTES] for it in found if it.labelled)
    wordings = frozenset(it.input.data[DIGEST_BYTES:] for it in found if it.labelled) - {b""}
    unlabelled = tuple(it for it in found if not it.labelled)
    if features is None:
        return Stored(digests, wordings, None, unlabelled)
    return Stored(digests, wordings, features[labelled], unlabelled, features[~labelled])


def digests_of(value: Input) -> tuple[bytes, bytes]:
    """Returns the digests by which an input is known again: its own, and that of its wording; b"": it has none."""
    return value.digest(), wording_digest(value)


def _digests_of(value: Input) -> Input:
    return Input(kind=value.kind, data=b"".join(digests_of(value)))
