"""A head for any number of labels: one or two maps whose scores add up to logits, each through a sigmoid of its own.

Calibration (a scale and a shift of each label's logit) is part of the maps: it costs nothing to serve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Label, Task
from graft_server.domain.prediction import Answer
from graft_server.domain.report import Measured
from graft_server.domain.tasks.multi_label import MultiLabelAnswer
from graft_server.evaluation import multi_label
from graft_server.evaluation.answered import Answered
from graft_server.heads import rounding as rounded
from graft_server.heads.head import Comparison, GraphOutput
from graft_server.heads.maps import Map, best_columns, parts, require_width, sigmoid, summed
from graft_server.heads.nodes import Nodes
from graft_server.heads.novelty import Novelty
from graft_server.heads.packing import (
    FORMAT,
    StoredArray,
    StoredMap,
    StoredNovelty,
    pack_array,
    pack_map,
    pack_novelty,
    require,
    require_alike,
    unpack_array,
    unpack_map,
    unpack_novelty,
)
from graft_server.heads.rounding import BUNDLE_PARITY, CLEAR_MARGIN, GRAPH_PARITY, told_apart

NOT_GIVEN = -1
"""The column that marks a score as not part of the answer."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class MultiLabelOutput:
    """A head's output for n inputs."""

    probabilities: Array
    """shape (n, k): calibrated for each label separately."""
    selected: NDArray[np.bool_]
    """shape (n, k): whether the head selects each label."""
    novelty: Array
    """shape (n,): the share of training examples that are less strange, 0 to 1."""

    def read(self, top_k: int) -> dict[str, NDArray[Any]]:
        """Returns the best labels and every selected one."""
        best = best_columns(self.probabilities, self.probabilities.shape[1])
        rows = np.arange(len(best))[:, None]
        selected = self.selected[rows, best]
        given = selected | (np.arange(best.shape[1]) < top_k)
        return {
            "best": np.where(given, best, NOT_GIVEN),
            "probabilities": self.probabilities[rows, best],
            "selected": selected,
            "novelty": self.novelty,
        }


