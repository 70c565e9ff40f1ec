"""A head that answers with a number and an interval: one or two maps whose scores add up to the value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Label, Task
from graft_server.domain.prediction import Answer
from graft_server.domain.report import Measured
from graft_server.domain.tasks.regression import RegressionAnswer
from graft_server.evaluation import regression
from graft_server.evaluation.answered import Answered
from graft_server.heads import rounding as rounded
from graft_server.heads.head import Comparison, GraphOutput
from graft_server.heads.maps import LinearMap, Map, parts, require_width, summed
from graft_server.heads.nodes import Nodes
from graft_server.heads.novelty import Novelty
from graft_server.heads.packing import (
    FORMAT,
    StoredLinear,
    StoredMap,
    StoredNovelty,
    pack_linear,
    pack_map,
    pack_novelty,
    positive,
    require,
    require_alike,
    unpack_linear,
    unpack_map,
    unpack_novelty,
)
from graft_server.heads.rounding import BUNDLE_PARITY, GRAPH_PARITY, ROUNDING

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RegressionOutput:
    """A head's output for n inputs, each array of shape (n,), in the unit of the training examples' values."""

    value: Array
    low: Array
    """The lower end of the interval."""
    high: Array
    """The upper end of the interval."""
    novelty: Array
    """The share of training examples that are less strange, 0 to 1."""

    def read(self, top_k: int) -> dict[str, NDArray[Any]]:
        """The value and its interval."""
        del top_k  # there is one answer
        return {"value": self.value, "low": self.low, "high": self.high, "novelty": self.novelty}


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """The expected error of values, if some inputs are harder than others.

    It is linear in the features, within bounds.
    """

    map: LinearMap
    """A map with one column."""
    least: float
    """The lower bound, above 0."""
    most: float

    def of(self, features: Array) -> Array:
        """Returns the spread of each row, shape (n,)."""
        spread: Array = np.clip(
            self.map.scores(features)[:, 0], np.float32(self.least), np.float32(self.most)
        )
        return spread


@dataclass(frozen=True, slots=True, eq=False)
class RegressionHead:
    """A function from features to a value, an interval that holds the true value as often as promised, and a novelty.

    See `Head`.
    """

    task: ClassVar[Task] = Task.REGRESSION

    kind: str
    view: str
    maps: tuple[Map, ...]
    """The maps, at least one, of one column each; the value is the sum of their scores."""
    below: float
    """The distance in spreads from the value down to the interval's lower end."""
    above: float
    """The distance in spreads from the value up to the interval's upper end."""
    spread: Spread | None
    """The expected error of each input; None: 1 for every input."""
    novelty: Novelty

    @property
    def classes(self) -> int:
        """0: it answers without labels."""
        return 0

    @property
    def dimension(self) -> int:
        """d, the length of a row of features."""
        return self.maps[0].dimension

    def scores(self, features: Array) -> RegressionOutput:
        """See `Head`."""
        require_width(features, self.dimension)
        n = len(features)
        values, spread, novelty = (np.ones(n, np.float32) for _ in range(3))
        for rows, part in parts(features):
            values[rows] = summed(self.maps, part)[:, 0]
            novelty[rows] = self.novelty.scores(None, part)
            if self.spread is not None:
                spread[rows] = self.spread.of(part)
        low, high = values - np.float32(self.below) * spread, values + np.float32(self.above) * spread
        return RegressionOutput(values, low, high, novelty)

    def answers(self, labels: Sequence[Label], arrays: Mapping[str, NDArray[Any]]) -> Iterator[Answer]:
        """See `Head`."""
        del labels  # it has none
        columns = (arrays[name].tolist() for name in ("value", "low", "high"))
        yield from (RegressionAnswer(*row) for row in zip(*columns, strict=True))

    def changed(self, maps: tuple[Map, ...], novelty: Novelty) -> Self:
        """See `Head`."""
        return replace(self, maps=maps, novelty=novelty)

    def packed(self) -> msgspec.Struct:
        """See `Head`."""
        spread = self.spread
        return _Stored(
            format=FORMAT,
            kind=self.kind,
            view=self.view,
            maps=tuple(map(pack_map, self.maps)),
            below=self.below,
            above=self.above,
            spread=None
            if spread is None
            else _StoredSpread(pack_linear(spread.map), spread.least, spread.most),
            novelty=pack_novelty(self.novelty),
        )

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """See `Head`."""
        stored = msgspec.msgpack.decode(data, type=_Stored)
        maps, novelty = tuple(map(unpack_map, stored.maps)), unpack_novelty(stored.novelty)
        spread = None
        if stored.spread is not None:
            of = unpack_linear(stored.spread.map)
            spread = Spread(of, positive(stored.spread.least), stored.spread.most)
        require_alike([*maps, *([spread.map] if spread else [])], novelty)
        require(len(maps) > 0 and maps[0].bias.shape == (1,), "maps")
        require(math.isfinite(stored.below) and math.isfinite(stored.above), "interval")
        return cls(stored.kind, stored.view, maps, stored.below, stored.above, spread, novelty)

    @property
    def outputs(self) -> tuple[GraphOutput, ...]:
        """See `Head`."""
        return tuple(GraphOutput(name, ("n",)) for name in ("value", "low", "high"))

    def write(self, nodes: Nodes) -> None:
        """See `Head`."""
        values = nodes.summed(self.maps, "values")
        nodes.add("Squeeze", [values, "classes_axis"], "value")
        below, above = nodes.scalar("below", self.below), nodes.scalar("above", self.above)
        if self.spread is not None:
            scores = nodes.scores(self.spread.map, "spread")
            nodes.add("Squeeze", [scores, "classes_axis"], "spread.free")
            bounds = [
                nodes.scalar("spread.least", self.spread.least),
                nodes.scalar("spread.most", self.spread.most),
            ]
            nodes.add("Clip", ["spread.free", *bounds], "spread")
            below = nodes.add("Mul", ["spread", below], "far_below")
            above = nodes.add("Mul", ["spread", above], "far_above")
        nodes.add("Sub", ["value", below], "low")
        nodes.add("Add", ["value", above], "high")
        nodes.novelty(self.novelty, None)

    def rounding(self, features: Array) -> tuple[Array, Array]:
        """See `Head`."""
        return rounded.of_sum(self.maps, features), np.zeros(len(features), np.float32)

    def graph_allowance(self, features: Array, rounding: Array) -> dict[str, Array]:
        """See `Head`."""
        output = self.scores(features)
        size = float(np.abs(output.value).max(initial=0))
        by = GRAPH_PARITY * float((output.high - output.low).mean()) + ROUNDING * size
        return dict.fromkeys(("value", "low", "high"), by + rounding[:, 0])

    def decides_otherwise(
        self, features: Array, computed: Mapping[str, NDArray[Any]], allowed: Mapping[str, Array]
    ) -> bool:
        """False: a value involves no decision."""
        del features, computed, allowed
        return False

    def compared(self, features: Array, bundled: Mapping[str, NDArray[Any]], rounding: Array) -> Comparison:
        """See `Head`."""
        output = self.scores(features)
        width = float((output.high - output.low).mean())
        largest = float(np.abs(output.value).max())
        allowed = BUNDLE_PARITY * max(width, largest / 100) + rounding[:, 0]
        return Comparison("value", output.value, bundled["value"], allowed)

    def margins(self, features: Array) -> Array:
        """Returns margins that are smallest where the value is uncommon."""
        values = self.scores(features).value
        return np.asarray(-np.abs(values - values.mean()))

    def uncertainty(self, output: RegressionOutput) -> Array:
        """See `Head`: the interval's width, as a share of the widest that the head gives; 1 where all are equal."""
        if self.spread is None:
            return np.ones(len(output.value), np.float32)
        widest = np.float32((self.below + self.above) * self.spread.most)
        return np.asarray(np.clip((output.high - output.low) / max(widest, np.float32(1e-30)), 0, 1))

    def measured(self, answered: Answered) -> Measured:
        """See `Head`."""
        return regression.measure(answered)

    def settings(self) -> dict[str, Any]:
        """See `Head`."""
        return {}

    def described(self, modality: str) -> tuple[str, str]:
        """See `Head`."""
        return (
            f"A model that answers {modality} with a number",
            "`value`, `low` and `high`\n  (batch; the number and its interval)",
        )


class _StoredSpread(msgspec.Struct, frozen=True):
    map: StoredLinear
    least: float
    most: float


class _Stored(msgspec.Struct, frozen=True):
    format: int
    kind: str
    view: str
    maps: tuple[StoredMap, ...]
    below: float
    above: float
    spread: _StoredSpread | None
    novelty: StoredNovelty
    task: Task = Task.REGRESSION
