"""From a lineage of changes to the examples that count, with their features: the training data of a version."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Change, Example, Input, StoredExample
from graft_server.domain.extension import Extension
from graft_server.domain.model import Source
from graft_server.store.adaptations.features import StoredFeatures, read_features
from graft_server.store.adaptations.generations import Generations
from graft_server.store.adaptations.keys import adaptation_folder, features_key, writer_folder
from graft_server.store.adaptations.lineage import Lineage, Row
from graft_server.store.adaptations.segments import Recorded, read_current, recorded, walk
from graft_server.store.objects.objects import ObjectMissingError, Objects, corrupt

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rows:
    """n examples. Row i of everything is example i."""

    examples: tuple[Example, ...]
    origins: tuple[tuple[str, int], ...]
    """(writer, sequence) of the change that gave the example its present state."""
    features: dict[str, NDArray[np.float16]]
    """View name to features of shape (n, d), for the views that all rows have; empty if n is 0."""
    truncated: NDArray[np.bool_]
    """shape (n,): whether the input is longer than the encoder reads; False where that was not noted."""
    generations: dict[str, int]
    """Adaptation to the generation of its segments that was read."""
    replaced: int = 0
    """Changes that gave another input to an id that the same adaptation had given to an example before."""
    lineage: Lineage = field(default_factory=Lineage, compare=False)
    """How the last adaptation of the lineage changed the examples of those before it."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """How many changes of the last adaptation of the lineage were refused, by the reason, most frequent first."""

    def extension(self, base: Extension | None) -> Extension | None:
        """Returns what came of the examples beside those of a base; None: there is none."""
        return None if base is None else self.lineage.extension(base)


def read_rows(objects: Objects, model: str, sources: Sequence[Source], encoder_id: str) -> Rows:
    """Returns the examples of a lineage in their latest state, without deleted ones.

    The latest change of an id wins, by place of the adaptation in the lineage, then writer, then sequence;
    rows come in that order too. So the result does not depend on how the writers' streams interleaved.

    Raises:
        ObjectMissingError: A segment or its features are missing, or features were damaged. metadata["object"] names
            the object.
        CorruptError: A segment is damaged.
    """

    def read(generations: Mapping[str, Generations]) -> Rows:
        lineage = _read_lineage(objects, model, sources, generations, encoder_id)
        kept = tuple(lineage.rows.values())
        encoded = _read_features(objects, kept)
        return Rows(
            lineage=lineage,
            examples=tuple(it.example for it in kept),
            origins=tuple(it.origin for it in kept),
            features=dict(encoded.features),
            truncated=encoded.truncated,
            generations={},
            replaced=sum(it.replaced for it in kept),
            refused=dict(lineage.refused.most_common()),
        )

    rows, generations = _unreplaced(objects, model, sources, read)
    return replace(rows, generations=generations)


def read_inputs(objects: Objects, model: str, sources: Sequence[Source]) -> dict[str, Input]:
    """Returns the inputs of the examples that `read_rows` returns, by the examples' ids, and reads no features.

    Raises:
        ObjectMissingError: A segment is missing.
        CorruptError: A segment is damaged.
    """

    def read(generations: Mapping[str, Generations]) -> dict[str, Input]:
        kept = _current_rows(objects, model, sources, "", generations)
        return {it.example.id: it.example.input for it in kept}

    return _unreplaced(objects, model, sources, read)[0]


def read_states(objects: Objects, model: str, sources: Sequence[Source]) -> list[StoredExample]:
    """Returns where the examples that `read_rows` returns are stored, in its order, each with a digest as its input.

    Returns:
        The examples; `adaptation_id` is the name that the adaptation is stored by.

    Raises:
        ObjectMissingError: A segment is missing.
        CorruptError: A segment is damaged.
    """

    def read(generations: Mapping[str, Generations]) -> list[StoredExample]:
        kept = _current_rows(objects, model, sources, "", generations, reduced=digest_of)
        return [StoredExample(it.source, *it.origin, it.example, superseded=False) for it in kept]

    return _unreplaced(objects, model, sources, read)[0]


def read_reduced(
    objects: Objects,
    model: str,
    sources: Sequence[Source],
    reduced: Callable[[Input], Input],
    encoder_id: str = "",
    *,
    views: Collection[str] | None = None,
    most_featured: int = sys.maxsize,
) -> tuple[tuple[Example, ...], dict[str, NDArray[np.float16]]]:
    """Returns what `read_rows` does, each example with what `reduced` makes of its input.

    No more than the inputs of one segment are in memory at once.

    Args:
        objects: The store.
        model: The model.
        sources: The lineage.
        reduced: Makes something small of an input.
        encoder_id: The encoder whose features are read; "": none are.
        views: The views that are read; None: all.
        most_featured: The most examples whose features are read; of more, none are.

    Returns:
        The examples, and their features by view.

    Raises:
        ObjectMissingError: A segment or its features are missing.
        CorruptError: A segment is damaged.
    """

    def read(
        generations: Mapping[str, Generations],
    ) -> tuple[tuple[Example, ...], dict[str, NDArray[np.float16]]]:
        kept = _current_rows(objects, model, sources, encoder_id, generations, reduced=reduced)
        featured = bool(encoder_id) and len(kept) <= most_featured
        features = dict(_read_features(objects, kept, views).features) if featured else {}
        return tuple(it.example for it in kept), features

    return _unreplaced(objects, model, sources, read)[0]


def _unreplaced(
    objects: Objects, model: str, sources: Sequence[Source], read: Callable[[Mapping[str, Generations]], T]
) -> tuple[T, dict[str, int]]:
    """What `read` gives of segments that were not replaced meanwhile, and the generation of each adaptation's."""
    generations = {
        it.adaptation_id: Generations(objects, adaptation_folder(model, it.adaptation_id)) for it in sources
    }
    while True:
        numbers = {adaptation_id: it.refresh() for adaptation_id, it in generations.items()}
        try:
            return read(generations), numbers
        except ObjectMissingError:
            if all(generations[it].refresh() == number for it, number in numbers.items()):
                raise  # it was not replaced during the read


