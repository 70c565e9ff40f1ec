"""Which inputs a version was trained on: a caller's examples with the same ones say nothing of how good it is.

They are read from the store when a version is measured, so that whichever server measures it knows them, and so that
what was erased is known to none.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import CorruptError, NewerError
from graft_server.domain.examples import DIGEST_BYTES, Example, Input, Split
from graft_server.domain.model import Manifest
from graft_server.domain.wording import wording_digest
from graft_server.store.adaptations.training_rows import read_reduced
from graft_server.store.catalogue.versions import has_tuned_layers
from graft_server.store.objects.objects import ObjectMissingError, Objects
from graft_server.training.examples.copies import copies_among
from graft_server.training.examples.training_set import ClassifiedSet

MAX_COMPARED = 20_000
"""The most examples that a version was trained on, and the most of a caller's, that are compared by their features."""

_log = logging.getLogger(__name__)

Features = dict[str, NDArray[np.float16]]
"""View name to features of shape (n, d)."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedRows:
    """n inputs that a version was trained on. Row i of everything is input i."""

    digests: tuple[bytes, ...]
    """Digests of the inputs themselves."""
    wordings: tuple[bytes, ...]
    """Digests of what is left of texts without case, spacing, punctuation and invisible characters; b"": nothing."""
    features: Features
    """What the backbone makes of them; empty if that is not compared."""
    labels: tuple[tuple[str, ...], ...]
    """The labels of each."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedOn:
    """The inputs that a version was trained on."""

    rows: TrainedRows
    digests: frozenset[bytes]
    """Those of the rows."""
    wordings: frozenset[bytes]
    """Those of the rows, of which something is left."""
    complete: bool
    """Whether all examples that the version was trained on could be read: some may have been erased since."""

    def knows(self, inputs: Sequence[Input]) -> list[bool]:
        """Returns, for each input, whether the version was trained on it, or on a text of the same wording."""
        return [it.digest() in self.digests or wording_digest(it) in self.wordings for it in inputs]


class NearCopies:
    """Finds the examples among a caller's whose features are those of near copies of what a version was trained on.

    Attributes:
        views: The views in which they are compared.
    """

    def __init__(self, trained: TrainedRows) -> None:
        """Begins without examples."""
        self.views: Collection[str] = trained.features.keys()
        self._trained = trained
        self._places: list[int] = []
        self._keys: list[tuple[bytes, bytes]] = []
        self._features: list[Mapping[str, NDArray[np.float16]]] = []
        self._labels: list[tuple[str, ...]] = []

    def add(self, place: int, example: Example, features: Mapping[str, NDArray[np.float16]]) -> None:
        """Takes in an example at a place, with its features of shape (d,) in the views that it has."""
        if self.views and features.keys() == self.views and len(self._places) < MAX_COMPARED:
            self._places.append(place)
            self._keys.append((example.input.digest(), wording_digest(example.input)))
            self._features.append(features)
            self._labels.append(example.labels)

    def found(self) -> set[int]:
        """Returns the places of those that are copies."""
        if not self._places:
            return set()
        own, trained = len(self._places), self._trained
        n = own + len(trained.digests)
        numbers: dict[tuple[str, ...], int] = {}
        labels = [numbers.setdefault(it, len(numbers)) for it in (*self._labels, *trained.labels)]
        every = ClassifiedSet(
            classes=tuple(map(str, numbers)),
            descriptions=("",) * len(numbers),
            labels=np.array(labels, np.int32),
            weights=np.ones(n),
            validation=np.zeros(n, bool),
            groups=np.arange(n),
            ids=("",) * n,
            origins=(("", 0),) * n,
            input_digests=(*(digest for digest, _ in self._keys), *trained.digests),
            wordings=(*(wording for _, wording in self._keys), *trained.wordings),
            features={
                view: np.concatenate([[it[view] for it in self._features], trained.features[view]])
                for view in self.views
            },
        )
        bound = copies_among(every, np.arange(n), seed=0, probable=False).bound
        copies = np.isin(bound[:own], bound[own:])
        return {self._places[row] for row in np.flatnonzero(copies)}


def read_trained_on(objects: Objects, manifest: Manifest, examples: int, *, erased: bool) -> TrainedOn:
    """Reads which inputs a version was trained on; those of validation examples are not among them.

    Args:
        objects: The store.
        manifest: The version's manifest.
        examples: About how many there are.
        erased: Whether it may have been trained on examples that have since been erased.
    """
    # Of a tuned backbone's features none are stored.
    compared = examples <= MAX_COMPARED and not has_tuned_layers(manifest)
    for encoder_id in [manifest.encoder_id, ""] if compared else [""]:
        try:
            found, features = read_reduced(
                objects, manifest.model, manifest.sources, _digests_of, encoder_id=encoder_id
            )
        except (ObjectMissingError, CorruptError, NewerError) as error:
            _log.warning("training examples of %s cannot be read: %s", manifest.model, error.message)
        else:
            return _trained_on(manifest, found, features, erased=erased)
    return TrainedOn(TrainedRows((), (), {}, ()), frozenset(), frozenset(), complete=False)


def _trained_on(
    manifest: Manifest, found: Sequence[Example], features: Features, *, erased: bool
) -> TrainedOn:
    labels = {label.name for label in manifest.labels}
    # What was sent without a target or weight, or with a label beside a closed set, was left out of training.
    trained = [
        row
        for row, it in enumerate(found)
        if it.labelled and it.weight > 0 and it.split is not Split.VALIDATION and labels.issuperset(it.labels)
    ]
    keys = [found[row].input.data for row in trained]
    rows = TrainedRows(
        tuple(it[:DIGEST_BYTES] for it in keys),
        tuple(it[DIGEST_BYTES:] for it in keys),
        {view: array[trained] for view, array in features.items()} if len(trained) <= MAX_COMPARED else {},
        tuple(found[row].labels for row in trained),
    )
    return TrainedOn(rows, frozenset(rows.digests), frozenset(rows.wordings) - {b""}, complete=not erased)


def _digests_of(value: Input) -> Input:
    """Returns, in place of an input, the digests by which it is known again."""
    return Input(kind=value.kind, data=value.digest() + wording_digest(value))
