"""What every head can do, whatever its task: the one interface that the rest of the server knows heads by.

A head is a small function of the features. Each task has a module with its kind of head: what it answers, how it is
stored, its nodes in an ONNX graph, and how far two correct ways to compute it may differ. `codec.HEADS` lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from graft_server.domain.examples import Label, Task
from graft_server.domain.prediction import Answer
from graft_server.domain.report import Measured
from graft_server.evaluation.answered import Answered
from graft_server.heads.maps import Map
from graft_server.heads.nodes import Nodes
from graft_server.heads.novelty import Novelty

Array = NDArray[np.float32]


class HeadOutput(Protocol):
    """What a head says of n inputs: arrays, of which each dataclass field is one, with a row for each input."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def novelty(self) -> Array:
        """Shape (n,): the share of training examples that are less strange, 0 to 1."""

    def read(self, top_k: int) -> dict[str, NDArray[Any]]:
        """What `Head.answers` needs of each row and the novelty, by name; answers have at most `top_k` scores.

        What can be done for many rows at once, as finding the best labels, is done here, on the encoder's thread.
        Rows of one request may meet in different batches: an array has the same width everywhere.
        """


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """One output of a head's graph, beside the novelty."""

    name: str
    shape: tuple[int | str, ...]
    """A size, or the name of one that is known at run time: "n" is the number of inputs."""
    dtype: DTypeLike = field(default=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What a bundle answers beside what is served, on the same inputs."""

    name: str
    """The output that is compared."""
    served: Array
    bundled: Array
    """Of the shape of `served`."""
    allowed: NDArray[np.floating]
    """How far each number may be off, of the same shape."""
    other: int = 0
    """How many labels are others where no rounding explains it."""


class Head(Protocol):
    """A function from features to answers of one task, and a novelty."""

    task: ClassVar[Task]

    @property
    def kind(self) -> str:
        """How it was fitted, for example "logistic"."""

    @property
    def view(self) -> str:
        """The features that it reads: "pooled", or several joined by "+", whose rows are put one after another."""

    @property
    def novelty(self) -> Novelty:
        """How strange an input is."""

    @property
    def maps(self) -> tuple[Map, ...]:
        """At least one."""

    @property
    def classes(self) -> int:
        """How many labels it answers with; 0 where it answers without labels."""

    @property
    def dimension(self) -> int:
        """d, the length of a row of features."""

    def scores(self, features: Array) -> HeadOutput:
        """Scores features of shape (n, d) float32; raises InvalidError if d is another."""

    def answers(self, labels: Sequence[Label], arrays: Mapping[str, NDArray[Any]]) -> Iterator[Answer]:
        """The answers of the rows that were read, on the event loop: what a row takes for itself."""

    def changed(self, maps: tuple[Map, ...], novelty: Novelty) -> Self:
        """The head with other maps, as many as it has, and another novelty."""

    def packed(self) -> msgspec.Struct:
        """The head as it is stored; see `codec`."""

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """The reverse of `packed`, encoded; raises ValueError or MsgspecError where the data are not of such a head."""

    @property
    def outputs(self) -> tuple[GraphOutput, ...]:
        """The outputs of its graph."""

    def write(self, nodes: Nodes) -> None:
        """Adds nodes that compute the outputs and "novelty" from "features"."""

    def rounding(self, features: Array) -> tuple[Array, Array]:
        """How far float32 typically puts answers and the largest logit off, on features of shape (n, d).

        Returns:
            Of probabilities, shape (n, k), or of a value, (n, 1); of the logit that enters the novelty, (n,), 0 where
            none does.
        """

    def graph_allowance(self, features: Array, rounding: Array) -> dict[str, Array]:
        """How far each output of floats may be off in the head's graph, by name.

        Args:
            features: shape (n, d).
            rounding: How far rounding may put its answers off; see `rounding.allowance`.
        """

    def decides_otherwise(
        self, features: Array, computed: Mapping[str, NDArray[Any]], allowed: Mapping[str, Array]
    ) -> bool:
        """Whether the graph decides otherwise than the head where nothing is at the very edge.

        Args:
            features: shape (n, d).
            computed: What the graph gives, by name.
            allowed: How far each output of floats may be off.
        """

    def compared(self, features: Array, bundled: Mapping[str, NDArray[Any]], rounding: Array) -> Comparison:
        """What a bundle gives beside what the head says; the arguments are as in `decides_otherwise`."""

    def margins(self, features: Array) -> Array:
        """How far each row of features is from another answer, shape (n,): small ones tell heads apart."""

    def measured(self, answered: Answered) -> Measured:
        """The figures of what it said of n >= 1 labelled examples, whose outputs are the fields of what it scored."""

    def settings(self) -> dict[str, Any]:
        """What a bundle's settings say of the head's decisions, as JSON; nothing where there are none."""

    def described(self, modality: str) -> tuple[str, str]:
        """What kind of model it makes of inputs of a modality, and its graph's outputs, for the README of a bundle."""