def read_lineage(objects: Objects, model: str, sources: Sequence[Source]) -> Lineage:
    """Returns the examples of a lineage, each with `digest_of` its input; reads no features.

    Raises:
        ObjectMissingError: A segment is missing.
        CorruptError: A segment is damaged.
    """

    def read(generations: Mapping[str, Generations]) -> Lineage:
        return _read_lineage(objects, model, sources, generations, reduced=digest_of)

    return _unreplaced(objects, model, sources, read)[0]


def digest_of(value: Input) -> Input:
    """Returns something small in the place of an input, which is equal for equal inputs."""
    return Input(kind=value.kind, data=value.digest())


def digested(change: Change) -> Change:
    """Returns a change with `digest_of` its input."""
    if change.upsert is None:
        return change
    return replace(change, upsert=replace(change.upsert, input=digest_of(change.upsert.input)))


def _current_rows(
    objects: Objects,
    model: str,
    sources: Sequence[Source],
    encoder_id: str,
    generations: Mapping[str, Generations],
    *,
    reduced: Callable[[Input], Input] | None = None,
) -> tuple[Row, ...]:
    lineage = _read_lineage(objects, model, sources, generations, encoder_id, reduced=reduced)
    return tuple(lineage.rows.values())


def _read_lineage(
    objects: Objects,
    model: str,
    sources: Sequence[Source],
    generations: Mapping[str, Generations],
    encoder_id: str = "",
    *,
    reduced: Callable[[Input], Input] | None = None,
) -> Lineage:
    lineage = Lineage()
    for source in sources:
        lineage.begin(source.adaptation_id)
        of_source = generations[source.adaptation_id]
        for writer_id, next_sequence in sorted(source.watermarks.items()):
            folder = writer_folder(model, source.adaptation_id, writer_id)
            read = partial(read_current, objects, folder, of_source, writer_id)
            for segment, first in walk(read, next_sequence):
                key = features_key(model, source.adaptation_id, encoder_id, writer_id, segment.name)
                for it in recorded(segment, first, next_sequence):
                    lineage.apply(it if reduced is None else _reduced(it, reduced), writer_id, key)
    return lineage


def _reduced(recorded: Recorded, reduced: Callable[[Input], Input]) -> Recorded:
    change = recorded.record.change
    if change is None or change.upsert is None:
        return recorded
    small = replace(change, upsert=replace(change.upsert, input=reduced(change.upsert.input)))
    return replace(recorded, record=msgspec.structs.replace(recorded.record, change=small))


def _read_features(
    objects: Objects, rows: Sequence[Row], views: Collection[str] | None = None
) -> StoredFeatures:
    # Rows are in the order of their segments, so each segment's features are read once.
    wanted: dict[str, list[int]] = {}
    for row in rows:
        wanted.setdefault(row.features_key, []).append(row.row)
    pieces: dict[str, list[NDArray[np.float16]]] = {}
    truncated = [np.zeros(0, bool)]
    for key, indices in wanted.items():
        stored = read_features(objects, key)
        features = {view: it for view, it in stored.features.items() if views is None or view in views}
        truncated.append(stored.truncated[indices])
        # If a caller sent features instead of inputs, a segment has only their one view.
        shared = features.keys() & pieces.keys() if pieces else features.keys()
        if not shared:
            raise corrupt(key, "it has none of the views of other segments")
        pieces = {
            view: [*pieces.get(view, ()), array[indices]]
            for view, array in features.items()
            if view in shared
        }
    joined = {view: np.concatenate(arrays) for view, arrays in pieces.items()}
    return StoredFeatures(joined, np.concatenate(truncated))
