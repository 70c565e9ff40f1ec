"""Checks that a bundle answers like the server, on the training inputs that are most likely to reveal a difference."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.preprocessing import Prepared
from graft_server.backbones.text.preprocessor import TextPreprocessor
from graft_server.domain.errors import CorruptError, FaultError
from graft_server.domain.examples import Kind
from graft_server.domain.model import Manifest
from graft_server.domain.views import stacked
from graft_server.encoding.encoder import Features
from graft_server.exporting.runner.text import Classifier, Text
from graft_server.heads import rounding
from graft_server.heads.head import Comparison, Head
from graft_server.heads.rounding import BUNDLE_PARITY
from graft_server.store.adaptations.training_rows import Rows, read_rows
from graft_server.store.objects.objects import ObjectMissingError, Objects

PROBES = 64
REDUCED_PARITY = 0.1
"""The allowed error of a row of features, relative to its norm, if the encoder computes in fewer bits: its cosine is
then 0.995, as also required of such an encoder beside float32. Found: 1 of 12 texts by 0.064, the others by 5e-7."""
TOKENS = 4096
"""A batch's limit: with a backbone that reads long texts, attention over 16 of them would not fit in memory."""
_PACKED, _PADDED = 8, 16
"""Texts per batch, different on purpose: the answer may not depend on the rest of the batch."""

_log = logging.getLogger(__name__)

T = TypeVar("T", bound=Sized)
Array = NDArray[np.float32]


class Encodes(Protocol):
    """The encoder of a version: the backbone, with tuned layers if it has any."""

    def encode(self, items: Sequence[Any]) -> Features:
        """See `Encoder.encode`."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """One input to compare the answers on."""

    served: NDArray[np.int64]
    """shape (tokens,): the server's token ids."""
    text: Text | None
    """The text; None: it was made up, and the bundle gets the same token ids."""


def probes(objects: Objects, manifest: Manifest, head: Head, preprocessor: TextPreprocessor) -> list[Probe]:
    """Returns up to 64 training inputs: the shortest, the longest, and the inputs with the smallest margins.

    It returns random token ids if the examples can no longer be read: their version may still be exported.
    """
    rows = readable_rows(objects, manifest)
    if rows is None or not rows.examples:
        return _random_probes(preprocessor)
    inputs = [rows.examples[i].input for i in telling(rows, head)]
    found = [
        Probe(prepared.item, (value.text, value.second) if value.kind is Kind.TEXT_PAIR else value.text)
        for prepared, value in zip(preprocessor.many(inputs), inputs, strict=True)
        if isinstance(prepared, Prepared)  # features from callers have no tokens
    ]
    return found or _random_probes(preprocessor)


def readable_rows(objects: Objects, manifest: Manifest) -> Rows | None:
    """Returns the examples that a version was trained on; None if they can no longer be read."""
    try:
        return read_rows(objects, manifest.model, manifest.sources, manifest.encoder_id)
    except (ObjectMissingError, CorruptError) as error:
        _log.warning("the bundle is checked on made-up inputs, not on training examples: %s", error.message)
        return None


def check_parity(
    bundle: Path, encoder: Encodes, head: Head, inputs: Sequence[Probe], *, reduced: bool = False
) -> None:
    """Raises FaultError unless the bundle answers like encoder and head.

    Args:
        bundle: A folder with all files of a bundle.
        encoder: The encoder that serves.
        head: The head that serves.
        inputs: At least one.
        reduced: Whether the encoder computes in fewer bits than 32. Each input is a batch of its own then: the
            scale that it rounds with is the batch's, so texts differ with their company. Of the bundle's own features
            the head must make the same answers all the same.
    """
    classifier = Classifier(bundle)
    ids = [
        list(map(int, probe.served)) if probe.text is None else classifier.tokenize([probe.text])[0]
        for probe in inputs
    ]
    features = np.concatenate(
        [
            read_by(head, encoder.encode(batch))
            for batch in _batches([it.served for it in inputs], 1 if reduced else _PACKED)
        ]
    )
    bundled = [classifier.run(batch) for batch in _batches(ids, 1 if reduced else _PADDED)]
    require_same(head, features, bundled, reduced=reduced)