@dataclass(frozen=True, slots=True, eq=False)
class MultiLabelHead:
    """A function from features to k calibrated probabilities, the labels that apply, and a novelty. See `Head`."""

    task: ClassVar[Task] = Task.MULTI_LABEL

    kind: str
    view: str
    maps: tuple[Map, ...]
    """The maps, at least one; the logits are the sum of their scores."""
    thresholds: Array
    """shape (k,): the least probability at which a label is selected."""
    at_least_one: bool
    """Whether the best label is selected if none reaches its threshold."""
    novelty: Novelty

    @property
    def classes(self) -> int:
        """The number k of labels."""
        return len(self.thresholds)

    @property
    def dimension(self) -> int:
        """d, the length of a row of features."""
        return self.maps[0].dimension

    def scores(self, features: Array) -> MultiLabelOutput:
        """See `Head`."""
        require_width(features, self.dimension)
        probabilities = np.empty((len(features), self.classes), np.float32)
        novelty = np.empty(len(features), np.float32)
        for rows, part in parts(features):
            probabilities[rows] = sigmoid(summed(self.maps, part))
            novelty[rows] = self.novelty.scores(None, part)
        selected = choice(probabilities, self.thresholds, at_least_one=self.at_least_one)
        return MultiLabelOutput(probabilities, selected, novelty)

    def answers(self, labels: Sequence[Label], arrays: Mapping[str, NDArray[Any]]) -> Iterator[Answer]:
        """See `Head`."""
        columns = (arrays[name].tolist() for name in ("best", "probabilities", "selected"))
        for row in zip(*columns, strict=True):
            scores = zip(*row, strict=True)
            yield MultiLabelAnswer(
                [(labels[it].name, p, chosen) for it, p, chosen in scores if it != NOT_GIVEN]
            )

    def changed(self, maps: tuple[Map, ...], novelty: Novelty) -> Self:
        """See `Head`."""
        return replace(self, maps=maps, novelty=novelty)

    def packed(self) -> msgspec.Struct:
        """See `Head`."""
        return _Stored(
            format=FORMAT,
            kind=self.kind,
            view=self.view,
            maps=tuple(map(pack_map, self.maps)),
            thresholds=pack_array(self.thresholds),
            at_least_one=self.at_least_one,
            novelty=pack_novelty(self.novelty),
        )

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """See `Head`."""
        stored = msgspec.msgpack.decode(data, type=_Stored)
        maps, novelty = tuple(map(unpack_map, stored.maps)), unpack_novelty(stored.novelty)
        thresholds = unpack_array(stored.thresholds)
        require_alike(maps, novelty)
        require(thresholds.shape == maps[0].bias.shape, "thresholds and maps")
        return cls(stored.kind, stored.view, maps, thresholds, stored.at_least_one, novelty)

    @property
    def outputs(self) -> tuple[GraphOutput, ...]:
        """See `Head`."""
        return (
            GraphOutput("probabilities", ("n", self.classes)),
            GraphOutput("selected", ("n", self.classes), np.bool_),
            GraphOutput("thresholds", (self.classes,)),
        )

    def write(self, nodes: Nodes) -> None:
        """See `Head`."""
        nodes.add("Sigmoid", [nodes.summed(self.maps, "logits")], "probabilities")
        nodes.add("Identity", [nodes.constant("each_threshold", self.thresholds)], "thresholds")
        reached = "reached" if self.at_least_one else "selected"
        nodes.add("GreaterOrEqual", ["probabilities", "each_threshold"], reached)
        if self.at_least_one:
            self._write_best_instead(nodes)
        nodes.novelty(self.novelty, None)

    def _write_best_instead(self, nodes: Nodes) -> None:
        """Makes `selected` from `reached`, and the best label, the first of equal ones, where none is reached."""
        nodes.add("Cast", ["reached"], "reached_numbers", to=np.float32)
        nodes.add("ReduceMax", ["reached_numbers", "classes_axis"], "any_reached", keepdims=1)
        nodes.add("Equal", ["any_reached", nodes.scalar("none_reached", 0)], "none")
        nodes.add("ArgMax", ["probabilities"], "best", axis=-1, keepdims=1)
        nodes.add("Equal", ["best", nodes.constant("columns", np.arange(self.classes))], "is_best")
        nodes.add("And", ["none", "is_best"], "best_instead")
        nodes.add("Or", ["reached", "best_instead"], "selected")

    def rounding(self, features: Array) -> tuple[Array, Array]:
        """See `Head`."""
        answers = rounded.of_sum(self.maps, features) / np.float32(4)  # the steepest slope of a sigmoid
        return answers, np.zeros(len(features), np.float32)

    def graph_allowance(self, features: Array, rounding: Array) -> dict[str, Array]:
        """See `Head`."""
        del features
        return {"probabilities": np.maximum(np.float32(GRAPH_PARITY), rounding)}

    def decides_otherwise(
        self, features: Array, computed: Mapping[str, NDArray[Any]], allowed: Mapping[str, Array]
    ) -> bool:
        """Whether other labels are selected in a row whose probabilities are not close to a threshold."""
        output, by = self.scores(features), allowed["probabilities"]
        best = np.sort(output.probabilities, axis=1)
        tied = best[:, -1:] - best[:, -2:-1] <= 2 * by.max(axis=1, keepdims=True)
        edge = (np.abs(output.probabilities - self.thresholds) <= by).any(axis=1, keepdims=True)
        return bool(((computed["selected"] != output.selected) & ~edge & ~tied).any())

    def compared(self, features: Array, bundled: Mapping[str, NDArray[Any]], rounding: Array) -> Comparison:
        """See `Head`."""
        output = self.scores(features)
        served = output.probabilities
        clear = np.abs(served - self.thresholds) > CLEAR_MARGIN
        clear &= told_apart(served)[:, None]
        other = int((output.selected != bundled["selected"])[clear].sum())
        allowed = np.maximum(BUNDLE_PARITY, rounding)
        return Comparison("probabilities", served, bundled["probabilities"], allowed, other)

    def margins(self, features: Array) -> Array:
        """Returns the distance of the nearest probability from its threshold."""
        edges: Array = np.abs(self.scores(features).probabilities - self.thresholds).min(axis=1)
        return edges

    def uncertainty(self, output: MultiLabelOutput) -> Array:
        """See `Head`: that of the label which is closest to its threshold; at 0 and 1 a probability is certain."""
        above = output.probabilities - self.thresholds
        room = np.where(above >= 0, 1 - self.thresholds, self.thresholds)
        certainty = np.abs(above) / np.maximum(room, np.float32(1e-6))
        return np.asarray(1 - np.minimum(certainty.min(axis=1), 1))

    def measured(self, answered: Answered) -> Measured:
        """See `Head`."""
        return multi_label.measure(answered, self.thresholds)

    def settings(self) -> dict[str, Any]:
        """See `Head`."""
        return {
            "thresholds": [round(float(it), 6) for it in self.thresholds],
            "at_least_one": self.at_least_one,
        }

    def described(self, modality: str) -> tuple[str, str]:
        """See `Head`."""
        return (
            f"A model that gives {modality} any of {self.classes:,} labels",
            """`probabilities`
  (batch, labels; calibrated, each label for itself), `selected` (batch, labels; which apply), `thresholds`
  (labels; of the probabilities)""",
        )


class _Stored(msgspec.Struct, frozen=True):
    format: int
    kind: str
    view: str
    maps: tuple[StoredMap, ...]
    thresholds: StoredArray
    at_least_one: bool
    novelty: StoredNovelty
    task: Task = Task.MULTI_LABEL


def choice(probabilities: Array, thresholds: Array, *, at_least_one: bool) -> NDArray[np.bool_]:
    """Returns whether each label is selected, shape (n, k)."""
    selected: NDArray[np.bool_] = probabilities >= thresholds
    if at_least_one:
        none = np.flatnonzero(~selected.any(axis=1))
        selected[none, probabilities[none].argmax(axis=1)] = True
    return selected
