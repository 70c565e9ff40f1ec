"""From raw inputs to the inputs of an encoder's graph: the interface of every modality.

One module per modality implements `Preprocessor`, without torch. No other code on an input's way knows its
modality: the batcher fills its batches by the length of items, the encoder hands them to `collate`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Input, Kind, Modality
from graft_server.domain.views import POOLED

_log = logging.getLogger(__name__)

FEATURES_VIEW = "FEATURES_VIEW"
"""The reason of an error about features that the model's head does not read."""
Arrays = Mapping[str, NDArray[Any]]
"""The inputs of a graph, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One input, ready for the encoder."""

    item: Any
    """An item for `Preprocessor.collate`. Its length is its size in a batch: tokens of a text, patches of
    an image, frames of a clip."""
    truncated: bool = False
    """Whether its end was cut off."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """The costs of a batch that are worth trying; the first is the usual one."""

    cpu: tuple[int, ...]
    gpu: tuple[int, ...]


class Preprocessor(Protocol):
    """The preparation of one backbone's inputs. Safe to use from several threads.

    Attributes:
        modality: The modality that the backbone reads.
        kinds: The kinds of input that it takes.
        budgets: The costs of a batch that are worth trying.
        longest: What it reads of an input at most, in words, such as "256 tokens"; "": an input has no length.
        always_reads: Whether it can read every input of its kinds, so that none has to be prepared to find out.
        warnings: What users of the backbone's files should know, in sentences.
    """

    modality: Modality
    kinds: frozenset[Kind]
    budgets: Budgets
    longest: str
    always_reads: bool
    warnings: tuple[str, ...]

    def prepare(self, value: Input) -> Prepared:
        """Prepares one input.

        Raises:
            InvalidError: It cannot be read, or is of a kind that the backbone does not take.
        """

    def many(self, inputs: Sequence[Input]) -> list[Prepared | InvalidError]:
        """Prepares several; a bad one fails alone. May use all cores."""

    def quick(self, inputs: Sequence[Input]) -> bool:
        """Whether preparing them takes less than handing them to a thread would."""

    def collate(self, items: Sequence[Any]) -> Arrays:
        """The graph's inputs for n >= 1 prepared items."""

    def price(self, count: int, total: int, longest: int) -> float:
        """Returns the cost of a batch of `count` items, in the unit of their length.

        Args:
            count: How many items it has.
            total: Their lengths together.
            longest: The length of the longest.
        """

    def made_up(self, generator: np.random.Generator, length: int) -> Sized:
        """A random item, as near to that length as the backbone reads, for checking."""

    def typical(self, generator: np.random.Generator) -> Sized:
        """A random item as real ones are, for measuring."""

    def shortest(self) -> Sized:
        """The cheapest item there is, for asking an encoder whether it answers."""


_ODD = ((2,), (3, 5), (17, 2, 31), (64, 3, 3, 9, 33, 7, 2), (5,) * 13, (129, 4), (sys.maxsize, 2))


def odd_batches(preprocessor: Preprocessor) -> Iterator[list[Any]]:
    """Batches of made-up items of odd lengths, the longest that is read among them: what graphs are compared on."""
    generator = np.random.default_rng(0)
    for lengths in _ODD:
        yield [preprocessor.made_up(generator, length) for length in lengths]


def each_alone(
    prepare: Callable[[Input], Prepared], inputs: Sequence[Input]
) -> list[Prepared | InvalidError]:
    """Prepares inputs one after the other; a bad one fails alone."""
    return [alone(prepare, value) for value in inputs]


def alone(prepare: Callable[[Input], Prepared], value: Input) -> Prepared | InvalidError:
    """Prepares one input; returns its error, whatever it is: those that are prepared with it are not at fault."""
    try:
        return prepare(value)
    except InvalidError as error:
        return error
    except Exception:  # noqa: BLE001 - whatever a file or a text makes a library raise
        _log.exception("preparing an input of kind %s", value.kind)
        return InvalidError(
            f"The {value.kind} cannot be prepared for the backbone; the server's log has the details. Send it in "
            "another form.",
            reason="INPUT_UNREADABLE",
            field=str(value.kind),
        )


def wrong_modality(kind: Kind, modality: Modality, kinds: frozenset[Kind]) -> InvalidError:
    """Returns the error for an input that the model's backbone cannot read."""
    takes = ", ".join(sorted(kinds))
    return InvalidError(
        f"The input is of kind {kind}, but the model's backbone reads {modality}: give {takes}, or features of it.",
        reason="INPUT_WRONG_MODALITY",
        metadata={"kind": str(kind), "modality": str(modality), "accepted": takes},
    )


def features_unread(view: str, *, tuned: bool) -> InvalidError | None:
    """Returns why a model cannot answer features from a caller; None if it can.

    Args:
        view: The features that the model's head reads.
        tuned: Whether layers of its backbone are tuned.
    """
    if tuned:
        return InvalidError(
            "The model's backbone is tuned, so features of the frozen one say nothing to it: send the input itself.",
            reason=FEATURES_VIEW,
        )
    if view != POOLED:
        return InvalidError(
            f"The model's head reads the view {view}, and features that a caller has are {POOLED} alone: send the "
            "input itself, or adapt a model from features.",
            reason=FEATURES_VIEW,
        )
    return None


def ready_features(value: Input, dimension: int) -> NDArray[np.float32]:
    """An input of kind FEATURES as a unit-norm vector of shape (dimension,).

    Raises:
        InvalidError: The vector has another length, or is not finite, or 0.
    """
    vector = np.frombuffer(value.data, "<f4")
    if len(vector) != dimension:
        raise InvalidError(
            f"The features have {len(vector):,} numbers, but the model's backbone gives {dimension:,}: send "
            "features of that backbone.",
            reason="FEATURES_DIMENSION",
            metadata={"dimension": str(dimension)},
        )
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length) or length == 0:
        raise InvalidError(
            "The features are not finite numbers, or all 0: send those that the backbone gave.",
            reason="FEATURES_INVALID",
        )
    return (vector / length).astype(np.float32)
