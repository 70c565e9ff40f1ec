"""The interface of heads of every task: the rest of the server uses heads through it alone.

A head is a small function of the features. Each task has a module with its kind of head: its answers, its stored
form, its nodes in an ONNX graph, and how far two correct ways to compute it may differ. `codec.HEADS` lists them.
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
    """A head's output for n inputs: each dataclass field is an array with a row for each input."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def novelty(self) -> Array:
        """Shape (n,): the share of training examples that are less strange, 0 to 1."""

    def read(self, top_k: int) -> dict[str, NDArray[Any]]:
        """Returns the novelty and the arrays that `Head.answers` needs, by name; at most `top_k` scores each.

        Work for many rows at once, such as finding the best labels, is done here, on the encoder's thread.
        Rows of one request may meet in different batches: an array has the same width everywhere.
        """


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """One output of a head's graph, beside the novelty."""

    name: str
    shape: tuple[int | str, ...]
    """Sizes, or names of sizes that are known at run time: "n" is the number of inputs."""
    dtype: DTypeLike = field(default=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A bundle's answers beside the served ones, on the same inputs."""

    name: str
    """The name of the compared output."""
    served: Array
    bundled: Array
    """The bundle's output, of the shape of `served`."""
    allowed: NDArray[np.floating]
    """The allowed error of each number, of the same shape."""
    other: int = 0
    """The number of labels that differ by more than rounding explains."""


class AnsweringHead(Protocol):
    """A function from features to answers, and a novelty: what serving needs of a head."""

    def scores(self, features: Array) -> HeadOutput:
        """Scores features of shape (n, d) float32; raises InvalidError if d differs."""

    def answers(self, labels: Sequence[Label], arrays: Mapping[str, NDArray[Any]]) -> Iterator[Answer]:
        """Returns the answers of the rows that were read. It runs on the event loop: work for each row alone."""


class Head(AnsweringHead, Protocol):
    """A head of one task that can be stored and exported."""

    task: ClassVar[Task]

    @property
    def kind(self) -> str:
        """The method that fitted it, for example "logistic"."""

    @property
    def view(self) -> str:
        """The features that it reads: "pooled", or several names joined by "+", whose rows are joined."""

    @property
    def novelty(self) -> Novelty:
        """Computes how strange an input is."""

    @property
    def maps(self) -> tuple[Map, ...]:
        """The maps, at least one."""

    @property
    def classes(self) -> int:
        """The number of labels that it answers with; 0 if it answers without labels."""

    @property
    def dimension(self) -> int:
        """d, the length of a row of features."""

    def changed(self, maps: tuple[Map, ...], novelty: Novelty) -> Self:
        """Returns the head with other maps, in the same number, and another novelty."""

    def packed(self) -> msgspec.Struct:
        """Returns the head as it is stored; see `codec`."""

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """Reverses `packed`, encoded; raises ValueError or MsgspecError if the data are not such a head."""

    @property
    def outputs(self) -> tuple[GraphOutput, ...]:
        """Returns the outputs of its graph."""

    def write(self, nodes: Nodes) -> None:
        """Adds nodes that compute the outputs and "novelty" from "features"."""

    def rounding(self, features: Array) -> tuple[Array, Array]:
        """Returns the typical errors of answers and of the largest logit in float32, on features of shape (n, d).

        Returns:
            The errors of probabilities, shape (n, k), or of a value, (n, 1); and of the logit that enters the
            novelty, (n,), 0 if none does.
        """

    def graph_allowance(self, features: Array, rounding: Array) -> dict[str, Array]:
        """Returns the allowed error of each float output of the head's graph, by name.

        Args:
            features: shape (n, d).
            rounding: The errors that rounding may cause in its answers; see `rounding.allowance`.
        """

    def decides_otherwise(
        self, features: Array, computed: Mapping[str, NDArray[Any]], allowed: Mapping[str, Array]
    ) -> bool:
        """Whether the graph decides differently from the head where no value is close to a decision's edge.

        Args:
            features: shape (n, d).
            computed: The graph's outputs, by name.
            allowed: The allowed error of each float output.
        """

    def compared(self, features: Array, bundled: Mapping[str, NDArray[Any]], rounding: Array) -> Comparison:
        """Returns a bundle's outputs beside the head's; the arguments are as in `decides_otherwise`."""

    def margins(self, features: Array) -> Array:
        """Returns how far each row is from another answer, shape (n,): rows with small margins tell heads apart."""

    def uncertainty(self, output: Any) -> Array:
        """Returns how little its output says about each input, shape (n,): 0, certain, to 1. The output is its own."""

    def measured(self, answered: Answered) -> Measured:
        """Returns the figures of its outputs for n >= 1 labelled examples; the outputs are the fields of its scores."""

    def settings(self) -> dict[str, Any]:
        """Returns a bundle's settings for the head's decisions, as JSON; empty if it makes none."""

    def described(self, modality: str) -> tuple[str, str]:
        """Returns the kind of model for a modality, and the graph's outputs, in words for the README of a bundle."""