def require_same(
    head: Head, features: Array, bundled: Sequence[Mapping[str, NDArray[Any]]], *, reduced: bool = False
) -> None:
    """Raises FaultError unless a bundle's outputs equal the head's, apart from rounding.

    Args:
        head: The head that serves.
        features: shape (n, d): the features that it reads.
        bundled: The outputs of the bundle's graph for the same inputs, in batches.
        reduced: See `check_parity`.
    """
    if reduced:
        read = np.concatenate([outputs["features"] for outputs in bundled])
        _require_near(features, read)
        features = read
    allowed, _ = rounding.allowance(head, features)
    outputs = {name: np.concatenate([batch[name] for batch in bundled]) for name in bundled[0]}
    _require_close(head.compared(features, outputs, allowed))


def _require_near(served: Array, bundled: Array) -> None:
    """Raises FaultError unless most rows of features, shape (n, d), equal the served ones and none is far off."""
    off = np.linalg.norm(bundled - served, axis=1) / np.linalg.norm(served, axis=1)
    # The negation makes NaN fail too.
    if not (np.median(off) <= BUNDLE_PARITY and off.max() <= REDUCED_PARITY):
        raise FaultError(
            f"The composed bundle does not read inputs as the served version does: on {len(served)} of them its "
            f"features differ by {np.median(off):.1e} of their norm in the median (at most {BUNDLE_PARITY:.0e} "
            f"is accepted) and by up to {off.max():.1e} ({REDUCED_PARITY:.0e}). It was not handed out; please report "
            "it.",
            reason="BUNDLE_PARITY",
        )


def _require_close(found: Comparison) -> None:
    off = np.abs(found.bundled - found.served)
    # The negation makes NaN fail too.
    if not ((off <= found.allowed).all() and found.other == 0):
        worst = np.unravel_index(np.argmax(off / found.allowed), off.shape)
        raise FaultError(
            f"The composed bundle does not answer as the served version does: on {len(off)} inputs its {found.name} "
            f"differ by up to {off[worst]:.1e} (at most {found.allowed[worst]:.0e} is accepted there), and "
            f"{found.other} labels are others. It was not handed out; please report it.",
            reason="BUNDLE_PARITY",
        )


def telling(rows: Rows, head: Head, count: int = PROBES) -> list[int]:
    """Returns indices of up to `count` examples, without repeats, short and long ones mixed.

    Those without features are none of them: the backbone cannot read them.
    """
    features = read_by(head, rows.features)
    readable = np.flatnonzero(np.isfinite(features).all(axis=1))
    lengths = np.array([rows.examples[i].input.size for i in readable])
    shortest = readable[np.argsort(lengths, kind="stable")]
    closest = readable[np.argsort(head.margins(features[readable]), kind="stable")]
    chosen: dict[int, None] = {}
    # In turns, so that every batch has a short, a long and a close one.
    for three in zip(shortest, shortest[::-1], closest, strict=True):
        chosen |= dict.fromkeys(map(int, three))
        if len(chosen) >= count:
            break
    return list(chosen)[:count]


def read_by(head: Head, features: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Returns the features that the head reads, shape (n, d)."""
    return stacked(features, head.view).astype(np.float32)


def _random_probes(preprocessor: TextPreprocessor) -> list[Probe]:
    generator = np.random.default_rng(0)
    # Mostly as short as real texts, with an occasional long one.
    lengths = np.minimum(2 + generator.geometric(1 / 16, PROBES), 128)
    return [Probe(preprocessor.made_up(generator, int(length)), None) for length in lengths]


def _batches(texts: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yields batches of up to `size` sequences, with at most TOKENS including padding, unless one alone has more."""
    start, longest = 0, 0
    for end, text in enumerate(texts):
        longest = max(longest, len(text))
        if end - start == size or (end > start and (end - start + 1) * longest > TOKENS):
            yield texts[start:end]
            start, longest = end, len(text)
    yield texts[start:]
